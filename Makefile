# The newcomer's path.  Everything real is in CMakeLists.txt; each target here is one obvious command.
#
#   make          build build/quire
#   make serve    install what is missing, build, serve (MODEL=folder, ARGS="--port 9000")
#   make test     install what is missing, run every check the project has
#   make fuzz     fuzz each parser longer (SECONDS=600)

MODEL ?=
ARGS ?=
SECONDS ?= 600

.PHONY: all deps build serve test test-fast fuzz install clean

all: build

deps:
	@tools/deps.sh build

build: deps
	@cmake --preset release >build.log 2>&1 || { cat build.log; exit 1; }
	@cmake --build --preset release
	@rm -f build.log

serve: build
	@build/quire serve $(MODEL) $(ARGS)

test:
	@tools/deps.sh build test
	@tools/test.sh all

# What a change needs before it is committed: a minute, no sanitizers, no fuzzing.
test-fast: deps
	@tools/test.sh fast

fuzz:
	@tools/deps.sh build test
	@FUZZ_SECONDS=$(SECONDS) tools/test.sh fuzz

PREFIX ?= /usr/local
install: build
	cmake --install build --prefix $(PREFIX)

clean:
	rm -rf build build-asan build-tsan build-fuzz
