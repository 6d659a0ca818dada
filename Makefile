# pg_eventbus: PGXS, plus a module for each broker protocol.
#   make, make install, make installcheck      as for any extension (PG_CONFIG=… picks the server)
#   make demo      installs what is missing, builds, and shows the main job on real brokers
#   make check     installs what is missing, builds, and runs every test
#   make bench     prints tables of ratios (ONLY=name,… picks figures)
#   make format, make lint
EXTENSION = pg_eventbus
EXTVERSION = 0.2
MODULE_big = pg_eventbus

HOST_ROOMS = postgres settings decoder source/log source/wal counters intake capture catalog health processes sender
CORE_GUESTS = src/core src/router src/delivery src/broker src/source
sources = $(sort $(foreach room,$(1),$(wildcard $(room)/*.cpp)))

OBJS = $(patsubst %.cpp,%.o,src/pg_eventbus.cpp $(call sources,$(HOST_ROOMS:%=src/%) $(CORE_GUESTS)))

PROTOCOLS = amqp mqtt redis
MODULES_BUILT = $(PROTOCOLS:%=pg_eventbus_%.so)
STREAM_OBJS = $(patsubst %.cpp,%.o,$(call sources,src/core src/broker/stream))
OBJS_amqp = $(patsubst %.cpp,%.o,$(call sources,src/broker/amqp)) $(STREAM_OBJS)
OBJS_mqtt = $(patsubst %.cpp,%.o,$(call sources,src/broker/mqtt)) $(STREAM_OBJS)
OBJS_redis = $(patsubst %.cpp,%.o,$(call sources,src/broker/redis)) $(STREAM_OBJS)
MODULE_OBJS = $(sort $(foreach protocol,$(PROTOCOLS),$(OBJS_$(protocol))))
LIBS_amqp = -lrabbitmq -lssl -lcrypto
LIBS_mqtt = -lssl -lcrypto
LIBS_redis = -lhiredis -lssl -lcrypto

SCHEMA = $(sort $(wildcard src/schema/*.sql))
# Updates read some files as CREATE EXTENSION does, where a line says "-- here: NAME".
UPGRADES = $(notdir $(wildcard src/schema/upgrade/*.sql))
DATA_built = pg_eventbus--$(EXTVERSION).sql $(UPGRADES)

REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
REGRESS_OPTS = --load-extension=pg_eventbus

EXTRA_CLEAN = $(MODULES_BUILT) $(MODULE_OBJS) $(OBJS:.o=.d) $(MODULE_OBJS:.o=.d) build

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

-include $(wildcard $(OBJS:.o=.d) $(MODULE_OBJS:.o=.d))

# Guests do not even see the server's include directory.
$(patsubst %.cpp,%.o,$(call sources,$(CORE_GUESTS) $(PROTOCOLS:%=src/broker/%) src/broker/stream)): %.o: %.cpp
	$(CXX) $(CXXFLAGS) -DEVENTBUS_GUEST -Isrc -c -o $@ $<

all: $(MODULES_BUILT)

define module
pg_eventbus_$(1).so: $$(OBJS_$(1))
	$$(CXX) -shared $$(SANITIZED) -Wl,--as-needed -Wl,-z,defs -o $$@ $$^ $$(LIBS_$(1)) -lpthread
endef
$(foreach protocol,$(PROTOCOLS),$(eval $(call module,$(protocol))))

pg_eventbus--$(EXTVERSION).sql: $(SCHEMA)
	cat $(SCHEMA) > $@
$(UPGRADES): %: src/schema/upgrade/% $(SCHEMA)
	awk '/^-- here: / { while ((getline line < ("src/schema/" $$3)) > 0) print line; next } 1' $< > $@

install: install-modules
install-modules: $(MODULES_BUILT) installdirs
	$(INSTALL_SHLIB) $(MODULES_BUILT) '$(DESTDIR)$(pkglibdir)/'
uninstall: uninstall-modules
uninstall-modules:
	rm -f $(MODULES_BUILT:%='$(DESTDIR)$(pkglibdir)/'%)

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
build/older/pg_eventbus_redis.so: $(filter-out src/broker/redis/redis_module.o,$(OBJS_redis)) build/older/src/broker/redis/redis_module.o
	$(CXX) -shared $(SANITIZED) -o $@ $^ $(LIBS_redis) -lpthread

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
