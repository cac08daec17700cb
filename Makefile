# Derive, Run, Tweak: the commands. They need git, make and Python 3.11 or newer, nothing else.
# Settings: JOBS=2 (notebooks or tests at a time), PORT=8123, PYTHON=/path/to/python3.

.DEFAULT_GOAL := help
.PHONY: help book test serve lab notebooks bench clean env env-test

VENV := .venv
PY := $(VENV)/bin/python
PORT := 8000
JOBS_OPTION := $(if $(JOBS),--jobs $(JOBS))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# One stamp per state of the pins: written last, so an interrupted install leaves none.
KEY := $(shell cat requirements.txt pyproject.toml | cksum | cut -d ' ' -f 1)
KEY_TEST := $(shell cat requirements.txt requirements-test.txt pyproject.toml | cksum | cut -d ' ' -f 1)
READY := $(VENV)/.ready-$(KEY)
READY_TEST := $(VENV)/.ready-test-$(KEY_TEST)

help:
	@echo "make book        build the book into _build/html (the first time: a few minutes)"
	@echo "make serve       read it at http://127.0.0.1:$(PORT)/"
	@echo "make lab         work on the chapters in JupyterLab, with a live kernel"
	@echo "make test        run every test, and build the book if need be"
	@echo "make notebooks   execute the chapters and store them in normal form"
	@echo "make bench       time lib against its peers"
	@echo "make clean       remove what was built (not $(VENV))"

book: env
	@$(PY) site/build.py $(JOBS_OPTION)

test: env-test
	@$(PY) site/check.py $(JOBS_OPTION)

serve: env
	@$(PY) site/serve.py --port $(PORT)

lab: env
	@JUPYTER_PREFER_ENV_PATH=1 $(PY) -m jupyter lab --notebook-dir=chapters

notebooks: env
	@$(PY) site/normalise.py $(JOBS_OPTION)

bench: env-test
	@for script in benchmarks/[!_]*.py; do \
		echo "== $$script"; $(PY) "$$script" || exit 1; \
	done

clean:
	rm -rf _build .pytest_cache .hypothesis .ruff_cache *.egg-info
	find lib site tests -name __pycache__ -type d -prune -exec rm -rf {} +

env: $(READY)

env-test: $(READY_TEST)

$(READY):
	@sh site/environment.sh $(VENV) requirements.txt
	@touch $@

$(READY_TEST):
	@sh site/environment.sh $(VENV) requirements-test.txt
	@touch $(READY) $@
