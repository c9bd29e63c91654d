# Each target does its own set-up: Debian packages, a private Python under build/.
# Arguments for pytest go in ARGS:  make netns ARGS='-k ptp -x'; bench's too: make bench ARGS=--quick
# `make demo SOURCE=etcd`: the demo's nodes find each other in a real etcd.

VENV    := build/venv
# --newest: those that pyproject.toml allows, not the locked ones.
LIBRARIES :=
PY      := $(VENV)/bin/python
PYTEST  := $(PY) -m pytest
# More than processors: many tests wait, for the kernel or for something that must not happen.
JOBS    ?= 6
ARGS    ?=
PACKAGES := $(wildcard cni_plugin ipam kernel daemon ctl)
SOURCES := $(shell find $(PACKAGES) -name '*.py' -o -name '*.c' -o -name '*.nft' -o -name '*.sql' -o -name py.typed -o -path '*/drop_ins/*') setup.py
GO_TOOLS := $(shell tests/tools/go-tools directory)
NEWEST_REFERENCE := $(shell tests/tools/go-tools version plugins)
# Debian's reference plugins, by upstream version: 1.1.1+ds1-3 is v1.1.1.
DEBIAN_REFERENCE = v$(shell dpkg-query -W -f '$${Version}' containernetworking-plugins | sed 's/[+~-].*//')
CONFORMANCE = $(PYTEST) tests/conformance -n $(JOBS)
TESTS   := tests/unit tests/netns tests/cluster
# One process collects all tests while they are linted: else each would compile them for itself.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-newest lint unit netns e2e conformance conformance-reference bench lock manifest deb \
        clean run-packages test-packages go-tools programs

help: ## show the targets
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: run-packages $(VENV)/.installed ## two nodes with pods in network namespaces: traffic, damage, repair, removal
	@$(if $(filter etcd,$(SOURCE)),tests/tools/debian-programs install etcd etcdctl)
	@$(PY) packaging/demo $(if $(SOURCE),--source $(SOURCE))

# One after the other, whatever -j says: the first failure ends the run.
test: test-packages $(VENV)/.installed go-tools programs ## all tests
	@$(PYTEST) $(TESTS) --collect-only --quiet >/dev/null 2>&1 & \
	    $(MAKE) --no-print-directory lint; status=$$?; wait; exit $$status
	@$(MAKE) --no-print-directory conformance
	@$(MAKE) --no-print-directory conformance-reference
	@echo '== unit and network namespaces'
	@$(PYTEST) $(TESTS) -n $(JOBS) --dist loadgroup $(ARGS)
	@$(PY) -m tests.pytest_netns

# Not in CI: an unchanged tree stays green there. Each part runs, whatever became of the one before.
test-newest: ## all tests with the newest libraries that pyproject.toml allows
	@rm -rf build/venv-newest
	@$(MAKE) --no-print-directory --keep-going --jobs=1 VENV=build/venv-newest LIBRARIES=--newest \
	    lint conformance conformance-reference unit netns

lint: $(VENV)/.installed ## formatting, lints, types, import layers
	@echo '== ruff, mypy, import-linter'
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

unit: $(VENV)/.installed ## unit tests
	@$(PYTEST) tests/unit -n $(JOBS) $(ARGS)

netns: test-packages $(VENV)/.installed go-tools programs ## tests in network namespaces (root)
	@$(PYTEST) tests/netns tests/cluster -n $(JOBS) --dist loadgroup $(ARGS)
	@$(PY) -m tests.pytest_netns

# Kubernetes' programs are the user's.
e2e: test-packages $(VENV)/.installed ## podwire on a real cluster; KUBE_BIN=DIR has kubelet, kube-apiserver, kubectl, ...
	@for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl kube-proxy; do \
	    test -x "$(KUBE_BIN)/$$name" || { echo "KUBE_BIN=DIR must have $$name"; exit 2; }; done
	@KUBE_BIN=$(abspath $(KUBE_BIN)) $(PYTEST) tests/e2e $(ARGS)

conformance: test-packages $(VENV)/.installed ## the CNI specification against podwire
	@echo '== conformance of podwire'
	@$(CONFORMANCE) $(OWN_STORE) --cni-plugin=$(VENV)/bin/podwire $(ARGS)
	@$(PODWIRE_AS_REFERENCE)

# A test's store is its own: what delegates to another IPAM would use the machine's.
OWN_STORE = --cni-env=PODWIRE_DATA_DIR=@TMPDIR@/podwire --cni-env=PODWIRE_STORES=@TMPDIR@/stores
# Under another name the configuration's defaults and the plan differ, not the protocol. Where ARGS
# choose none of these tests pytest ends with 5.
OF_THE_PLAN = $(patsubst %,tests/conformance/test_%.py,add chaining check connectivity delete result)
CHAINED = bandwidth firewall loopback portmap tuning
define PODWIRE_AS_REFERENCE
set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
for name in bridge ptp host-local; do ln -s $(abspath $(VENV))/bin/podwire "$$folder/$$name"; done; \
for name in bridge ptp; do \
    echo "== conformance of podwire as $$name"; \
    $(PYTEST) $(OF_THE_PLAN) -n $(JOBS) $(OWN_STORE) --cni-plugin="$$folder/$$name" $(ARGS) \
        || [ $$? -eq 5 ]; \
done; \
for name in $(CHAINED); do ln -s $(abspath $(VENV))/bin/podwire "$$folder/$$name"; \
    echo "== conformance of podwire as $$name"; \
    $(CONFORMANCE) $(OWN_STORE) --cni-plugin="$$folder/$$name" $(ARGS) || [ $$? -eq 5 ]; \
done
endef

conformance-reference: test-packages $(VENV)/.installed go-tools ## the CNI specification against the reference plugins
	@$(call against_reference,/usr/lib/cni,$(DEBIAN_REFERENCE))
	@! test -x $(GO_TOOLS)/bridge || { $(call against_reference,$(GO_TOOLS),$(NEWEST_REFERENCE)); }

# $(1) directory of the plugins, $(2) their version: where they fall short is noted for each.
define against_reference
set -e; for plugin in bridge ptp; do \
    echo "== conformance of the reference $$plugin $(2)"; \
    $(CONFORMANCE) --cni-plugin=$(1)/$$plugin \
        --cni-known-shortfalls=tests/conformance/shortfalls/$$plugin-$(2).txt; \
done
endef

bench: test-packages $(VENV)/.installed go-tools programs ## measure podwire beside the reference plugins: table, build/bench/*.json and *.svg
	@$(PY) -m tests.bench $(ARGS)

run-packages:
	@packaging/install-debian-packages run

test-packages:
	@packaging/install-debian-packages test

go-tools:
	@tests/tools/go-tools install

programs:
	@tests/tools/debian-programs install etcd etcdctl firewalld prometheus promtool

$(VENV)/.made: packaging/make-venv packaging/locks/build.txt packaging/locks/test.txt | run-packages
	@packaging/make-venv $(LIBRARIES) $(VENV)
	@touch $@

# Each file is bound by the one before, so all agree. One set of versions for all Pythons.
# `make lock ARGS='--upgrade-package pyyaml'` changes as little as it can; ARGS=--no-upgrade only
# follows pyproject.toml.
lock: $(VENV)/.made ## renew packaging/locks, from which all targets and the installer install
	@$(PY) -c 'import tomllib; \
	    print("pip", *tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	    | $(call resolve,-,build)
	@$(call resolve,pyproject.toml --extra kubernetes --extra etcd -c packaging/locks/build.txt,runtime)
	@$(call resolve,pyproject.toml --all-extras -c packaging/locks/runtime.txt,test)
resolve = $(VENV)/bin/uv pip compile --quiet --universal --fork-strategy fewest --generate-hashes \
    --only-binary :all: --custom-compile-command 'make lock' $(or $(ARGS),--upgrade) \
    $(1) --output-file packaging/locks/$(2).txt

# A real installation, renewed when a source changes: what the tests run is what users get.
$(VENV)/.installed: $(VENV)/.made $(SOURCES) pyproject.toml
	@echo 'installing podwire into $(VENV)'
	@rm -rf build/lib build/bdist.* *.egg-info
	@$(PY) -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation \
	    --force-reinstall .
	@rm -rf build/lib build/bdist.* *.egg-info
	@touch $@

manifest: $(VENV)/.made ## renew podwire.yaml and uninstall.yaml in packaging/kubernetes after a change of their parts
	@$(PY) packaging/kubernetes/render.py

deb: ## a Debian package of podwire, into build/
	@packaging/debian/build build

clean: ## remove everything that was built
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
