# Two commands are enough on a fresh machine with Python 3.10 to 3.13: `make train` and `make test`.
# Each makes .venv from requirements.txt when it is missing or out of date.

SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv .venv train eval test test-full check format bench gallery gallery-run sync clean clean-logs lock update-hooks test-next

PY := .venv/bin/python
ARGS ?=
export PYTHON

help: ## list the targets
	@echo 'make TARGET [ARGS="..."] [PYTHON=python3.12]'
	@grep -E '^[a-z-]+:.*## ' Makefile | awk 'BEGIN { FS = ":.*## " } { printf "  %-13s %s\n", $$1, $$2 }'

venv: ## make .venv, or bring it up to date with requirements.txt
	@scripts/venv.sh .venv requirements.txt

.venv: venv

train: venv ## train: make train ARGS="experiment=example trainer.max_epochs=20"
	$(PY) src/train.py $(ARGS)

eval: venv ## score a checkpoint: make eval ARGS="ckpt_path=/path/to.ckpt"
	$(PY) src/eval.py $(ARGS)

test: venv ## run the tests that are fast, in 3 processes: make test ARGS="-k layers"
	$(PY) -m pytest -m "not slow" -n 3 --dist loadfile $(ARGS)

test-full: venv ## run all tests, with the servers that some of them start
	-$(PY) -m uv pip install --quiet --python $(PY) --requirement pyproject.toml --extra servers
	$(PY) -m pytest $(ARGS)

check: venv ## format, lint, types, configs, spelling, shell, notebooks, secrets, workflows: all findings at once
	@scripts/check.sh

format: venv ## mend what tools can mend: format, imports, notebooks' outputs
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format .
	git ls-files -z '*.ipynb' | xargs -0 -I{} $(PY) -m nbstripout {}

bench: venv ## measure speed against a plain loop: logs/bench/
	$(PY) scripts/bench/run.py $(ARGS)

gallery: venv ## write docs/gallery.md from the recorded results
	$(PY) scripts/gallery.py page

gallery-run: venv ## train the entries of the gallery, one on each CPU core, and record the results
	$(PY) scripts/gallery.py run $(ARGS); code=$$?; $(PY) scripts/gallery.py page && exit $$code

sync: ## take the newest main, if it can be had without a merge
	git pull --ff-only origin main

clean: ## remove caches and what tools leave behind; runs and .venv stay
	find . -path ./.venv -prune -o -path ./.venv-next -prune -o -path ./.git -prune -o \
	  \( -name __pycache__ -o -name .ipynb_checkpoints -o -name .pytest_cache -o -name .mypy_cache \
	  -o -name .ruff_cache -o -name '*.egg-info' \) -type d -prune -exec rm -rf {} +
	rm -rf .coverage .coverage.* coverage.xml htmlcov build dist

clean-logs: ## remove every run in logs/
	find logs -mindepth 1 ! -name .gitkeep -delete

lock: venv ## make requirements.txt from pyproject.toml: make lock ARGS="--upgrade"
	scripts/lock.sh $(ARGS)

update-hooks: venv ## raise the tools of .pre-commit-config.yaml, here and in requirements.txt
	scripts/lock.sh --hooks

test-next: ## run the fast tests with the next line of Hydra and Optuna, in .venv-next
	@scripts/venv.sh .venv-next requirements.txt requirements-next.txt
	.venv-next/bin/python -m pytest -m "not slow" $(ARGS)
