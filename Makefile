# SPDX-License-Identifier: MIT
# Every job of this repository, by name; .ci/run calls only these.
# Stamp files under .venv and build/ keep a second run from repeating the first.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
PY := $(VENV)/bin/python
ifeq ($(origin CC),default)
CC := gcc
endif
# Where Python is told to keep nothing it compiled, each of thousands of processes compiles the
# package anew, and each pytest the tests.
unexport PYTHONDONTWRITEBYTECODE
# More arguments for pytest: make test PYTEST_ARGS='-x tests/device'
PYTEST_ARGS ?=
# Test processes side by side; 0 runs the tests in pytest's own process, as debuggers want it.
JOBS ?= 2
# A file's tests stay together: they share guests and devices.
PYTEST := -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
FUZZ_SECONDS ?= 60

NATIVE := src/pyvnet/_native
C_SOURCES := $(sort $(wildcard native/src/*.c))
C_HEADERS := $(sort $(wildcard native/include/pyvnet/*.h native/src/*.h))
EXT := $(NATIVE)/_ffi.abi3.so
EXT_INPUTS := setup.py $(NATIVE)/_ffi.c $(C_SOURCES) $(C_HEADERS)
FUZZERS := $(patsubst native/fuzz/fuzz_%.c,%,$(sort $(wildcard native/fuzz/fuzz_*.c)))
PYTHON_FUZZERS := session control object
C_FLAGS := -std=gnu11 -pthread -Inative/include -Inative/src
WARNINGS := -Wall -Wextra -Wconversion -Wshadow -Werror
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

# The kernel and modules of the guest that QEMU runs.
GUEST_KERNEL := build/guest/vmlinuz

# One build of a thing at a time per tree, whoever calls make.
LOCKED := flock build/.lock

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- the environment ----------------------------------------------------------

.PHONY: setup
setup: $(VENV)/.deps $(EXT) ## create .venv with the package, its tools and the C extension

$(PY):
	python="$$(tools/find_python.sh)" && "$$python" -m venv $(VENV)

# The editable install builds the extension too; later C changes are built by the rule for $(EXT).
$(VENV)/.deps: pyproject.toml constraints.txt | $(PY) build
	$(PY) -m pip install -q -c constraints.txt setuptools
	$(LOCKED) $(PY) -m pip install -q -c constraints.txt --no-build-isolation -e '.[plot,test,lint]'
	touch $@

build:
	mkdir -p $@
	touch build/.lock

$(EXT): $(EXT_INPUTS) | $(VENV)/.deps build
	$(LOCKED) $(PY) setup.py -q build_ext --inplace --build-temp build/ext
	touch $@

# --- other builds of the same extension ----------------------------------------

VARIANT_FLAGS_asan := -O1 $(SANITIZE)
VARIANT_FLAGS_tsan := -O1 -fsanitize=thread -fno-omit-frame-pointer
VARIANT_FLAGS_hooks := -DVNET_TEST_HOOKS=1
VARIANT_FLAGS_debug := -O0 -g3
VARIANT_FLAGS_asan-hooks := $(VARIANT_FLAGS_asan) $(VARIANT_FLAGS_hooks)
VARIANT_FLAGS_tsan-hooks := $(VARIANT_FLAGS_tsan) $(VARIANT_FLAGS_hooks)
VARIANT = build/$(1)/_ffi.abi3.so

build/%/_ffi.abi3.so: $(EXT_INPUTS) | $(VENV)/.deps build
	PYVNET_CFLAGS='$(VARIANT_FLAGS_$*)' flock build/.lock-$* $(PY) setup.py -q build_ext --force --build-lib build/$*/lib --build-temp build/$*/tmp
	mv build/$*/lib/pyvnet/_native/_ffi.abi3.so $@

.PHONY: native-asan native-tsan native-hooks native-debug
native-asan: $(call VARIANT,asan) $(call VARIANT,asan-hooks) ## the extension under ASan and UBSan
native-tsan: $(call VARIANT,tsan) $(call VARIANT,tsan-hooks) ## the extension under TSan
native-hooks: $(call VARIANT,hooks) ## the extension with test hooks compiled in
native-debug: $(call VARIANT,debug) ## the extension without optimisation

.PHONY: builds
builds: native-hooks native-asan native-tsan fuzz-replay-build build/count/frames ## all the C that tests run; make -j2 builds

# --- run ------------------------------------------------------------------------

.PHONY: demo
demo: setup ## guest-free proof on real input
	$(VENV)/bin/pyvnet demo

# As a user installs it: the wheel, into an environment that has nothing yet.
WHEEL := build/wheel
TUTORIAL := docs/testing-tutorial.md
.PHONY: tutorial
tutorial: setup ## work through the tutorial with the built wheel, as its reader does
	rm -rf $(WHEEL)
	$(LOCKED) $(PY) -m pip wheel -q --no-deps --no-build-isolation -w $(WHEEL) .
	$(PY) tools/tutorial.py $(WHEEL)/*.whl $(TUTORIAL) constraints.txt

# Debian packages the tests call: ip(8), testpmd, QEMU, user-mode Linux, what guests are made of,
# what judges systemd's units, and what hash kernels of other CPUs are built and run with; a compiler of BPF programs.
.PHONY: test-needs
test-needs: $(GUEST_KERNEL)
	@tools/need.sh iproute2=ip dpdk-dev=dpdk-testpmd clang=clang qemu-system-x86=qemu-system-x86_64 \
		busybox-static=busybox user-mode-linux=linux.uml ethtool=ethtool gcc=gcc \
		'libc6-dev=/usr/lib/*/libc.a' libsimde-dev=/usr/include/simde/x86/avx512.h \
		qemu-user-static=qemu-aarch64-static gcc-aarch64-linux-gnu=aarch64-linux-gnu-gcc \
		libc6-dev-arm64-cross=/usr/aarch64-linux-gnu/lib/libc.a systemd=systemd-analyze \
		tshark=tshark \
		openvswitch-switch-dpdk=/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk

$(GUEST_KERNEL): tools/guest_kernel.sh
	tools/guest_kernel.sh $(@D)

.PHONY: test
test: setup native-hooks test-needs ## the whole suite but the soak
	$(PY) $(PYTEST) $(PYTEST_ARGS)

.PHONY: test-debug
test-debug: setup native-hooks test-needs ## the asyncio tests again but guests', with asyncio's debug mode
	PYTHONASYNCIODEBUG=1 $(PY) $(PYTEST) --loops stock -m 'asyncio and not soak and not guest' $(PYTEST_ARGS)

.PHONY: soak
soak: setup native-hooks test-needs ## the long tests
	$(PY) -m pytest -m soak $(PYTEST_ARGS)

# pytest captures what a sanitizer prints, so reports go to files; one of any process fails the target.
define SANITIZED
	rm -f build/$(1)/report.*
	status=0; $(2) || status=$$?; \
	if compgen -G 'build/$(1)/report.*' >/dev/null; then cat build/$(1)/report.*; exit 1; fi; \
	exit $$status
endef

# Everything is slower here, so the hang guard is wider.
SLOW := --timeout=300

# Python's own allocations are never freed in full at exit: leaks are counted by tests instead.
# libstdc++ is loaded early so that ASan finds __cxa_throw for C++ extensions (matplotlib's).
# Under PYTHONMALLOC=malloc each small buffer of Python's has its own red zones too, at twice the
# time for everything.  C is handed such buffers, frames cut at every byte among them, in the
# directories named here; elsewhere it sees guest memory and what it allocated itself.
# --once and --loops in tests/conftest.py say what is not repeated.
ONCE := --once --loops each
ASAN_EXACT := tests/datapath tests/differential tests/fuzz tests/hostile
.PHONY: asan
asan: export PYVNET_NATIVE = $(CURDIR)/$(call VARIANT,asan)
asan: export PYVNET_NATIVE_HOOKS = $(CURDIR)/$(call VARIANT,asan-hooks)
asan: ASAN = detect_leaks=0:allocator_may_return_null=1:log_path=$(CURDIR)/build/asan/report
asan: UBSAN = print_stacktrace=1:log_path=$(CURDIR)/build/asan/report
asan: PRELOAD = $$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so)
asan: UNDER = ASAN_OPTIONS=$(ASAN) UBSAN_OPTIONS=$(UBSAN) LD_PRELOAD="$(PRELOAD)"
asan: setup native-asan test-needs ## the whole suite over the ASan and UBSan build
	$(call SANITIZED,asan,PYTHONMALLOC=malloc $(UNDER) \
		$(PY) $(PYTEST) $(SLOW) $(ONCE) $(PYTEST_ARGS) $(ASAN_EXACT) && $(UNDER) \
		$(PY) $(PYTEST) $(SLOW) $(ONCE) $(PYTEST_ARGS) tests $(ASAN_EXACT:%=--ignore=%))

# TSan's shadow memory needs the address layout setarch -R gives.
# These tests share nothing, and most are in one file: they are dealt out one by one.
.PHONY: tsan
tsan: export PYVNET_NATIVE = $(CURDIR)/$(call VARIANT,tsan)
tsan: export PYVNET_NATIVE_HOOKS = $(CURDIR)/$(call VARIANT,tsan-hooks)
tsan: TSAN = halt_on_error=1:second_deadlock_stack=1:suppressions=$(CURDIR)/tools/tsan.supp
tsan: setup native-tsan test-needs ## the tests marked tsan over the TSan build
	$(call SANITIZED,tsan,TSAN_OPTIONS=$(TSAN):log_path=$(CURDIR)/build/tsan/report \
		LD_PRELOAD=$$($(CC) -print-file-name=libtsan.so) \
		setarch -R $(PY) $(PYTEST) --dist worksteal $(SLOW) -m 'tsan and not soak' $(PYTEST_ARGS))

# --- speed ------------------------------------------------------------------------

# Programs of bench/c: each is one file, with headers next to it.  Those that link DPDK, and
# those that link the C core, are listed; a name of each may stand in both.
BENCH_DPDK := dpdk_frontend toeplitz_dpdk
BENCH_CORE := frame_stages patch toeplitz
BENCH_C := $(patsubst bench/c/%.c,%,$(sort $(wildcard bench/c/*.c)))
BENCH_HEADERS := $(sort $(wildcard bench/c/*.h))
# DPDK's headers use instructions beyond the base line: it is built for this machine, which has
# the last word over pkg-config's own -march.
BENCH_FLAGS = $(if $(filter $*,$(BENCH_DPDK)),$(patsubst -I%,-isystem %,$(shell pkg-config --cflags libdpdk)) -march=native)
BENCH_LIBS = $(if $(filter $*,$(BENCH_DPDK)),$(shell pkg-config --libs libdpdk))

.PHONY: bench-needs
bench-needs:
	@tools/need.sh gcc=gcc 'libc6-dev=/usr/include/stdio.h' pkg-config=pkg-config iproute2=ip \
		util-linux=taskset

# Peers are welcome, not needed: where they cannot be installed the rest runs.
.PHONY: bench-peers
bench-peers:
	-@tools/need.sh dpdk-dev=dpdk-testpmd 'libdpdk-dev=/usr/include/dpdk/rte_ethdev.h' \
		openvswitch-switch-dpdk=/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk

build/bench/%: bench/c/%.c $(BENCH_HEADERS) $(C_SOURCES) $(C_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O2 -g $(WARNINGS) $(BENCH_FLAGS) -o $@ $< \
		$(if $(filter $*,$(BENCH_CORE)),$(C_SOURCES)) $(BENCH_LIBS)

# A program that cannot be built (no DPDK, say) is left out with what the compiler said.
.PHONY: bench-build
bench-build: bench-needs bench-peers ## build the programs of bench/c
	@for name in $(BENCH_C); do \
		$(MAKE) --no-print-directory -s build/bench/$$name || echo "bench: no $$name" >&2; \
	done

# More arguments for pyvnet bench: make bench BENCH_ARGS='--rows 1,2 --json'
BENCH_ARGS ?=
.PHONY: bench bench-quick
bench: setup bench-build ## every question of bench/, side by side with the peers
	$(VENV)/bin/pyvnet bench $(BENCH_ARGS)

bench-quick: setup bench-build ## the same in short: fewer rounds, wider intervals
	$(VENV)/bin/pyvnet bench --quick $(BENCH_ARGS)

# --- instructions -----------------------------------------------------------------

build/count/frames: native/count/frames.c bench/c/device_ring.h bench/c/driver_ring.h $(C_SOURCES) $(C_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -Ibench/c -O2 -g $(WARNINGS) -o $@ $(filter %.c,$^)

.PHONY: count-needs
count-needs:
	@tools/need.sh valgrind=valgrind

.PHONY: count count-record
count: export CC := $(CC)
count: setup count-needs build/count/frames ## instructions per frame, against native/count/budgets.json
	$(PY) tools/count.py build/count/frames

count-record: export CC := $(CC)
count-record: setup count-needs build/count/frames ## write those budgets anew
	$(PY) tools/count.py build/count/frames --record

# --- fuzzing --------------------------------------------------------------------

build/fuzz-replay/%: native/fuzz/fuzz_%.c native/fuzz/replay_main.c $(C_SOURCES) $(C_HEADERS)
	mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O1 -g $(SANITIZE) -DVNET_TEST_HOOKS=1 -o $@ $(filter %.c,$^)

build/fuzz/%: native/fuzz/fuzz_%.c $(C_SOURCES) $(C_HEADERS)
	mkdir -p $(@D)
	clang $(C_FLAGS) -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
		-DVNET_TEST_HOOKS=1 -o $@ $(filter %.c,$^)

.PHONY: fuzz-replay fuzz-replay-build
fuzz-replay-build: $(addprefix build/fuzz-replay/,$(FUZZERS))

fuzz-replay: setup fuzz-replay-build ## every corpus file once, gcc's sanitizers
	@for name in $(FUZZERS); do \
		echo "fuzz-replay: $$name"; \
		build/fuzz-replay/$$name native/fuzz/corpus/$$name/*; \
	done
	$(PY) -m tests.fuzz.run replay

.PHONY: fuzz-needs
fuzz-needs:
	@tools/need.sh clang=clang 'libclang-rt-14-dev=/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a'

.PHONY: fuzz
fuzz: fuzz-needs ## libFuzzer, FUZZ_SECONDS for each target; new inputs stay in build/fuzz
	@$(MAKE) --no-print-directory $(addprefix build/fuzz/,$(FUZZERS))
	@mkdir -p native/fuzz/artifacts
	@for name in $(FUZZERS); do \
		echo "fuzz: $$name"; \
		mkdir -p build/fuzz/corpus/$$name; \
		build/fuzz/$$name -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1 \
			-artifact_prefix=native/fuzz/artifacts/$$name- \
			build/fuzz/corpus/$$name native/fuzz/corpus/$$name; \
	done
	@$(MAKE) --no-print-directory fuzz-python

# atheris is wanted for this alone, and installed here alone.
$(VENV)/.fuzz: constraints.txt | $(VENV)/.deps
	$(PY) -m pip install -q -c constraints.txt atheris
	touch $@

.PHONY: fuzz-python
fuzz-python: setup $(VENV)/.fuzz ## atheris over the targets in tests/fuzz, FUZZ_SECONDS for each
	@mkdir -p build/fuzz/artifacts
	@for name in $(PYTHON_FUZZERS); do \
		echo "fuzz: $$name"; \
		mkdir -p build/fuzz/corpus/$$name; \
		$(PY) -m tests.fuzz.run $$name -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
			-print_final_stats=1 -artifact_prefix=build/fuzz/artifacts/$$name- \
			build/fuzz/corpus/$$name tests/fuzz/corpus/$$name; \
	done

# --- checks ---------------------------------------------------------------------

CLANG_FORMAT_FILES = $(sort $(wildcard native/include/pyvnet/*.h native/src/*.[ch] native/fuzz/*.[ch] native/count/*.c) \
	$(wildcard native/bpf/*.[ch] examples/steering/*.c) \
	$(wildcard tests/system/guest/*.c tests/datapath/hash_kernels/*.c) $(wildcard bench/c/*.[ch]))

.PHONY: check
check: setup check-types check-c check-style gen-check bpf-check ## linters, types, formatting, generated files, C warnings

.PHONY: check-types check-style
check-types: $(VENV)/.deps
	$(VENV)/bin/mypy

check-style: $(VENV)/.deps
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(CLANG_FORMAT_FILES)
	$(VENV)/bin/codespell

# Each file twice: as shipped, and with the test hooks.
CHECK_C := $(patsubst native/%.c,build/check/%.o,$(C_SOURCES) $(wildcard native/fuzz/*.c))

.PHONY: check-c
check-c: $(CHECK_C) ## gcc's warnings as errors over native/

build/check/%.o: native/%.c $(C_HEADERS)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O2 $(WARNINGS) -DVNET_TEST_HOOKS=1 -c $< -o $@
	$(CC) $(C_FLAGS) -O2 $(WARNINGS) -c $< -o $@

.PHONY: gen gen-check
gen: $(VENV)/.deps ## rewrite the generated _ffi.c and conformance/ids.tsv
	$(PY) $(NATIVE)/build_ffi.py
	$(PY) tools/conformance_ids.py

gen-check: $(VENV)/.deps
	$(PY) $(NATIVE)/build_ffi.py --check
	$(PY) tools/conformance_ids.py --check

# The steering program: instructions in the package, compiled by the clang they name.
.PHONY: bpf-needs bpf bpf-check
bpf-needs: $(EXT)
	@clang=clang-$$($(PY) tools/bpf_build.py --clang); \
		tools/need.sh "$$clang=$$clang" linux-libc-dev=/usr/include/linux/bpf.h

bpf: bpf-needs ## rewrite the steering program's instructions from native/bpf
	$(PY) tools/bpf_build.py

bpf-check: bpf-needs ## compile the steering program and compare
	$(PY) tools/bpf_build.py --check

.PHONY: format
format: $(VENV)/.deps ## let the formatters rewrite Python and C
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(CLANG_FORMAT_FILES)

.PHONY: coverage-doc
coverage-doc: $(VENV)/.deps ## rewrite docs/spec-coverage.md from ids, tests and reasons
	$(PY) tools/spec_coverage.py

.PHONY: clean
clean: ## remove what was built; the environment stays
	rm -rf build dist native/fuzz/artifacts $(EXT)
