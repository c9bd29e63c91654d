"""What a call loads: each module costs every call of the standalone executable its time."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Set
from typing import Any

import pytest

from tests import ROOT
from tests.unit.cni_plugin.calls import CONFIG, Node, config, encode, environment, succeeded

NEVER = {
    "argparse", "asyncio", "bz2", "cni_plugin.pieces", "cni_plugin.plugins.tuning",
    "concurrent.futures", "daemon", "decimal", "email", "filelock",
    "http", "importlib.metadata", "importlib.resources", "ipam.cli", "ipam.recovery",
    "kernel.netlink.monitor", "kernel.link_deletion", "kernel.pieces", "kernel.routes",
    "kernel.vxlan", "logging", "lzma",
    "multiprocessing", "optparse", "pydantic", "pydantic_core", "pyroute2", "random", "shutil",
    "ssl", "subprocess", "tempfile", "typing_extensions", "unittest", "urllib.request", "xml",
    "yaml", "zipfile",
}  # fmt: skip
FOREIGN = {
    "VERSION": {"cni_plugin.config", "ctypes", "hashlib", "ipam.ranges",
                "ipam.store", "kernel.model", "kernel.netlink.socket", "kernel.netns", "socket",
                "sqlite3", "threading"},
    "STATUS": {"cni_plugin.add", "cni_plugin.delete", "cni_plugin.ipam_plugin"},
    "CHECK": {"cni_plugin.add", "cni_plugin.delete", "cni_plugin.ipam_plugin", "ipam.allocator"},
    "ADD": {"cni_plugin.check", "cni_plugin.delete", "cni_plugin.ipam_plugin"},
    "DEL": {"cni_plugin.add", "cni_plugin.check", "cni_plugin.ipam_plugin", "cni_plugin.plan",
            "ipam.allocator", "ipam.config", "ipam.pool"},
    "GC": {"cni_plugin.add", "cni_plugin.check", "cni_plugin.ipam_plugin", "cni_plugin.plan",
           "ipam.allocator", "ipam.config", "ipam.pool"},
}  # fmt: skip
"""What belongs to other verbs."""
IPAM_NEVER = {
    "cni_plugin.attachment", "cni_plugin.masquerade_record", "cni_plugin.network_rules",
    "cni_plugin.plan", "cni_plugin.removal",
    "ctypes",
    "kernel.attach", "kernel.model", "kernel.netlink.socket", "kernel.netns",
    "kernel.nftables.table", "kernel.netlink.links", "socket",
}  # fmt: skip
IMPORT = "import sys; {}; print('\\n'.join(sys.modules))"
CALL = """
import json, os, sys
from pathlib import Path
from cni_plugin.handle import handle
from cni_plugin.host import Host
def open_netns(path):
    from kernel.netns import Namespace
    return Namespace(os.dup(int(sys.argv[3])), path)
folder = Path(sys.argv[2])
host = Host(program=sys.argv[1], data_dir=folder, index=folder.parent / "stores",
            log=lambda line: None, open_netns=open_netns)
reply = handle(os.environ, sys.stdin.buffer.read(), host)
modules = list(sys.modules)
print(json.dumps([reply.status, reply.stdout.decode(), modules]))
"""


def run(
    code: str, *args: str, env: Mapping[str, str], stdin: bytes, fds: tuple[int, ...] = ()
) -> str:
    """Standard output of a new interpreter; it stays in the tests' network namespace."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        input=stdin,
        env={**env, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        pass_fds=fds,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode()


def loaded_by(statement: str) -> set[str]:
    return set(run(IMPORT.format(statement), env={}, stdin=b"").split())


def start() -> set[str]:
    """What the interpreter and its site packages load before any of our code."""
    return loaded_by("pass")


@pytest.fixture(scope="module")
def bare() -> set[str]:
    return start()


def heavy(modules: set[str], bare: set[str], more: Set[str] = frozenset()) -> set[str]:
    """Those modules, and parts of them, that are none of the call's business."""
    unwanted = NEVER | more
    return {m for m in modules - bare for n in unwanted if m == n or m.startswith(f"{n}.")}


@pytest.mark.parametrize(
    "module",
    ["cni_plugin.__main__", "cni_plugin.handle", "cni_plugin.add", "cni_plugin.ipam_plugin"],
)
def test_an_import_loads_nothing_heavy(module: str, bare: set[str]) -> None:
    modules = loaded_by(f"import {module}")
    assert module in modules
    assert heavy(modules, bare) == set()


def test_the_executable_itself_loads_nothing_before_it_knows_its_task(bare: set[str]) -> None:
    modules = loaded_by("import cni_plugin.__main__")
    assert {
        m for m in modules - bare if m.partition(".")[0] in ("pydantic", "ipam", "kernel")
    } == set()


def call(
    node: Node, verb: str, conf: Mapping[str, Any], **env: str
) -> tuple[dict[str, Any], set[str]]:
    """The answer of a call in a new interpreter that must succeed, and what it loaded."""
    pod = node.host().open_netns("")
    with pod:
        os.set_inheritable(pod.fd, True)
        out = run(
            CALL, node.program, str(node.data_dir), str(pod.fd),
            env=environment(verb, **env), stdin=encode(conf), fds=(pod.fd,),
        )  # fmt: skip
    status, stdout, modules = json.loads(out)
    assert status == 0, stdout
    return json.loads(stdout or "{}"), set(modules)


@pytest.mark.parametrize("verb", ["STATUS", "VERSION", "DEL", "GC"])
def test_verbs_that_find_nothing_to_do(node: Node, bare: set[str], verb: str) -> None:
    _, modules = call(node, verb, config(**{"cni.dev/valid-attachments": []}))
    assert heavy(modules, bare, FOREIGN[verb]) == set()


def test_the_ipam_plugin_needs_no_netlink(node: Node, bare: set[str]) -> None:
    """Unless it makes the database, which may have to be filled from the links of pods."""
    node.program = "podwire-ipam"
    succeeded(node.call(environment(CNI_CONTAINERID="first"), CONFIG))
    result, modules = call(node, "ADD", CONFIG)
    assert heavy(modules, bare, IPAM_NEVER) == set()
    for verb in ("CHECK", "STATUS", "DEL", "GC"):
        conf = config(prevResult=result, **{"cni.dev/valid-attachments": []})
        _, modules = call(node, verb, conf)
        assert heavy(modules, bare, IPAM_NEVER) == set(), verb


@pytest.mark.parametrize("mode", ["ptp", "bridge"])
def test_an_attachment_on_a_node_that_has_one(node: Node, bare: set[str], mode: str) -> None:
    """The node's first attachment loads the rules (subprocess) and makes the bridge (pyroute2)."""
    conf = config(mode=mode, bridge="test0", isGateway=True, ipMasq=True)
    succeeded(node.call(environment(CNI_CONTAINERID="first"), conf))
    node.replace_pod(keep=True)
    result, modules = call(node, "ADD", conf)
    assert result["ips"][0]["address"] == "10.88.0.3/24"
    assert heavy(modules, bare, FOREIGN["ADD"]) == set()
    _, modules = call(node, "CHECK", {**conf, "prevResult": result})
    assert heavy(modules, bare, FOREIGN["CHECK"]) == set()
    _, modules = call(node, "DEL", conf)
    assert heavy(modules, bare, FOREIGN["DEL"]) == set()
    succeeded(node.call(environment("DEL", CNI_CONTAINERID="first"), conf))
