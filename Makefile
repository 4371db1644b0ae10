# What operators and builders do here. `make deploy-multi-region` first; then change a policy and save it.
#
# Variables may be set on the command line or in the environment; CARGO_TARGET_DIR is respected.

CARGO   ?= cargo
PROFILE ?= dev
# The tree with the regions and policies, and where a deployment keeps keys and data.
TREE    ?= .
STATE   ?= .repomind
# Delay added between regions: realistic or none.
WAN     ?= realistic
# For load-test: requests a second, and for how long.
RATE    ?= 200
SECONDS ?= 10
# Further flags for the command behind a target, such as --json.
FLAGS   ?=

CARGO_TARGET_DIR ?= target
BINARY   := $(CARGO_TARGET_DIR)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/repomind-run
# A binary that was built elsewhere can be named instead; then nothing is compiled.
REPOMIND ?= $(BINARY)
PLACE    := --tree $(TREE) --state $(STATE)

.DEFAULT_GOAL := help
.PHONY: help build deploy-multi-region destroy status test-failover verify-replication audit-compliance load-test repl test lint

help: ## Show the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-22s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## Compile the binary.
ifeq ($(origin REPOMIND),file)
	$(CARGO) build --quiet --locked --profile $(PROFILE) -p repomind-run --target-dir $(CARGO_TARGET_DIR)
endif

deploy-multi-region: build ## Start every region on this machine and wait until all serve.
	$(REPOMIND) deploy $(PLACE) --wan $(WAN) $(FLAGS)

destroy: build ## Stop what deploy-multi-region started (FLAGS=--purge deletes its data too).
	$(REPOMIND) destroy $(PLACE) $(FLAGS)

status: build ## Show health, round trips, lag and policy generation of every region.
	$(REPOMIND) status $(PLACE) $(FLAGS)

test-failover: build ## Kill the primary region under load; measure detection, rerouting, recovery, loss.
	$(REPOMIND) drill failover $(PLACE) $(FLAGS)

verify-replication: build ## Write everywhere, with conflicts and a cut link; show that the regions agree.
	$(REPOMIND) verify replication $(PLACE) $(FLAGS)

audit-compliance: build ## Read what each region stores and judge where it lies.
	$(REPOMIND) audit $(PLACE) $(FLAGS)

load-test: build ## Send RATE requests a second for SECONDS seconds.
	$(REPOMIND) load-test $(PLACE) --rate $(RATE) --seconds $(SECONDS) $(FLAGS)

repl: build ## Ask a running region Scheme questions (FLAGS="--region eu-west").
	$(REPOMIND) repl $(PLACE) $(FLAGS)

lint: ## Formatting and clippy, warnings refused.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --target-dir $(CARGO_TARGET_DIR) -- -D warnings

test: lint ## Lint, then every test.
	$(CARGO) test --locked --workspace --target-dir $(CARGO_TARGET_DIR)
