# Derive, Run, Tweak: the commands. They need git, make and Python 3.11 or newer, nothing else.
# Settings: JOBS=2 (notebooks or tests at a time), PORT=8123, PYTHON=/path/to/python3.

.DEFAULT_GOAL := help
.PHONY: help book test serve lab notebooks trunk bench clean env env-test

VENV := .venv
PY := $(VENV)/bin/python
PORT := 8000
ifdef JOBS
  AT_A_TIME := --jobs $(JOBS)
endif

help:
	@echo "make book        build the book into _build/html (the first time: a few minutes)"
	@echo "make serve       read it at http://127.0.0.1:$(PORT)/"
	@echo "make lab         work on the chapters in JupyterLab, with a live kernel"
	@echo "make test        run every test; builds the book first"
	@echo "make notebooks   execute the chapters and store them in normal form"
	@echo "make trunk       pretrain the small Transformer that lib.tuning ships"
	@echo "make bench       time lib against its peers"
	@echo "make clean       remove what was built or cached, except $(VENV)"

book: env
	@$(PY) site/build.py $(AT_A_TIME)

test: env-test
	@$(PY) site/check.py $(AT_A_TIME)

serve: env
	@$(PY) site/serve.py --port $(PORT)

lab: env
	@JUPYTER_PREFER_ENV_PATH=1 $(PY) -m jupyterlab --notebook-dir=chapters

notebooks: env
	@$(PY) site/normalise.py $(AT_A_TIME)

trunk: env
	@$(PY) -m lib.tuning.pretrain

bench: env-test
	@for script in benchmarks/[!_]*.py; do \
		echo "== $$script"; $(PY) "$$script" || exit 1; \
	done

clean:
	rm -rf _build .pytest_cache .hypothesis .ruff_cache *.egg-info
	find benchmarks lib site tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Both return at once where the pins are installed already.
env:
	@PYTHON="$(PYTHON)" sh site/environment.sh $(VENV) requirements.txt

env-test:
	@PYTHON="$(PYTHON)" sh site/environment.sh $(VENV) requirements-test.txt
