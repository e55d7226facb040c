# make          build/warmup.fcgi and build/warmupctl
# make help     what else there is

BUILD  ?= build
PREFIX ?= /usr/local
CC     ?= cc
CFLAGS ?= -O2 -g

LIBS     := libpq libcurl libcjson libcrypto
CPPFLAGS += -D_GNU_SOURCE -D_FORTIFY_SOURCE=2 -Ishared -Ifcgi -Ideploy $(shell pkg-config --cflags $(LIBS))
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes \
            -Wswitch-enum -Wformat=2 -Wformat-nonliteral -Wundef -Wvla -Wpointer-arith -Wcast-qual \
            -Wwrite-strings -Wold-style-definition
override CFLAGS  += -std=c11 -fPIE -fstack-protector-strong -pthread $(WARNINGS)
override LDFLAGS += -pie -Wl,-z,relro,-z,now -Wl,--as-needed -pthread
LDLIBS   := $(shell pkg-config --libs $(LIBS))

SHARED := $(patsubst %.c,$(BUILD)/%.o,$(wildcard shared/*.c))
FCGI   := $(patsubst %.c,$(BUILD)/%.o,$(wildcard fcgi/*.c))
CTL    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard deploy/*.c))

all: $(BUILD)/warmup.fcgi $(BUILD)/warmupctl

$(BUILD)/warmup.fcgi: $(FCGI) $(SHARED)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lfcgi $(LDLIBS)

$(BUILD)/warmupctl: $(CTL) $(SHARED)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(FCGI:.o=.d) $(SHARED:.o=.d) $(CTL:.o=.d)
.PHONY: all
