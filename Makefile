# Two commands do everything on a fresh machine: `make serve` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
PROFILE ?= release
SERVE ?=
# The set of libtorch files that `make libtorch` makes; `.cargo/config.toml` looks for it under `libtorch/`.
KIND := $(if $(CUDA),cuda,cpu)

.PHONY: help serve test clients contract openapi lint fmt doc libtorch build generate goldens clean

help: ## Show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

libtorch: ## Put libtorch 2.11.0 where cargo finds it (CUDA=1 for the full CUDA set; a LIBTORCH already set is used as it is)
ifdef LIBTORCH
	@test -e "$(LIBTORCH)/lib/libtorch_cpu.so" || { echo "LIBTORCH=$(LIBTORCH) has no lib/libtorch_cpu.so" >&2; exit 1; }
	@if [ "$$(realpath -m libtorch)" != "$$(realpath "$(LIBTORCH)")" ]; then \
	  if [ -e libtorch ] && [ ! -L libtorch ]; then echo "libtorch/ is in the way of LIBTORCH=$(LIBTORCH): remove it or unset LIBTORCH" >&2; exit 1; fi; \
	  ln -sfn "$(LIBTORCH)" libtorch; fi
else
	@$(PYTHON) tools/libtorch.py $(KIND) .libtorch-$(KIND)
	@if [ -e libtorch ] && [ ! -L libtorch ]; then rm -rf libtorch; fi
	@ln -sfn .libtorch-$(KIND) libtorch
endif

build: libtorch ## Build the binary
	cargo build --profile $(PROFILE) -p latentd

serve: build ## Build and serve the demo model on http://127.0.0.1:8080
	target/$(PROFILE:dev=debug)/latentd serve $(SERVE)

generate: build ## Draw one picture with the demo model into picture.png
	target/$(PROFILE:dev=debug)/latentd generate --model assets/demo --prompt "a large red circle on a blue background" --seed 7 --out picture.png

test: libtorch ## Run every test
	cargo test --workspace

clients: libtorch ## Run published clients against the built server (Python with venv, Node.js, curl)
	cargo test --workspace --no-run --quiet
	tests/clients/run.sh target/debug/latentd

contract: ## Run schemathesis against the served OpenAPI document (Python with venv), three minutes at most
	cargo test --workspace --no-run --quiet
	tests/contract/run.sh target/debug/examples/fake_server

openapi: ## Write docs/openapi.json anew
	cargo run --quiet -p ldm-http --example openapi > docs/openapi.json

lint: libtorch ## Check formatting, lints and documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

fmt: ## Format
	cargo fmt --all

clean: ## Remove what was built; libtorch stays
	cargo clean
