# `make run` serves, `make test` checks everything; both set up what they need first.
SHELL := bash
python := .venv/bin/python
port ?= 7071
data ?= .data

.DEFAULT_GOAL := help
.PHONY: audit soak bench bench-faults bench-overload help run setup test check lint types locks infra lock package docs pictures eval clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

run: ## Serve on http://127.0.0.1:7071 (port=N data=DIR change that)
	@tools/setup.sh run
	@exec $(python) -m localhost --port $(port) --data $(data)

setup: ## Everything that the server, the checks and the tests need
	@tools/setup.sh test

test: setup check ## Checks, then the whole test suite with branch coverage
	$(python) -m pytest -n 2 --dist loadfile --cov

check: setup lint types locks infra ## What needs no test run: style, types, lock files, templates

lint:
	$(python) -m ruff check
	$(python) -m ruff format --check

types:
	node_modules/.bin/pyright --warnings
	node_modules/.bin/tsc -p web

locks:
	$(python) -m tools.lock --check

infra:
	$(python) -m tools.bicep_gate

lock: setup ## Write requirements*.txt and package-lock.json again (upgrade=1: newest versions)
	$(python) -m tools.lock $(if $(upgrade),--upgrade)
	npm install --package-lock-only --loglevel=error

package: setup ## What is deployed: dist/app for azd, dist/companion.zip for the pipeline
	$(python) -m tools.package

pictures: setup ## The pictures of the chat page in the README
	$(python) -m tools.screenshots

soak: setup ## Every crash, simulation, fire and fuzz at full size, 90 minutes (size=small: minutes; page=1: into the docs)
	$(python) -m tests.soak --size $(or $(size),full) $(if $(page),--page docs/reliability.md) $(args)

audit: setup ## Known holes of what is deployed, bandit, our own rules (SECURITY.md)
	@tools/audit.sh

docs: setup ## Write the generated pages under docs/reference/
	$(python) -m tools.settings_page

eval: setup ## Evaluate a target (dataset=NAME target=URL/MODEL args=…; default: the basics, offline)
	$(python) -m evals.run --dataset '$(or $(dataset),basics)' --target '$(or $(target),local/companion)' $(args)

clean: ## Remove everything that setup, the tests and the benchmarks made; .data stays
	rm -rf .venv .venv-audit node_modules dist web/dist .bench .schemathesis .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

bench: setup ## What it costs beside the limit, LiteLLM and ogx, against the budgets (quick=1: two minutes)
	$(python) -m bench.run $(if $(quick),--quick)

bench-faults: ## What users notice of a model that fails, or is down (full=1: as long as promised)
	$(python) -m bench.faults $(if $(full),--full)

bench-overload: ## Four times the load that the host can serve, and a noisy owner (full=1: a minute each)
	$(python) -m bench.overload $(if $(full),--full)
