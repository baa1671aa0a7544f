# Every target sets up what it needs in .venv, once. All it takes is make and Python 3.11 or newer.
#   PYTHON=/path/to/python   which Python to make .venv with (make clean first, to change it)
#   ARGS="..."               further arguments for `make test`, and for bench.py of `make bench`

VENV = .venv
PY = $(VENV)/bin/python
INSTALL = $(PY) -m pip install -qq --disable-pip-version-check --editable

# What is installed is marked by a file that names this folder: in a copied or moved folder,
# .venv would go on running the code of the old place.
HERE := $(shell pwd | cksum | cut -d' ' -f1)
DEMO_READY = $(VENV)/ready-demo-$(HERE)
DEV_READY = $(VENV)/ready-dev-$(HERE)
CONTROLS = $(VENV)/controls
CONTROLS_READY = $(VENV)/ready-controls-$(HERE)

.DEFAULT_GOAL = help
.NOTPARALLEL:  # two pips in one .venv would get in each other's way
.PHONY: help demo test check bench chaos format clean redis openssl postgres beanstalkd strace

help:  ## say what there is
	@echo "Alligator: make TARGET"
	@sed -n 's/^\([a-z]*\):.*  ## /\1|/p' Makefile | \
		while IFS='|' read -r name text; do printf '  %-8s %s\n' "$$name" "$$text"; done

demo: $(DEMO_READY)  ## measure the standard library's files on SQLite, no server (DIR=... for your own)
	@$(PY) examples/demo/run.py $(if $(DIR),--dir "$$DIR")

test: $(DEV_READY) $(CONTROLS_READY) redis openssl postgres beanstalkd strace  ## run the tests (ARGS="-k lease" for some)
	$(PY) -m pytest --numprocesses 4 --dist loadfile $(ARGS)

check: $(DEV_READY)  ## format, lint and types, changing nothing
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pyright --pythonpath $(PY)

bench: $(DEV_READY) redis postgres beanstalkd  ## measure the speed (ARGS="--store redis" for one store's)
	$(PY) benchmarks/bench.py $(ARGS)
	$(PY) benchmarks/many.py
	$(PY) benchmarks/waiting.py

chaos: $(DEV_READY) $(CONTROLS_READY) redis postgres beanstalkd strace  ## let everything fail, and count what is lost (ARGS="--store redis")
	$(PY) -m chaos $(ARGS)

format: $(DEV_READY)  ## format the code and mend what ruff can mend
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

clean:  ## remove .venv and whatever was built
	@rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name .git -prune -o -name __pycache__ -prune -exec rm -rf {} +

$(PY):
	@sh scripts/make-venv.sh $(VENV)

$(DEMO_READY): pyproject.toml | $(PY)
	@echo "Installing Alligator into $(VENV) ..."
	@$(INSTALL) '.[progress]'
	@touch $@

$(DEV_READY): pyproject.toml | $(PY)
	@echo "Installing Alligator and its development tools into $(VENV) ..."
	@$(INSTALL) '.[dev,all]'
	@touch $@ $(DEMO_READY)

# The systems that the campaign compares ours with; none of them is a part of it, or of its tools.
$(CONTROLS_READY): chaos/controls/requirements.txt | $(DEV_READY)
	@echo "Installing what the campaign is also played with into $(CONTROLS) ..."
	@$(PY) -m venv --clear $(CONTROLS)
	@$(CONTROLS)/bin/python -m pip install -qq --disable-pip-version-check -r $<
	@touch $@

redis:
	@command -v redis-server >/dev/null || sh scripts/apt-install.sh redis-server || \
		echo "redis-server is not installed, so what needs it is skipped."

openssl:
	@command -v openssl >/dev/null || sh scripts/apt-install.sh openssl || \
		echo "openssl is not installed, so what needs it is skipped."

postgres:
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || \
		sh scripts/apt-install.sh postgresql || \
		echo "postgresql is not installed, so what needs it is skipped."
	@[ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null || \
		sh scripts/apt-install.sh pgbouncer || \
		echo "pgbouncer is not installed, so what needs it is skipped."

beanstalkd:
	@command -v beanstalkd >/dev/null || sh scripts/apt-install.sh beanstalkd || \
		echo "beanstalkd is not installed, so what needs it is skipped."

strace:
	@command -v strace >/dev/null || sh scripts/apt-install.sh strace || \
		echo "strace is not installed, so what needs it is skipped."
