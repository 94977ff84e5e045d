# sessiond: `make demo` shows the main job, `make test` proves it, `make help` lists the rest.
#
# Variants live side by side: make V=release|debug|asan|tsan|fuzz|cov puts everything under build/$(V).

V       ?= release
B       := build/$(V)
PREFIX  ?= /usr/local
LIBDIR  ?= lib
DESTDIR ?=
VERSION := $(shell sed -n 's/^\#define SESSIOND_VERSION "\(.*\)"/\1/p' proto/proto.h)
T       ?= 60

# What Debian 12 calls the things we need; `make demo` and `make test` install what is missing.
PKGS_BUILD := gcc make pkg-config libuv1-dev libsqlite3-dev libjansson-dev libmsgpack-dev libxxhash-dev \
              libcurl4-openssl-dev python3 python3-venv
PKGS_TEST  := $(PKGS_BUILD) libcmocka-dev clang libclang-rt-14-dev valgrind sqlite3 procps
PKGS_CHECK := $(PKGS_TEST) clang-format clang-tidy cppcheck git systemd mandoc
PKGS_DEB   := $(PKGS_BUILD) debhelper dh-python fakeroot lintian python3-all python3-hatchling python3-msgpack \
              pybuild-plugin-pyproject git
PKGS_BENCH := $(PKGS_TEST) redis-server
PKGS_COV   := $(PKGS_TEST) gcovr

# ---- compilers and flags ----

PKG_CONFIG ?= pkg-config
MSGPACK    := $(shell $(PKG_CONFIG) --exists msgpack-c 2>/dev/null && echo msgpack-c || echo msgpack)
LIBS_CORE  := libuv sqlite3 jansson $(MSGPACK) libxxhash
LIBS_TEST  := cmocka

ifeq ($(V),fuzz)
CC := clang
endif
OPT_release := -O2 -D_FORTIFY_SOURCE=2
OPT_debug   := -O0
OPT_asan    := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_tsan    := -O1 -fsanitize=thread -fno-omit-frame-pointer
# Without trace-cmp twice as many inputs are tried in a second; the dictionaries name what comparisons would teach.
OPT_fuzz    := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-coverage=trace-cmp \
               -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_cov     := -O0 --coverage -fprofile-update=atomic
OPT         := $(OPT_$(V))
ifeq ($(OPT),)
$(error V=$(V) is none of release, debug, asan, tsan, fuzz, cov)
endif

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wwrite-strings \
        -Wimplicit-fallthrough $(if $(WERROR),-Werror)
ALL_CFLAGS := -std=gnu11 -D_GNU_SOURCE -g -fPIC -fvisibility=hidden -fstack-protector-strong $(OPT) \
              -Iproto -Idaemon -Iclient/c -Itests/lib $(shell $(PKG_CONFIG) --cflags $(LIBS_CORE) 2>/dev/null) \
              $(CPPFLAGS) $(CFLAGS)
ALL_LDFLAGS := $(filter -fsanitize=% -O% --coverage,$(subst fuzzer-no-link$(comma),,$(OPT))) -pie -Wl,-z,relro,-z,now $(LDFLAGS)
LINK_CORE   = $(shell $(PKG_CONFIG) --libs $(LIBS_CORE)) -pthread
LINK_CLIENT = $(shell $(PKG_CONFIG) --libs $(MSGPACK))
comma := ,

# A line for each thing that is made; VERBOSE=1 shows the commands.
Q   := $(if $(VERBOSE),,@)
say  = $(if $(VERBOSE),,@printf '  %-4s %s\n' $(1) $@)

# ---- what is made of what ----

PROTO_SRC   := $(wildcard proto/*.c)
CORE_SRC    := $(filter-out daemon/main.c,$(wildcard daemon/*.c daemon/*/*.c))
CLIENT_SRC  := $(wildcard client/c/*.c)
CLI_SRC     := $(wildcard client/cli/*.c)
TESTLIB_SRC := $(wildcard tests/lib/*.c)
TEST_SRC    := $(wildcard tests/unit/test_*.c tests/contract/test_*.c tests/integration/test_*.c)
FUZZ_SRC    := $(wildcard tests/fuzz/fuzz_*.c)
obj = $(patsubst %.c,$(B)/obj/%.o,$(1))

TESTS   := $(patsubst tests/%.c,$(B)/tests/%,$(TEST_SRC))
REPLAYS := $(patsubst tests/fuzz/fuzz_%.c,$(B)/tests/fuzz/replay_%,$(FUZZ_SRC))
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,$(B)/tests/fuzz/fuzz_%,$(FUZZ_SRC))
PRELOAD := $(wildcard tests/crash/*/preload_*.c)
HARNESS := $(patsubst tests/%.c,$(B)/tests/%.so,$(PRELOAD)) $(patsubst tests/%.c,$(B)/tests/%,\
             $(filter-out $(PRELOAD) $(TEST_SRC),$(wildcard tests/crash/*.c tests/crash/*/*.c tests/bench/*.c \
             tests/integration/*.c)))

.PHONY: all man deb demo run test check help install uninstall clean venv node bench crash fuzz example valgrind cov model \
        need-% test-programs
.DELETE_ON_ERROR:

all: $(B)/sessiond $(B)/sessionctl $(B)/libsessiond.so $(B)/libsessiond.a

man: $(B)/man/ready
$(B)/man/ready: $(wildcard daemon/packaging/man/*) client/c/sessiond.h $(B)/sessiond $(B)/sessionctl
	$(call say,MAN)
	$(Q)daemon/packaging/man/make $(B) $(VERSION) $(B)/man
	@touch $@

$(B)/sessiond: $(call obj,daemon/main.c) $(B)/libcore.a
	$(call say,LD)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LINK_CORE)

$(B)/sessionctl: $(call obj,$(CLI_SRC)) $(B)/libsessiond.a
	$(call say,LD)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LINK_CLIENT)

$(B)/libcore.a: $(call obj,$(PROTO_SRC) $(CORE_SRC))
	$(call say,AR)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# The static library shows its users sessiond_* alone: proto/'s names are made local.
$(B)/libsessiond.a: $(call obj,$(PROTO_SRC) $(CLIENT_SRC)) client/c/sessiond.sym
	$(Q)$(LD) -r -o $(B)/libsessiond.o $(filter %.o,$^)
	$(Q)objcopy --localize-hidden $(B)/libsessiond.o
	$(call say,AR)
	$(Q)rm -f $@ && $(AR) rcs $@ $(B)/libsessiond.o

$(B)/libsessiond.so.0: $(call obj,$(PROTO_SRC) $(CLIENT_SRC)) client/c/sessiond.sym
	$(call say,LD)
	$(Q)$(CC) $(filter-out -pie,$(ALL_LDFLAGS)) -shared -Wl,-soname,libsessiond.so.0 \
	      -Wl,--version-script,client/c/sessiond.sym -o $@ $(filter %.o,$^) $(LINK_CLIENT)

$(B)/libsessiond.so: $(B)/libsessiond.so.0
	$(Q)ln -sf libsessiond.so.0 $@

example: $(B)/example/agent
$(B)/example/agent: $(call obj,client/c/example/agent.c) $(B)/libsessiond.so
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(ALL_LDFLAGS) -Wl,-rpath,'$$ORIGIN/..' -o $@ $(filter %.o,$^) -L$(B) -lsessiond \
	      $$($(PKG_CONFIG) --libs libcurl jansson)

# One program a test file. Those that end in _oom make the allocations of our own objects fail.
OOM := $(B)/tests/unit/test_oom $(B)/tests/unit/test_registry_oom $(B)/tests/integration/test_client_oom
$(OOM): WRAP := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
$(B)/tests/unit/test_registry_oom: WRAP += -Wl,--wrap=tsearch
$(B)/tests/%: $(B)/obj/tests/%.o $(call obj,$(TESTLIB_SRC) $(CLIENT_SRC)) $(B)/libcore.a
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(ALL_LDFLAGS) $(WRAP) -o $@ $^ $(LINK_CORE) $$($(PKG_CONFIG) --libs $(LIBS_TEST))

# For LD_PRELOAD, in the crash tests.
$(B)/tests/crash/%.so: $(B)/obj/tests/crash/%.o
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(filter-out -pie,$(ALL_LDFLAGS)) -shared -o $@ $^

# The client, whose kernel is the target itself.
$(B)/tests/fuzz/replay_reply $(B)/tests/fuzz/fuzz_reply: $(call obj,$(CLIENT_SRC))
$(B)/tests/fuzz/replay_reply $(B)/tests/fuzz/fuzz_reply: \
    WRAP := $(addprefix -Wl$(comma)--wrap=,socket connect close sendmsg recv poll clock_gettime)
$(B)/tests/fuzz/replay_%: $(B)/obj/tests/fuzz/fuzz_%.o $(B)/obj/tests/fuzz/replay.o $(B)/libcore.a
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(ALL_LDFLAGS) $(WRAP) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LINK_CORE)

$(B)/tests/fuzz/fuzz_%: $(B)/obj/tests/fuzz/fuzz_%.o $(B)/libcore.a
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer $(WRAP) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LINK_CORE)

# The stamp holds the flags: changed flags or a changed compiler rebuild everything.
$(B)/flags: force
	@mkdir -p $(@D) && echo '$(CC) $(WARN) $(ALL_CFLAGS) $(ALL_LDFLAGS)' | cmp -s - $@ || \
	 { $(PKG_CONFIG) --exists --print-errors $(LIBS_CORE) && echo '$(CC) $(WARN) $(ALL_CFLAGS) $(ALL_LDFLAGS)' > $@; }
force:
.PHONY: force

$(B)/obj/proto/%.o: WARN += -Wconversion -Wno-sign-conversion
$(B)/obj/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(WARN) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)

# ---- for users ----

need-%:
	@tests/lib/need $(PKGS_$*)

demo: need-BUILD
	@$(MAKE) --no-print-directory all example venv node
	@tests/demo/run

run: all
	@mkdir -p build/run
	$(B)/sessiond --socket build/run/sessiond.sock --state-dir build/run/state

# What is installed: mode, what, the folder under PREFIX, its name there.
P := daemon/packaging
INSTALLED = \
    755:$(B)/sessiond:bin: 755:$(B)/sessionctl:bin: \
    644:$(B)/libsessiond.so.0:$(LIBDIR): 644:$(B)/libsessiond.a:$(LIBDIR): \
    644:client/c/sessiond.h:include: 644:proto/sessiond-codes.h:include: \
    644:$(B)/install/sessiond.pc:$(LIBDIR)/pkgconfig: \
    644:$(B)/install/sessiond.service:lib/systemd/system: 644:$P/system/sessiond.socket:lib/systemd/system: \
    644:$(B)/install/user.service:lib/systemd/user:sessiond.service 644:$P/user/sessiond.socket:lib/systemd/user: \
    644:$P/system/sysusers.conf:lib/sysusers.d:sessiond.conf 644:$P/system/tmpfiles.conf:lib/tmpfiles.d:sessiond.conf \
    644:client/cli/completion.bash:share/bash-completion/completions:sessionctl \
    644:$(B)/man/man1/sessionctl.1:share/man/man1: 644:$(B)/man/man3/libsessiond.3:share/man/man3: \
    644:$(B)/man/man5/sessiond.conf.5:share/man/man5: 644:$(B)/man/man8/sessiond.8:share/man/man8:

path_of = $(DESTDIR)$(PREFIX)/$(word 3,$(1))/$(or $(word 4,$(1)),$(notdir $(word 2,$(1))))
install_one = install -D -m $(word 1,$(1)) $(word 2,$(1)) $(call path_of,$(1)) &&

install: all man
	@mkdir -p $(B)/install
	sed 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(VERSION)|; s|@MSGPACK@|$(MSGPACK)|' \
	    client/c/sessiond.pc.in > $(B)/install/sessiond.pc
	sed 's|/usr/local/bin|$(PREFIX)/bin|' sessiond.service > $(B)/install/sessiond.service
	sed 's|/usr/local/bin|$(PREFIX)/bin|' $P/user/sessiond.service > $(B)/install/user.service
	@$(foreach each,$(INSTALLED),$(call install_one,$(subst :, ,$(each))))true
	ln -sf libsessiond.so.0 $(DESTDIR)$(PREFIX)/$(LIBDIR)/libsessiond.so

uninstall:
	rm -f $(foreach each,$(INSTALLED),$(call path_of,$(subst :, ,$(each)))) $(DESTDIR)$(PREFIX)/$(LIBDIR)/libsessiond.so

deb: need-DEB
	@daemon/packaging/debian/make $(VERSION) build/deb

venv: build/venv/ready
build/venv/ready: tests/python/requirements.txt client/python/pyproject.toml
	@tests/lib/venv build/venv tests/python/requirements.txt client/python
	@touch $@

node: build/node/ready
build/node/ready: tests/node/package.json tests/lib/node | venv
	@tests/lib/node build/node tests/node/package.json build/venv/bin/pip 24
	@touch $@
build/node/older: build/node/ready
	@tests/lib/node build/node tests/node/package.json build/venv/bin/pip 20 24
	@touch $@

# ---- for developers ----

test-programs: all example $(TESTS) $(REPLAYS) $(HARNESS)

test: need-TEST
	@$(MAKE) --no-print-directory test-programs venv build/node/older
	@tests/lib/run-tests $(B) $(ONLY)

check: need-CHECK
	@$(MAKE) --no-print-directory all man
	@tests/lint/check

valgrind: need-TEST
	@$(MAKE) --no-print-directory test-programs
	@tests/lib/run-tests --valgrind $(B) $(ONLY)

model: need-TEST
	@$(MAKE) --no-print-directory $(B)/tests/contract/test_model
	@tests/contract/model $(B)

cov: need-COV
	@$(MAKE) --no-print-directory V=cov test-programs venv
	@tests/lib/coverage build/cov

bench: need-BENCH
	@$(MAKE) --no-print-directory all $(HARNESS) node build/venv/bench
	@SESSIOND_BUILD=$(B) tests/bench/run
build/venv/bench: tests/bench/requirements.txt build/venv/ready
	@build/venv/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

crash: need-TEST
	@$(MAKE) --no-print-directory all $(HARNESS) venv
	@SESSIOND_BUILD=$(B) tests/crash/run

fuzz: need-TEST
	@$(MAKE) --no-print-directory V=fuzz fuzzers
	@EXECUTIONS=$(EXECUTIONS) tests/fuzz/run build/fuzz/tests/fuzz $(T) $(TARGETS)
fuzzers: $(FUZZERS)

clean:
	rm -rf build

help:
	@echo 'make demo       install what is missing, build, and show an agent conversation that survives kill -9'
	@echo 'make test       unit, contract, integration, Python and Node tests, fuzz corpora replayed (ONLY=pattern: some)'
	@echo 'make            build/$(V)/sessiond, sessionctl, libsessiond.so, libsessiond.a'
	@echo 'make run        the daemon in the foreground, in build/run'
	@echo 'make install    to PREFIX=$(PREFIX), under DESTDIR if set; make uninstall takes it away'
	@echo 'make deb        Debian packages of what is committed, in build/deb; lintian looks at them'
	@echo 'make check      layers, words, units, manual pages, format, tidy, cppcheck, symbols'
	@echo 'make bench      rates and latencies beside Redis, the sessions of the Agents SDK and two limits: tests/bench/REPORT.md'
	@echo '                (a quarter of an hour; WHOLE=1: also what takes long; ROWS="get-50 add*": some, to build/bench)'
	@echo 'make crash      all that is done to break the promise: kill, power, states, damage, faults, alloc'
	@echo '                (an hour or two; SHARE=ci: minutes; PARTS="kill power": some; KILLS=20, SEED=1: see tests/crash)'
	@echo 'make fuzz       each fuzz target for T=$(T) seconds  (EXECUTIONS=n: so many inputs; TARGETS=: some)'
	@echo 'make valgrind   the C tests under valgrind'
	@echo 'make model      a million random operations, with kills and faults, beside a model  (SEEDS=200 OPERATIONS=5000)'
	@echo 'make cov        branches of proto/ and daemon/store that the tests take'
	@echo 'make clean      removes build/'
	@echo 'V=release (default), debug, asan, tsan, fuzz, cov: variants side by side under build/; VERBOSE=1 shows commands'
