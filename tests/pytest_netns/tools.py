"""Programs that some tests run and that a machine may lack.

A test names them with `@pytest.mark.needs("cnitool")`. Where one is missing the test is not
run, and that is said: in the header of the pytest run, and by `python -m tests.pytest_netns`
which `make test` ends with.
"""

import functools
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_KUBERNETES = (
    *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet"),
)


@functools.cache
def _go_tools(question: str, *args: str) -> str:
    script = ROOT / "tests/tools/go-tools"
    done = subprocess.run(
        [str(script), question, *args], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def go_tools_directory() -> Path:
    """Where `tests/tools/go-tools install` puts its programs."""
    return Path(_go_tools("directory"))


def _lacks_go_tools() -> str:
    return "" if (go_tools_directory() / ".complete").exists() else "built with Go, which is absent"


def _lacks_podman() -> str:
    if shutil.which("podman") is None:
        return "podman is not installed"
    version = subprocess.run(
        ["podman", "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    if int(version.partition(".")[0]) >= 5:
        return f"podman {version} has no CNI back end"
    return ""


def _lacks_kube_apiserver() -> str:
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    if not folder:
        return "KUBEBUILDER_ASSETS names no directory of it and of etcd"
    absent = [name for name in ("kube-apiserver", "etcd") if not Path(folder, name).exists()]
    return f"{folder} has no {' and no '.join(absent)}" if absent else ""


PROGRAMS = ROOT / "build/programs"
"""Where `tests/tools/debian-programs` puts its programs."""


def _lacks_firewalld() -> str:
    if not (PROGRAMS / "firewalld").exists():
        return "`tests/tools/debian-programs install firewalld` was not run"
    absent = [name for name in ("busctl", "dbus-daemon") if shutil.which(name) is None]
    if absent:
        return f"{' and '.join(absent)} not installed"
    imports = ["/usr/bin/python3", "-c", "import dbus, gi"]
    done = subprocess.run(imports, capture_output=True, check=False)
    return "Debian's python3-dbus and python3-gi are not installed" if done.returncode else ""


def _lacks_kubernetes() -> str:
    folder = os.environ.get("KUBE_BIN")
    if not folder:
        return "KUBE_BIN names no directory of its programs"
    absent = [name for name in _KUBERNETES if not Path(folder, name).exists()]
    return f"{folder} has no {' and no '.join(absent)}" if absent else ""


TOOLS = {
    "cnitool": _lacks_go_tools,
    "firewalld": _lacks_firewalld,
    "kube-apiserver": _lacks_kube_apiserver,
    "kubernetes": _lacks_kubernetes,
    "newest-reference": _lacks_go_tools,
    "podman": _lacks_podman,
}

DESCRIPTIONS = {
    "cnitool": "the tests with cnitool",
    "firewalld": "the tests with firewalld",
    "kube-apiserver": "the tests of the Kubernetes source with a real kube-apiserver",
    "kubernetes": "the tests on a real cluster",
    "newest-reference": "the tests against the newest reference plugins",
    "podman": "the tests with podman run",
}


@functools.cache
def missing() -> dict[str, str]:
    """Missing tools, with the reason for each."""
    reasons = {tool: check() for tool, check in TOOLS.items()}
    return {tool: reason for tool, reason in reasons.items() if reason}


def report() -> list[str]:
    """One line for each kind of test that is not run on this machine."""
    return [f"not run: {DESCRIPTIONS[tool]} ({reason})" for tool, reason in missing().items()]
