# What can be done with this tree. `make` alone lists it.

SHELL := /bin/bash
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/release
CARGO_TEST := $(shell command -v cargo-nextest >/dev/null && \
	echo "$(CARGO) nextest run --cargo-profile release" || echo "$(CARGO) test --release")

# Parameters of `make kill`: how many kills, and the seed that fixes which and when.
N ?= 50
SEED ?= 1
# Parameter of `make bench`: seconds per point.
TIME ?= 5

.DEFAULT_GOAL := help
.PHONY: help build deps test lint format unit kill-short guest-short demo kill bench clean

help: ## This list
	@echo "Levee: replicated block storage for virtual machines. Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do \
		printf '  %-12s %s\n' "$$name" "$$what"; done
	@echo "Parameters: kill N=$(N) SEED=$(SEED), bench TIME=$(TIME)"

build: ## Build the daemons and the tools (target/release)
	$(CARGO) build --release --workspace

deps: ## Install what tests, demo and benchmarks need (Debian, apt)
	@scripts/deps

test: ## Everything a change must pass: format, lints, tests, a short round of kills, a short guest round
	@scripts/test

format:
	$(CARGO) fmt --all --check

lint: format ## Format and lints, warnings being errors
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

unit: ## The crates' own tests
	$(CARGO_TEST) --workspace

kill-short: build
	$(BIN)/levee-killer --kills 6 --seed 1 --dir $(TARGET)/kill-short --base-port 18500

guest-short: build deps
	scripts/demo --quick

demo: build deps ## Kill daemons under a guest that writes; check every byte it was promised (1-2 minutes)
	scripts/demo

kill: build ## Kill N daemons at random moments under verified load; SEED repeats a round
	$(BIN)/levee-killer --kills $(N) --seed $(SEED) --dir $(TARGET)/kill

bench: build deps ## Compare with the raw disk and qemu-storage-daemon in one run, TIME seconds per point
	$(BIN)/levee-bench suite --time $(TIME) --dir $(TARGET)/bench --out $(TARGET)/bench/latest.json

clean: ## Remove everything built, downloaded or left by a failed run
	$(CARGO) clean
