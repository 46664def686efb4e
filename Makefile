# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0

# For machines without ROS: everything happens in a venv at the root, .venv or .venv-kilted.
# On a robot with ROS from apt, build with colcon instead (README.md).

PYTHON ?= python3
# Which build of torch: cpu, cuda (whatever fits the driver), a backend that uv knows (cu126,
# cu130, rocm6.4, ...) or pypi (whatever a plain `pip install torch` brings).
TORCH ?= cpu
# Which ROS 2 the wheels bring: jazzy or kilted.  Each has a venv of its own.
ROS ?= jazzy
# More arguments for pytest, e.g. make test ARGS="-k geometry -x"
ARGS ?=

ifeq ($(ROS),jazzy)
VENV := .venv
ROS_REQUIREMENTS := requirements/ros.txt requirements/ros-build.txt
else ifeq ($(ROS),kilted)
VENV := .venv-kilted
ROS_REQUIREMENTS := requirements/ros-kilted.txt requirements/ros-kilted-build.txt
else
$(error ROS=$(ROS): there are wheels for jazzy and kilted)
endif
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
REQUIREMENTS := $(ROS_REQUIREMENTS) $(addprefix requirements/,runtime.txt standalone.txt demo.txt test.txt) \
	$(wildcard requirements/docs.txt)
BASELINES := requirements/baselines.txt

# A shell that has sourced a ROS installation would mix its ROS into the venv's.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
unexport ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE
ifdef AMENT_PREFIX_PATH
unexport LD_LIBRARY_PATH
endif
# CMake and ninja come from PyPI into the venv.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo test bench docs clean distclean FORCE
.DELETE_ON_ERROR:

help:
	@echo "make demo    a camera in a small synthetic room is localized through ROS 2: table and picture"
	@echo "make test    the test suite (ARGS='-k name' goes to pytest)"
	@echo "make bench   accuracy beside other methods, and speed: docs/benchmarks.md (ARGS='perceptual_aliasing' or --list: others)"
	@echo "make docs    the documentation site: build/docs/index.html"
	@echo "make setup   only what the others do first: $(VENV) with ROS 2 and torch, and the package in it"
	@echo "make clean   remove build products; make distclean removes the venvs too"
	@echo
	@echo "Variables: PYTHON=$(PYTHON) (3.10 to 3.13)   TORCH=$(TORCH) (cpu, cuda, cu126, cu130, ..., pypi)"
	@echo "           ROS=$(ROS) (jazzy, kilted: in $(VENV))"

setup: $(STAMPS)/package

demo: setup
	$(BIN)/nre_ros demo $(ARGS)

# In two processes, because many tests wait; test/conftest.py says which tests share one.
test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope $(ARGS)

bench: setup
	$(BIN)/python benchmarks/run.py $(if $(ARGS),$(ARGS),accuracy speed --queries 21 --write-docs)

# The pages of modules that are gone must not stay.
docs: setup
	rm -rf docs/reference/api
	$(BIN)/python -m sphinx -W --keep-going -b html docs build/docs $(ARGS)

clean:
	rm -rf docs/reference/api build install log dist demo_output *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv .venv-kilted

# --- set-up, each step once ------------------------------------------------------------------

$(STAMPS)/venv:
	@echo "== 1/4 Python environment in $(VENV)"
	@PYTHON="$(PYTHON)" sh tools/check_machine.sh
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# torch first: the packages below then find a torch and do not bring the CUDA one.
$(STAMPS)/torch-$(TORCH): $(STAMPS)/venv
	@echo "== 2/4 torch ($(TORCH))"
	@sh tools/install_torch.sh $(BIN)/python $(TORCH)
	@rm -f $(STAMPS)/torch-* && touch $@

$(STAMPS)/requirements: $(REQUIREMENTS) $(BASELINES) $(STAMPS)/torch-$(TORCH)
	@echo "== 3/4 ROS 2 ($(ROS)) and the libraries (the whole environment takes 2.5 GB of disk)"
	$(BIN)/python -m pip install --disable-pip-version-check \
		$(addprefix -r ,$(REQUIREMENTS))
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -r $(BASELINES)
	@touch $@

# The list changes when a file comes or goes, which the files' own times would not show.
SOURCES := $(sort $(shell find nre_ros msg srv src config launch scripts cmake -type f -not -name '*.pyc' 2>/dev/null)) \
	setup.py pyproject.toml CMakeLists.txt package.xml
$(STAMPS)/sources: FORCE | $(STAMPS)/venv
	@echo '$(SOURCES)' | cmp -s - $@ || echo '$(SOURCES)' > $@

# Without isolation: the build uses the venv's ROS, CMake and ninja, and is incremental.
$(STAMPS)/package: $(SOURCES) $(STAMPS)/sources $(STAMPS)/requirements
	@echo "== 4/4 nre_ros, its messages and its CPU kernels"
	$(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation --no-deps --force-reinstall .
	@touch $@
