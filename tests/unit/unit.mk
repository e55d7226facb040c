# Unit tests, one program a module; cmocka. Included by the Makefile once it has set FCGI and SHARED.
#
#   make unit            builds and runs them all
#   make unit-programs   only builds them

UNIT_TESTS   := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/test_*.c))
UNIT_OBJECTS := $(SHARED) $(filter-out %/main.o,$(FCGI))

unit-programs: $(UNIT_TESTS)

$(UNIT_TESTS): $(BUILD)/unit/%: $(BUILD)/tests/unit/%.o $(UNIT_OBJECTS)
	@mkdir -p $(@D)
	$(call run,link,$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka -lfcgi $(LDLIBS))

# Its realloc() fails when told to.
$(BUILD)/unit/test_buf: override LDFLAGS += -Wl,--wrap=realloc

# All of them run even if one fails: each tells of another module.
unit: unit-programs
	@passed=0 failed=; \
	for program in $(UNIT_TESTS); do \
		echo "== $$program"; \
		if WARMUP_TEST_DATA=tests/unit TMPDIR="$${TMPDIR:-$(BUILD)}" $$program; then \
			passed=$$((passed + 1)); \
		else \
			failed="$$failed $$program"; \
		fi; \
	done; \
	echo "== $$passed unit test programs passed, failed:$${failed:- none}"; \
	test -z "$$failed"

-include $(UNIT_TESTS:$(BUILD)/unit/%=$(BUILD)/tests/unit/%.d)
.PHONY: unit unit-programs
