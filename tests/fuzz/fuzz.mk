# Fuzz targets, one program a file tests/fuzz/fuzz_*.c; libFuzzer.  Included by the Makefile once it has set FCGI and
# SHARED.  tests/fuzz/run builds them as they are meant to be built: with clang, and every object with its sanitizers:
#
#   make BUILD=build/fuzz CC=clang SANITIZE=fuzzer-no-link,address,undefined fuzz-programs

FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,$(BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_OBJECTS := $(SHARED) $(filter-out %/main.o,$(FCGI)) $(BUILD)/tests/fuzz/reference_json.o

fuzz-programs: $(FUZZ_TARGETS)

$(FUZZ_TARGETS): $(BUILD)/%: $(BUILD)/tests/fuzz/%.o $(FUZZ_OBJECTS)
	$(call run,link,$(CC) $(CFLAGS) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ -lfcgi $(LDLIBS))

# What a target puts in the place of the world: calls of these functions go to its own __wrap_NAME.
world = $(foreach name,$(1),-Wl,--wrap=$(name))
$(BUILD)/fuzz_routes: override LDFLAGS += $(call world,account_load account_swap db_ping instantly_enable write)
$(BUILD)/fuzz_reply: override LDFLAGS += $(call world,http_call clock_deadline_us clock_left_ms clock_sleep_us)
$(BUILD)/fuzz_fastcgi: override LDFLAGS += $(call world,clock_now_us)

-include $(FUZZ_TARGETS:$(BUILD)/%=$(BUILD)/tests/fuzz/%.d) $(BUILD)/tests/fuzz/reference_json.d
.PHONY: fuzz-programs
