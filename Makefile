# pg_eventbus: PGXS, plus a module for each broker protocol.
#   make, make install, make installcheck      as for any extension (PG_CONFIG=… picks the server)
#   make demo      installs what is missing, builds, and shows the main job on real brokers
#   make check     installs what is missing, builds, and runs every test
#   make bench     prints tables of ratios (ONLY=name,… picks figures)
#   make format, make lint
EXTENSION = pg_eventbus
EXTVERSION = 0.2
MODULE_big = pg_eventbus

HOST_ROOMS = postgres settings decoder cursors source/log source/wal counters intake capture catalog health processes sender
CORE_GUESTS = src/core src/router src/delivery src/broker src/source
sources = $(sort $(foreach room,$(1),$(wildcard $(room)/*.cpp)))

OBJS = $(patsubst %.cpp,%.o,src/pg_eventbus.cpp $(call sources,$(HOST_ROOMS:%=src/%) $(CORE_GUESTS)))

# A protocol is a folder src/broker/NAME with a NAME_module.cpp in it; what it links stands in its file `libs`.
PROTOCOLS = $(patsubst src/broker/%/,%,$(sort $(dir $(wildcard src/broker/*/*_module.cpp))))
MODULES_BUILT = $(PROTOCOLS:%=pg_eventbus_%.so)
module_objs = $(patsubst %.cpp,%.o,$(call sources,src/broker/$(1)))
MODULE_OBJS = $(foreach protocol,$(PROTOCOLS),$(call module_objs,$(protocol)))

# What modules are made with, also those of others (examples/driver-file): headers, and a library of all guests below them.
GUEST_LIBRARY = libpg_eventbus_guest.a
GUEST_ROOMS = core broker/stream
GUEST_OBJS = $(patsubst %.cpp,%.o,$(call sources,$(GUEST_ROOMS:%=src/%)))
GUEST_HEADERS = $(patsubst src/%,%,$(sort $(wildcard $(GUEST_ROOMS:%=src/%/*.hpp)))) broker/driver.hpp
VERSION_HEADER = pg_eventbus_version.hpp

SCHEMA = $(sort $(wildcard src/schema/*.sql))
# Updates read some files as CREATE EXTENSION does, where a line says "-- here: NAME".
UPGRADES = $(notdir $(wildcard src/schema/upgrade/*.sql))
DATA_built = pg_eventbus--$(EXTVERSION).sql $(UPGRADES)

REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
REGRESS_OPTS = --load-extension=pg_eventbus

EXTRA_CLEAN = $(MODULES_BUILT) $(MODULE_OBJS) $(GUEST_LIBRARY) $(GUEST_OBJS) $(VERSION_HEADER) \
  $(OBJS:.o=.d) $(MODULE_OBJS:.o=.d) $(GUEST_OBJS:.o=.d) build

PG_CONFIG ?= pg_config
# JIT inlining of our functions would buy nothing, and its bitcode wants clang of the server's version.
override with_llvm := no
override CXX := $(if $(filter default undefined,$(origin CXX)),g++,$(CXX))
WARNINGS = -Wall -Wextra $(if $(WERROR),-Werror)
PG_CPPFLAGS = -Isrc -isystem $(shell $(PG_CONFIG) --includedir-server)
PG_CXXFLAGS = -std=c++20 -fvisibility=hidden $(WARNINGS) -MMD -MP -DEVENTBUS_VERSION='"$(EXTVERSION)"'
SHLIB_LINK = -lstdc++ -ldl -lrt

# SANITIZE=address,undefined: with their checks, and the server's memory watched; scripts/host-sanitized.
SANITIZE ?=
ifneq ($(SANITIZE),)
OBJS += test/lib/watched_memory.o
SANITIZED = -O1 -fno-omit-frame-pointer -fsanitize=$(SANITIZE)
SHLIB_LINK += $(SANITIZED)
endif

# PGXS has a target of its own by the name of check, which only says that there is none.
ifneq ($(filter check,$(MAKECMDGOALS)),)
.PHONY: check
check:
	test/run-all
else

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
# PGXS's own flags carry warnings that are C's, and an optimisation level.
override CXXFLAGS := -O2 -g -fPIC $(PG_CXXFLAGS) $(SANITIZED)

-include $(wildcard $(OBJS:.o=.d) $(MODULE_OBJS:.o=.d) $(GUEST_OBJS:.o=.d))

# Guests do not even see the server's include directory.
$(patsubst %.cpp,%.o,$(call sources,$(CORE_GUESTS) $(PROTOCOLS:%=src/broker/%) src/broker/stream)): %.o: %.cpp
	$(CXX) $(CXXFLAGS) -DEVENTBUS_GUEST -DEVENTBUS_PROTOCOLS='"$(PROTOCOLS)"' -Isrc -c -o $@ $<

all: $(MODULES_BUILT) $(GUEST_LIBRARY) $(VERSION_HEADER)

$(GUEST_LIBRARY): $(GUEST_OBJS)
	rm -f $@
	$(AR) rcs $@ $^
$(VERSION_HEADER): Makefile
	echo '#define EVENTBUS_VERSION "$(EXTVERSION)"' > $@

define module
pg_eventbus_$(1).so: $(call module_objs,$(1)) $(GUEST_LIBRARY)
	$$(CXX) -shared $$(SANITIZED) -Wl,--as-needed -Wl,-z,defs -o $$@ $$^ $$(shell cat src/broker/$(1)/libs) -lpthread
endef
$(foreach protocol,$(PROTOCOLS),$(eval $(call module,$(protocol))))

pg_eventbus--$(EXTVERSION).sql: $(SCHEMA)
	cat $(SCHEMA) > $@
$(UPGRADES): %: src/schema/upgrade/% $(SCHEMA)
	awk '/^-- here: / { while ((getline line < ("src/schema/" $$3)) > 0) print line; next } 1' $< > $@

headers_there = $(DESTDIR)$(includedir_server)/extension/pg_eventbus
install: install-modules
install-modules: $(MODULES_BUILT) $(GUEST_LIBRARY) $(VERSION_HEADER) installdirs
	$(INSTALL_SHLIB) $(MODULES_BUILT) '$(DESTDIR)$(pkglibdir)/'
	$(STRIP) --strip-debug -o '$(DESTDIR)$(pkglibdir)/$(GUEST_LIBRARY)' $(GUEST_LIBRARY)
	$(MKDIR_P) $(addprefix '$(headers_there)'/,$(GUEST_ROOMS))
	for header in $(GUEST_HEADERS); do $(INSTALL_DATA) src/$$header '$(headers_there)'/$$header || exit; done
	$(INSTALL_DATA) $(VERSION_HEADER) '$(headers_there)/'
uninstall: uninstall-modules
uninstall-modules:
	rm -f $(MODULES_BUILT:%='$(DESTDIR)$(pkglibdir)/'%) '$(DESTDIR)$(pkglibdir)/$(GUEST_LIBRARY)'
	rm -rf '$(headers_there)'

# The library, with an error at one of its look-ups in the catalog: test/lib/catalog_faults.cpp says which and when.
FAULTS = test/lib/catalog_faults.cpp
FAULTY = build/faults/pg_eventbus.so
.PHONY: faults
faults: $(FAULTY)
$(FAULTY): $(OBJS) $(FAULTS)
	mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) $(CPPFLAGS) -shared -o $@ $^ $(LDFLAGS) $(SHLIB_LINK) \
	  `sed -n 's/^FAULTY(\([a-zA-Z0-9_]*\),.*/-Wl,--wrap=\1/p' $(FAULTS)`

# The library and a module that say that they are of another version: what runs on where files are replaced.
OLDER_VERSION = 0.0
OLDER = build/older/pg_eventbus.so build/older/pg_eventbus_redis.so
TELL_VERSION = src/postgres/version.o src/processes/keeper.o src/broker/loader.o
.PHONY: older
older: $(OLDER)
build/older/%.o: %.cpp
	mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) $(CPPFLAGS) -UEVENTBUS_VERSION -DEVENTBUS_VERSION='"$(OLDER_VERSION)"' -c -o $@ $<
build/older/pg_eventbus.so: $(filter-out $(TELL_VERSION),$(OBJS)) $(TELL_VERSION:%=build/older/%)
	$(CXX) -shared -o $@ $^ $(LDFLAGS) $(SHLIB_LINK)
build/older/pg_eventbus_redis.so: $(filter-out src/broker/redis/redis_module.o,$(call module_objs,redis)) build/older/src/broker/redis/redis_module.o $(GUEST_LIBRARY)
	$(CXX) -shared $(SANITIZED) -Wl,-z,defs -o $@ $^ $(shell cat src/broker/redis/libs) -lpthread

endif

.PHONY: demo bench format lint unit install-modules uninstall-modules
demo:
	demo/run
unit:
	$(MAKE) -C test/unit
bench: all
	scripts/install-packages bench
	$(MAKE) install
	bench/run
format:
	clang-format-14 -i $(shell git ls-files '*.cpp' '*.hpp')
lint:
	test/lint/run
