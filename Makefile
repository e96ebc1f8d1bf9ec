# `make` shows what there is to do.

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint fmt gateways packaging postgres compat tools

GATEWAYS := 2026.9.6 2026.6.11 2026.4.9
# In CI the dependencies are exactly those of Cargo.lock, and one failed test does not hide the others.
LOCKED := $(if $(filter true 1,$(CI)),--locked)
# The registry with both of its stores; the sidecar is built without.
ALL := --features postgres
NO_FAIL_FAST := $(if $(filter true 1,$(CI)),--no-fail-fast)

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-9s %s\n' "$$name" "$$text"; done

demo: tools ## a real gateway, a browser that waits for approval, the sidecar that lets it in, and support that sees it
	@tests/gateways/install node 2026.9.6
	@cargo build --quiet $(LOCKED) $(ALL) --bins --example demo
	@cargo run --quiet $(LOCKED) $(ALL) --example demo

test: tools gateways packaging postgres ## every test, most of them against real gateways (first run: installs them, 2 GB)
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run $(ALL) $(LOCKED) $(NO_FAIL_FAST) && cargo test $(ALL) $(LOCKED) --doc; \
	else \
		cargo test $(ALL) $(LOCKED) $(NO_FAIL_FAST); \
	fi
	@cargo run --quiet $(ALL) $(LOCKED) --example compat -- --check

compat: ## rewrite the README's table of versions from what the last tests saw
	@cargo run --quiet $(LOCKED) --example compat -- --write

# Static binaries where the machine can build them, as they are deployed. Daemon and registry are built by themselves:
# together with the bench they would get features that only tests need.
MUSL := $(shell uname -m)-unknown-linux-musl
BENCH_TARGET = $(shell rustup target list --installed 2>/dev/null | grep -qx $(MUSL) && \
	command -v musl-gcc >/dev/null && echo --target $(MUSL))

bench: tools gateways postgres ## what things cost, beside their references (ROWS="1 2" for some; BENCH_QUICK=1 waits less)
	@cargo build --release --quiet $(LOCKED) $(BENCH_TARGET) --bin openclaw-sidecar
	@cargo build --release --quiet $(LOCKED) $(BENCH_TARGET) $(ALL) --bin openclaw-registry
	@cargo build --release --quiet $(LOCKED) $(BENCH_TARGET) $(ALL) --example acks
	@cargo run --release --quiet $(LOCKED) $(BENCH_TARGET) $(ALL) --example bench -- $(ROWS)

lint: tools ## formatting and clippy, with and without the registry; warnings are errors
	@cargo fmt --check
	@cargo clippy $(LOCKED) -- -D warnings
	@cargo clippy --all-targets $(ALL) $(LOCKED) -- -D warnings

fmt: tools ## format the code
	@cargo fmt

gateways: tools ## install the real gateways the tests run, into target/gateways
	@tests/gateways/install node $(GATEWAYS)

packaging: tools ## install what the tests of images and units need: podman, a small Debian (skipped where impossible)
	@tests/packaging/install check && tests/packaging/install || true

postgres: tools ## install what the tests of the PostgreSQL store need
	@tests/postgres/install

tools:
	@.ci/check-tools
