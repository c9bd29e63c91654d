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
# In the order that tests/conftest.py gives them; else groups, which are much alike, come first.
SPREAD  = -n $(JOBS) --dist loadgroup --no-loadscope-reorder
# Plugins that the conformance suite judges: podwire by all its names, and the reference plugins.
JUDGED := bridge ptp bandwidth firewall loopback portmap tuning
OWN := $(addprefix own-,podwire $(JUDGED))
REFERENCE := $(addprefix newest-,$(JUDGED)) $(addprefix debian-,$(JUDGED))
TESTS   := tests/unit tests/netns tests/cluster
# pytest's 1: all were run, some failed. What fails again alone, fails; the others are named.
OR_ALONE = || { test $$? -eq 1 && echo '== again, alone: what failed beside other tests' && \
    $(PYTEST) $(TESTS) --last-failed --last-failed-no-failures=none --maxfail=1 -v; }
# What `collected` compiles is kept.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-newest lint unit netns e2e conformance conformance-reference bench lock manifest deb \
        clean run-packages test-packages go-tools programs collected $(OWN) $(REFERENCE)

help: ## show the targets
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: run-packages $(VENV)/.installed ## two nodes with pods in network namespaces: traffic, damage, repair, removal
	@$(if $(filter etcd,$(SOURCE)),tests/tools/debian-programs install etcd etcdctl)
	@$(PY) packaging/demo $(if $(SOURCE),--source $(SOURCE))

# Each process judges one plugin, and prints when it has ended; the first failure ends the run. Those
# that take longest come first.
SIDE_BY_SIDE = $(MAKE) --no-print-directory --jobs=$(JOBS) --output-sync=target
test: test-packages $(VENV)/.installed go-tools programs ## all tests
	@$(SIDE_BY_SIDE) lint $(OWN) $(REFERENCE) collected
	@echo '== unit and network namespaces'
	@$(PYTEST) $(TESTS) $(SPREAD) $(ARGS) $(OR_ALONE)
	@$(PY) -m tests.pytest_netns

# One process collects all tests first: else each would compile them for itself.
collected: $(VENV)/.installed
	@$(PYTEST) $(TESTS) --collect-only --quiet >/dev/null

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
	@$(PYTEST) tests/netns tests/cluster $(SPREAD) $(ARGS) $(OR_ALONE)
	@$(PY) -m tests.pytest_netns

# Kubernetes' programs are the user's.
e2e: test-packages $(VENV)/.installed ## podwire on a real cluster; KUBE_BIN=DIR has kubelet, kube-apiserver, kubectl, ...
	@for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl kube-proxy; do \
	    test -x "$(KUBE_BIN)/$$name" || { echo "KUBE_BIN=DIR must have $$name"; exit 2; }; done
	@KUBE_BIN=$(abspath $(KUBE_BIN)) $(PYTEST) tests/e2e $(ARGS)

conformance: ## the CNI specification against podwire
	@$(SIDE_BY_SIDE) $(OWN)

conformance-reference: ## the CNI specification against the reference plugins
	@$(SIDE_BY_SIDE) $(REFERENCE)

# In two processes, as it takes twice as long as any other: the last would run alone.
own-podwire: HALVED = -n 2
# Under another name the configuration's defaults and the plan differ, not the protocol.
own-bridge own-ptp: CHOSEN = $(patsubst %,tests/conformance/test_%.py,add chaining check connectivity delete result)
CHOSEN = tests/conformance
# A test's store is its own: what delegates to another IPAM would use the machine's. Where ARGS
# choose none of these tests pytest ends with 5.
$(OWN): own-%: test-packages $(VENV)/.drop-ins
	@echo '== conformance of podwire as $*'
	@$(PYTEST) $(CHOSEN) $(HALVED) --cni-plugin=$(VENV)/drop-ins/$* \
	    --cni-env=PODWIRE_DATA_DIR=@TMPDIR@/podwire --cni-env=PODWIRE_STORES=@TMPDIR@/stores \
	    $(ARGS) || [ $$? -eq 5 ]

$(VENV)/.drop-ins: $(VENV)/.installed
	@rm -rf $(VENV)/drop-ins && mkdir $(VENV)/drop-ins
	@for name in podwire host-local $(JUDGED); do ln -s ../bin/podwire $(VENV)/drop-ins/$$name; done
	@touch $@

# Where they fall short is noted for each version.
$(filter debian-%,$(REFERENCE)): debian-%: test-packages $(VENV)/.installed
	@$(call against_reference,/usr/lib/cni,$(DEBIAN_REFERENCE))

$(filter newest-%,$(REFERENCE)): newest-%: test-packages $(VENV)/.installed go-tools
	@! test -x $(GO_TOOLS)/$* || { $(call against_reference,$(GO_TOOLS),$(NEWEST_REFERENCE)); }

# $(1) directory of the plugins, $(2) their version.
against_reference = echo '== conformance of the reference $* $(2)'; \
    $(PYTEST) tests/conformance --cni-plugin=$(1)/$* \
        --cni-known-shortfalls=tests/conformance/shortfalls/$*-$(2).txt

bench: test-packages $(VENV)/.installed go-tools programs ## measure podwire beside the reference plugins: table, build/bench/*.json and *.svg
	@$(PY) -m tests.bench $(ARGS)

run-packages:
	@packaging/install-debian-packages run

test-packages:
	@packaging/install-debian-packages test

go-tools:
	@tests/tools/go-tools install

programs:
	@tests/tools/debian-programs install etcd etcdctl firewalld fish prometheus promtool ufw zsh

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
