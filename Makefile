# What can be done with this tree. `make` alone lists it.

SHELL := /bin/bash
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/release
# With what the simulator looks for in the code: see dataplane/core/src/probe.rs.
MARKED := MIMALLOC_PURGE_DELAY=-1 RUSTFLAGS="--cfg levee_mutants"
CARGO_TEST := $(shell command -v cargo-nextest >/dev/null && \
	echo "$(CARGO) nextest run --cargo-profile release" || echo "$(CARGO) test --release")

# SC2034 and SC2154: a file that is sourced has variables of the other's. SC2054: the commas are QEMU's.
SHELLCHECK := shellcheck --severity warning --shell bash --external-sources --source-path scripts --exclude SC2034,SC2154,SC2054

# Parameters of `make faults` and `make kill`: how many rounds, and the seed that fixes what happens in each.
N ?= 200
SEED ?= 1
# Parameter of `make faults`: kinds of faults, separated by commas; all of them if empty.
KINDS ?=
# Parameter of `make bench`: seconds per point.
TIME ?= 5
# Parameter of `make bench-failover`: how often the leader is taken away.
ROUNDS ?= 100
# Parameter of `make bench-repair`: bytes of the volume.
SIZE ?= 2G
# Parameters of `make sim`: how many seeds, and the first of them.
SEEDS ?= 1000
FROM ?= 0

.DEFAULT_GOAL := help
.PHONY: help build deb deb-check deps test lint format unit faults-short guest-short guest-uefi images-short walk fuzz-api fuzz-short fuzz-ports dashboard-test demo faults kill bench bench-repair bench-snapshots bench-api bench-failover bench-moves sim model mutants clean

help: ## This list
	@echo "Levee: replicated block storage for virtual machines. Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do \
		printf '  %-12s %s\n' "$$name" "$$what"; done
	@echo "Parameters: faults and kill N=$(N) SEED=$(SEED), faults KINDS=$(KINDS), bench TIME=$(TIME), bench-repair SIZE=$(SIZE)"

build: ## Build the daemons and the tools (target/release)
	$(CARGO) build --release --workspace --exclude levee-sim

deb: build ## Make the Debian package out of them (target/deb)
	@scripts/deb

deb-check: build ## Build it twice, compare, read with lintian, install, upgrade and purge on an overlay
	@scripts/deb-check

deps: ## Install what tests, demo and benchmarks need (Debian, apt)
	@scripts/deps

test: ## Everything a change must pass: format, lints, tests, a few faults, a short guest round
	@scripts/test

format:
	$(CARGO) fmt --all --check

lint: format deps ## Format and lints, warnings being errors
	@$(SHELLCHECK) $$(grep -lsE '^#!/bin/(ba)?sh' scripts/*) scripts/*.sh .ci/run
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

# The simulator's tests are in `mutants`: they need the marks in the code that are only compiled in there.
unit: ## The crates' own tests
	$(CARGO_TEST) --workspace --exclude levee-sim

# The seed is one whose few rounds have kills, all daemons killed, a cut, rot, bad sectors, slow disks, disks that exchange their
# names and a second daemon: a test says so.
faults-short: build deps
	$(BIN)/levee-faults --rounds 9 --seed 5852 --dir $(TARGET)/faults-short --base-port 18500 >/dev/null

images-short: build deps
	scripts/demo-images

fuzz-api: build deps ## Ask a meta server all that its OpenAPI description allows, and use a generated client (5 minutes)
	EXAMPLES=200 scripts/fuzz-api 300

fuzz-short: build deps
	scripts/fuzz-api 30

fuzz-ports: build ## Send random and mutated messages to the daemons' ports for a minute, all at once; SEED chooses them
	@base=18600; runs=; failed=0; for port in link admin raft front-end; do \
		$(BIN)/levee-fuzz $$port --seed $(SEED) --dir $(TARGET)/fuzz-$$port --base-port $$base >/dev/null & \
		runs="$$runs $$!"; base=$$((base + 200)); done; \
	for run in $$runs; do wait $$run || failed=1; done; exit $$failed

dashboard-test: build deps ## Look at the dashboard of a small cluster with a headless browser
	scripts/dashboard-test

guest-short: build deps
	scripts/demo --quick

guest-uefi: build deps ## Boot a UEFI guest, with a kernel of 32 MiB, from a volume
	scripts/guest-uefi

walk: build deps ## Take a cluster of five hosts through an operator's life; what is said of it has to be true
	scripts/walk

demo: build deps ## Kill daemons under a guest that writes; check every byte it was promised (1-2 minutes)
	scripts/demo

faults: build deps ## Do N rounds of faults to a cluster under verified load; SEED repeats them, KINDS chooses
	$(BIN)/levee-faults --rounds $(N) --seed $(SEED) $(if $(KINDS),--kinds $(KINDS)) --nodes 5 --dir $(TARGET)/faults

kill: build ## The same, but daemons are only killed or halted
	$(BIN)/levee-faults --rounds $(N) --seed $(SEED) --kinds kill,all-killed,meta,two --dir $(TARGET)/kill

sim: ## Simulate SEEDS clusters under faults, from seed FROM on
	$(MARKED) $(CARGO) run --release -q -p levee-sim --target-dir $(TARGET)/mutants -- --seeds $(SEEDS) --from $(FROM)

model: ## Explore every execution of the protocol within larger bounds than `make test` does (tens of minutes)
	$(CARGO) run --release -q -p levee-model -- check --large

mutants: ## The simulator's own tests; then switch every rule off in turn: the simulator and the model have to notice
	$(CARGO) run --release -q -p levee-model -- mutants
	$(MARKED) $(CARGO) test --release -q -p levee-sim --target-dir $(TARGET)/mutants
	@tests=$$($(MARKED) $(CARGO) test --release --no-run -p levee-core --target-dir $(TARGET)/mutants 2>&1 | \
		sed -n 's/.*Executable .*(\(.*\))/\1/p' | tac); \
	$(MARKED) $(CARGO) run --release -q -p levee-sim --target-dir $(TARGET)/mutants -- mutants $$tests

bench: build deps ## Compare with the raw disk and qemu-storage-daemon in one run, TIME seconds per point
	$(BIN)/levee-bench suite --time $(TIME) --dir $(TARGET)/bench --out $(TARGET)/bench/latest.json

bench-repair: build ## Compare repair of a volume of SIZE with copying files, and guests' latency with and without it
	$(BIN)/levee-bench repair --size $(SIZE) --dir $(TARGET)/bench --out $(TARGET)/bench/repair.json

bench-failover: build ## Take the meta servers' leader away ROUNDS times under load, and measure how long changes wait
	$(BIN)/levee-bench failover --rounds $(ROUNDS) --dir $(TARGET)/bench --out $(TARGET)/bench/failover.json

bench-moves: build ## Fill a new node, empty another and take a disk out beside verified load
	$(BIN)/levee-bench moves --dir $(TARGET)/bench --out $(TARGET)/bench/moves.json

bench-snapshots: build ## Measure what snapshots and clones take, and what they cost guests
	$(BIN)/levee-bench snapshots --dir $(TARGET)/bench --out $(TARGET)/bench/snapshots.json

bench-api: build ## Measure how many volumes a second a meta server creates, one by one and in batches
	$(BIN)/levee-bench api --dir $(TARGET)/bench --out $(TARGET)/bench/api.json

clean: ## Remove everything built, downloaded or left by a failed run
	$(CARGO) clean
