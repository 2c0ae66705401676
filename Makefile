# Thin: every target is a preset of CMakePresets.json and a script. `make help` lists them.

PREFIX ?= /usr/local

# Ninja where it is there. A build folder that exists keeps what it was made with.
ifneq ($(shell command -v ninja 2>/dev/null),)
export CMAKE_GENERATOR ?= Ninja
endif
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc 2>/dev/null || echo 2)

# CMake runs builds in parallel by itself; targets here follow each other.
.NOTPARALLEL:
unexport MAKEFLAGS MFLAGS

.PHONY: help demo test asan tsan long format format-check install setup clean

help:
	@echo "make demo          build Heed, run it on real data, measure this machine"
	@echo "make test          build Heed and run its tests"
	@echo "make long          check every implementation for ten minutes"
	@echo "make asan          tests under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make tsan          API tests under ThreadSanitizer"
	@echo "make install       install to PREFIX=$(PREFIX) (DESTDIR is honoured)"
	@echo "make format        format the C files; make format-check only looks"
	@echo "make clean         remove the build folder"

setup:
	@scripts/setup

demo: setup
	cmake --preset release
	cmake --build --preset release --target heed_cli
	scripts/demo build/release/heed

test: setup
	cmake --preset release
	cmake --build --preset release
	ctest --preset release

long: setup
	cmake --preset release
	cmake --build --preset release --target heed-check
	ctest --test-dir build/release --output-on-failure -L long

asan tsan: setup
	cmake --preset $@
	cmake --build --preset $@
	ctest --preset $@

install: setup
	cmake --preset release
	cmake --build --preset release
	cmake --install build/release --prefix "$(PREFIX)"

format:
	scripts/format

format-check:
	scripts/format-check

clean:
	rm -rf build
