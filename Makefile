# `make help` lists what this does. Works in a fresh clone with nothing but Python 3.11 or newer (with venv), git and make.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTHON ?= python3.11 python3.12 python3.13 python3 python
WINDOW := $(if $(filter Linux,$(shell uname -s)),xvfb-run -a -s "-screen 0 1920x1080x24",)

# What a headless napari window needs on Debian or Ubuntu, besides what these bring along.
SYSTEM_PACKAGES := xvfb xauth libgl1 libegl1 libglib2.0-0 libdbus-1-3 libfontconfig1 libx11-xcb1 libxkbcommon-x11-0 \
	libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-randr0 libxcb-shape0 libxcb-sync1 libxcb-xfixes0

# What some tests are skipped without; not every distribution has them.
OPTIONAL_PACKAGES := chromium dicom3tools xdotool

# Tests start Python some thirty times: each would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv system window demo test any-cpu pytest lint types contracts manifest samples reference docs fuzz clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

venv: $(INSTALLED) ## Make .venv with everything in it, at the versions of constraints.txt

$(BIN)/python:
	@for python in $(PYTHON); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making $(VENV) with $$($$python --version)."; \
			$$python -m venv $(VENV) || { rm -rf $(VENV); echo "$$python has no venv: install it (Debian: apt-get install python3-venv)." >&2; exit 1; }; \
			exit 0; \
		fi; \
	done; echo "No Python 3.11 or newer found. Install one, with venv (Debian: apt-get install python3 python3-venv)." >&2; exit 1

# A torch that is already in .venv stays, if its version fits: see README for CPU and CUDA builds.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing what constraints.txt lists; the first time this takes some minutes."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e ".[dev]"
	@touch $@

system: window ## Install what a headless window takes, a browser, dicom3tools and xdotool (Debian or Ubuntu, as root)
	@command -v dpkg-query >/dev/null || exit 0; \
	for package in $(OPTIONAL_PACKAGES); do \
		case "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" in installed) continue ;; esac; \
		if [ "$$(id -u)" != 0 ]; then echo "Some tests are skipped without $$package: sudo apt-get install $$package" >&2; continue; fi; \
		[ -n "$$updated" ] || { apt-get update -q; updated=yes; }; \
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$package \
			|| echo "$$package is not to be had here; the tests that take it are skipped." >&2; \
	done

window:
	@command -v dpkg-query >/dev/null || exit 0; \
	present=" $$(dpkg-query -W -f '$${db:Status-Status}:$${Package} ' 2>/dev/null) "; \
	missing=; for package in $(SYSTEM_PACKAGES); do \
		case "$$present" in *" installed:$$package "* | *" installed:$${package}t64 "*) ;; *) missing="$$missing $$package" ;; esac; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "Tests need a headless window. Install what it takes: sudo apt-get install$$missing" >&2; exit 1; \
	fi; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing

demo: $(INSTALLED) ## Propose regions on a real head and a sample CT; results in out/demo/
	$(BIN)/python docs/examples/demo.py

test: lint types contracts manifest pytest ## Everything: lint, types, contracts, manifest, unit, integration and window tests

any-cpu: $(INSTALLED) ## The tests of numbers once more, with vector width and BLAS kernels of an older processor
	$(BIN)/python tests/any_cpu.py

CASES ?= 100000
fuzz: $(INSTALLED) ## Damage headers by the ten thousand (CASES=100000); every one is read right or refused in one line
	$(BIN)/python -m benchmarks.fuzz --cases $(CASES)

# Two processes of one thread each share the tests where there are two cores: make test JOBS=1 runs one.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1); [ "$$n" -ge 2 ] && echo 2 || echo 1)
pytest: export OMP_NUM_THREADS := 1
pytest: $(INSTALLED) window
	$(WINDOW) $(BIN)/python -m pytest $(if $(filter-out 1,$(JOBS)),-p xdist.plugin -n $(JOBS) --dist loadfile)

lint: $(INSTALLED) ## Style (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## Types (mypy)
	$(BIN)/mypy

contracts: $(INSTALLED) ## Imports go down only (import-linter)
	$(BIN)/lint-imports --no-logo

manifest: $(INSTALLED) ## The napari manifest (npe2)
	$(BIN)/npe2 validate src/napari_strata/napari.yaml

samples: $(INSTALLED) ## Make sample_scans/ anew with our synthesiser
	$(BIN)/strata samples sample_scans

reference: $(INSTALLED) ## Make the generated pages of docs/reference/ anew
	$(BIN)/python docs/make_reference.py

docs: $(INSTALLED) reference ## Build the documentation site into build/site/, offline; a warning is an error
	$(BIN)/zensical build --strict --clean
	@echo "Open build/site/index.html"

clean: ## Remove .venv, out/ and caches
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
