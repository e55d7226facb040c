# What the tests of faults are made with. Included by the Makefile; built with the unit tests' programs.
#
#   killat    kills a program at one of its system calls
#   fail.so   preloaded into a program, lets one of its allocations or calls fail
#
# Without a sanitizer's flags: they run beside the program, not in it.

FAULT_FLAGS    := $(filter-out -fsanitize=% -fno-sanitize-recover=%,$(CFLAGS))
FAULT_PROGRAMS := $(BUILD)/tests/faults/killat $(BUILD)/tests/faults/fail.so

unit-programs: $(FAULT_PROGRAMS)

$(BUILD)/tests/faults/killat: tests/faults/killat.c Makefile
	@mkdir -p $(@D)
	$(call run,link,$(CC) $(CPPFLAGS) $(FAULT_FLAGS) -o $@ $< -pie)

# It defines what the headers would define themselves when fortified.
$(BUILD)/tests/faults/fail.so: tests/faults/fail.c Makefile
	@mkdir -p $(@D)
	$(call run,link,$(CC) $(CPPFLAGS) $(FAULT_FLAGS) -U_FORTIFY_SOURCE -fPIC -shared -o $@ $<)
