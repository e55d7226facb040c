# Makefile: see `make help`.
#
# BUILD is where everything goes, so that builds of several kinds stand beside each other:
#   make BUILD=build/asan SANITIZE=address,undefined
#   make BUILD=build/coverage COVERAGE=1

BUILD  ?= build
PREFIX ?= /usr/local
CFLAGS ?= -O2 -g
DOCDIR ?= $(PREFIX)/share/doc/warmup
ifeq ($(origin CC),default)
CC := gcc
endif

LIBS := libpq libcurl libcjson libcrypto

# $(call takes,FLAGS): the first of them that this compiler takes without a word, with the flags that were given.
takes = $(firstword $(foreach flag,$(1),$(shell $(CC) $(CPPFLAGS) $(CFLAGS) -Werror -U_FORTIFY_SOURCE $(flag) \
	-include string.h -x c -c -o /dev/null /dev/null 2>/dev/null && echo '$(flag)')))

# Unless the flags that were given decide it, as those of a distribution do.
ifeq ($(findstring _FORTIFY_SOURCE,$(CPPFLAGS) $(CFLAGS))$(SANITIZE)$(COVERAGE),)
FORTIFY := $(addprefix -U_FORTIFY_SOURCE ,$(call takes,-D_FORTIFY_SOURCE=3 -D_FORTIFY_SOURCE=2))
endif
HARDEN := -fstack-protector-strong $(call takes,-fstack-clash-protection) \
          $(call takes,-fcf-protection=full -mbranch-protection=standard)

override CPPFLAGS += -D_GNU_SOURCE -Ishared -Ifcgi -Ideploy $(shell pkg-config --cflags $(LIBS)) $(FORTIFY)
override CFLAGS   += -std=c11 -fPIE -pthread $(HARDEN) -Wall -Wextra -Wpedantic -Wshadow \
                     -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
                     -Wswitch-enum -Wformat=2 -Wformat-nonliteral -Wundef -Wvla -Wpointer-arith \
                     -Wcast-qual -Wwrite-strings
override LDFLAGS  += -pie -pthread -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code -Wl,--as-needed
LDLIBS            := $(shell pkg-config --libs $(LIBS))

ifdef COVERAGE
# Not optimised, so that lines and branches are those of the source; atomic, because there are threads.
override CFLAGS  += -O0 --coverage -fprofile-update=atomic -fprofile-abs-path
override LDFLAGS += --coverage
else ifdef SANITIZE
override CFLAGS  += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=undefined
override LDFLAGS += -fsanitize=$(SANITIZE)
endif
ifdef WERROR
override CFLAGS += -Werror
endif

# A line a step; the whole commands with V=1.
quiet = $(findstring s,$(firstword -$(MAKEFLAGS)))
run = $(if $(V),,@$(if $(quiet),,echo '  $(1)  $@';)) $(2)

SHARED := $(patsubst %.c,$(BUILD)/%.o,$(wildcard shared/*.c))
FCGI   := $(patsubst %.c,$(BUILD)/%.o,$(wildcard fcgi/*.c))
CTL    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard deploy/*.c))

all: $(BUILD)/warmup.fcgi $(BUILD)/warmupctl

$(BUILD)/warmup.fcgi: $(FCGI) $(SHARED)
	$(call run,link,$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lfcgi $(LDLIBS))

$(BUILD)/warmupctl: $(CTL) $(SHARED)
	$(call run,link,$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS))

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call run,compile,$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<)

-include $(FCGI:.o=.d) $(SHARED:.o=.d) $(CTL:.o=.d)
-include tests/unit/unit.mk
-include tests/fuzz/fuzz.mk
-include tests/faults/faults.mk

demo:
	./deploy/demo

check:
	./tests/run

# For shared hosting: the libraries lie beside it, in lib. Not as RUNPATH, where their own needs would not be looked for.
$(BUILD)/portable/warmup.fcgi: override LDFLAGS += -s -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/lib'
$(BUILD)/portable/warmup.fcgi: $(FCGI) $(SHARED)
	@mkdir -p "$(@D)"
	$(call run,link,$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lfcgi $(LDLIBS))

portable: $(BUILD)/portable/warmup.fcgi
	@deploy/portable "$(BUILD)/portable"

deb:
	@deploy/deb "$(BUILD)"

# A file of text with the paths of this installation: $(call text,MODE,FILE,PLACE).
text = install -D -m $(1) /dev/null "$(DESTDIR)$(3)" && sed 's|/usr/local|$(PREFIX)|g' "$(2)" >"$(DESTDIR)$(3)"

# The sample of the settings is for root only because copies of it will hold passwords, and cp keeps the mode.
install: all
	install -D -m 755 "$(BUILD)/warmup.fcgi" "$(DESTDIR)$(PREFIX)/lib/warmup/warmup.fcgi"
	install -D -m 755 "$(BUILD)/warmupctl" "$(DESTDIR)$(PREFIX)/bin/warmupctl"
	install -D -m 644 -t "$(DESTDIR)$(PREFIX)/share/warmup/schema" deploy/schema/*.sql
	$(call text,640,deploy/warmup.conf.example,$(PREFIX)/share/warmup/warmup.conf.example)
	$(call text,644,fcgi/warmup.fcgi.8,$(PREFIX)/share/man/man8/warmup.fcgi.8)
	$(call text,644,deploy/warmupctl.8,$(PREFIX)/share/man/man8/warmupctl.8)
	$(call text,644,deploy/hosts/systemd/warmup.socket,$(PREFIX)/lib/systemd/system/warmup.socket)
	$(call text,644,deploy/hosts/systemd/warmup.service,$(PREFIX)/lib/systemd/system/warmup.service)
	install -D -m 644 -t "$(DESTDIR)$(DOCDIR)" README.md CHANGELOG.md LICENSE
	set -e; for file in $$(cd deploy/hosts && find * -type f); do \
		mode=644; test ! -x deploy/hosts/$$file || mode=755; \
		$(call text,$$mode,deploy/hosts/$$file,$(PREFIX)/share/warmup/hosts/$$file); \
	done

uninstall:
	rm -rf "$(DESTDIR)$(PREFIX)/lib/warmup" "$(DESTDIR)$(PREFIX)/share/warmup" "$(DESTDIR)$(DOCDIR)"
	rm -f "$(DESTDIR)$(PREFIX)/bin/warmupctl" \
		"$(DESTDIR)$(PREFIX)/share/man/man8/warmup.fcgi.8" \
		"$(DESTDIR)$(PREFIX)/share/man/man8/warmupctl.8" \
		"$(DESTDIR)$(PREFIX)/lib/systemd/system/warmup.socket" \
		"$(DESTDIR)$(PREFIX)/lib/systemd/system/warmup.service"

clean:
	rm -rf "$(BUILD)"

help:
	@echo 'make            build/warmup.fcgi and build/warmupctl (deploy/packages build: what that needs)'
	@echo 'make demo       the same as ./deploy/demo'
	@echo 'make check      the same as ./tests/run'
	@echo 'make unit       the unit tests only'
	@echo 'make install    DESTDIR= PREFIX=/usr/local: programs, schema, manual pages, samples, units'
	@echo 'make uninstall  takes them away again'
	@echo 'make deb        a package for this Debian (deploy/packages package: what that needs, too)'
	@echo 'make portable   build/portable: for shared hosting, with the libraries that it needs'
	@echo 'make clean      removes $$BUILD, by default build'
	@echo 'Variables: CC CFLAGS BUILD V=1 WERROR=1 SANITIZE=address,undefined COVERAGE=1'

.DEFAULT_GOAL := all
.PHONY: all demo check portable deb install uninstall clean help
