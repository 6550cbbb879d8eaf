# The front door. Meson builds; each target here is one line of it. `make help` lists them.
BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=

.DEFAULT_GOAL := build
.PHONY: help build demo check check-deep install clean format lint

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || sed -n 's/^\([a-z-]*\):.*## /  \1: /p' Makefile

build: ## the program (build/fovea) and the libraries
	@tools/setup --look build
	@tools/build $(BUILD) product

demo: ## install what building needs, build, compare methods on the default model and Moby-Dick
	@tools/setup build
	@tools/build $(BUILD) fovea
	@$(BUILD)/fovea compare

check: ## install what testing needs, build, run every test but the slow ones
	@tools/setup check
	@tools/build --tests $(BUILD)
	@tools/run-tests $(BUILD) --no-suite deep

check-deep: ## the slow tests: sanitizers, fuzzers, mutations, real models (at most 30 minutes on 2 cores)
	@tools/setup deep
	@tools/check-deep $(BUILD)

install: build ## install the program, libraries, headers and the default model (PREFIX, DESTDIR)
	@tools/build --prefix '$(PREFIX)' $(BUILD) product
	@meson install -C $(BUILD) --no-rebuild --quiet $(if $(DESTDIR),--destdir '$(abspath $(DESTDIR))')
	@if [ -z '$(DESTDIR)' ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi

clean: ## remove the build directories
	@rm -rf build build-*

format: ## put every C file in its form
	@tools/lint --format

lint: ## clang-format's and clang-tidy's opinion of every C file
	@tools/setup lint
	@tools/lint
