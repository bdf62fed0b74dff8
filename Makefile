# Everything is idempotent: what is there already is used. What is made stays in .venv/ and .cache/ (and, as root on
# Debian or Ubuntu, in packages of the system).

BIN := .venv/bin

# Each kernel, command and worker of a test would else compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

# Many tests wait for an engine: two at a time (docs/decisions/0074).
PYTEST := $(BIN)/python -m pytest
TWO := -n 2 --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-unit lint attack bench vm clean venv-demo venv-test engine images podman tools

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: venv-demo ## run the quickstart notebook in a real kernel and show it here
	@! scripts/engine.sh check || scripts/images.sh
	@$(BIN)/sandbox-magic demo

# The tests run also if lint finds something: one run shows everything, and pytest's summary comes last.
test: venv-test engine images podman tools ## install what is missing, start the engines, check the style, run every test
	@rm -f .cache/lint-failed; $(MAKE) --no-print-directory lint || touch .cache/lint-failed
	@test ! -e .cache/lint-failed || echo "test: lint FAILED (above), and so will this run"
	@echo "test: pytest"; $(PYTEST) $(TWO) && test ! -e .cache/lint-failed

test-unit: venv-test ## run the tests that need no engine
	@$(PYTEST) tests/unit

lint: venv-test ## check style, types and who imports whom
	@echo "lint: ruff check";          $(BIN)/ruff check --quiet .
	@echo "lint: ruff format --check"; $(BIN)/ruff format --check --quiet .
	@echo "lint: mypy";                $(BIN)/mypy --no-error-summary
	@echo "lint: lint-imports";        $(BIN)/lint-imports --no-logo

attack: venv-test engine images podman tools ## try to break out, on every engine; print the table and write it into the docs
	@ATTACK_TABLE=write $(PYTEST) -q tests/attack

bench: venv-test engine images ## measure, side by side with others
	@$(BIN)/python -m benchmarks

vm: ## show in a virtual machine what control groups of version 2 and a rootless Podman do (half an hour)
	@scripts/vm.sh prove

clean: ## end the daemons that we started; remove .venv, caches and build results
	@scripts/engine.sh stop
	@scripts/podman.sh stop
	@scripts/vm.sh stop
	@echo "clean: removing .venv, caches and build results"
	@rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist build-output
	@find . -name .git -prune -o -type d \( -name __pycache__ -o -name '*.egg-info' -o -name .ipynb_checkpoints \) \
		-prune -exec rm -rf {} +

venv-demo venv-test: venv-%:
	@scripts/venv.sh $*

engine images podman tools:
	@scripts/$@.sh
