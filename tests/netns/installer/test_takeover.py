"""The directories of a container runtime, while podwire's daemon runs beside other plugins."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.installer.place import Used
from tests.pytest_netns import MakeNamespace

OTHERS = ("10-flannel.conflist", "00-early.conf")
LEFT = ("00-multus.conf", "notes.txt")
DEADLINE = 60.0


def eventually(check: Callable[[], bool], describe: Callable[[], object]) -> None:
    until = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < until, describe()
        time.sleep(0.05)


@pytest.fixture
def node(used: Used, podwire_bin: Path, tmp_path: Path) -> Used:
    """Podwire stands in for `bridge` there; other plugins' configurations are beside its own."""
    used.conflist = tmp_path / "net.d" / "05-podwire.conflist"
    used.conflist.parent.mkdir()
    settings = json.loads(used.config.read_text())
    settings["conflist"] = {"path": str(used.conflist), "exclusive": True}
    used.config.write_text(json.dumps(settings))
    (used.place.cni_bin / "bridge").write_text("the reference plugin")
    programs = (podwire_bin / "podwire").resolve().parent
    folders = ("--cni-bin", used.place.cni_bin, "--programs", programs, "--etc", tmp_path)
    done = used.podwired("install", *folders, "--as", "bridge")
    assert done.returncode == 0, done.stderr
    for name in (*OTHERS, *LEFT):
        (used.conflist.parent / name).write_text(f'{{"name": "{name}"}}')
    return used


def conflists(node: Used) -> set[str]:
    return {path.name for path in node.conflist.parent.iterdir()}


def status(node: Used) -> str:
    """The findings."""
    program = node.place.prefix / "venv" / "bin" / "podwirectl"
    text = node.node.run([program, "status", "--config", node.config], check=False).stdout
    return "\n".join(line for line in text.splitlines() if line.startswith("!"))


TAKEN = {"05-podwire.conflist", *LEFT, *(f"{name}.set-aside-by-podwire" for name in OTHERS)}


def test_taken_over_kept_and_given_back(node: Used) -> None:
    before = {path: path.read_text() for path in node.conflist.parent.iterdir()}
    node.start()
    eventually(lambda: conflists(node) == TAKEN, lambda: conflists(node))

    # The other plugin's daemon goes on, and a package brings its executable.
    (node.conflist.parent / OTHERS[0]).write_text("a newer one")
    (node.place.cni_bin / "bridge").unlink()
    (node.place.cni_bin / "bridge").write_text("the reference plugin, newer")
    (node.place.cni_bin / "podwire").unlink()
    eventually(lambda: conflists(node) == TAKEN, lambda: conflists(node))
    eventually(
        lambda: (
            {"bridge", "podwire"} <= {p.name for p in node.place.cni_bin.iterdir()}
            and (node.place.cni_bin / "bridge").is_symlink()
        ),
        node.place.names,
    )

    node.kill()
    done = node.uninstall("--config", node.config)
    assert (done.returncode, done.stderr) == (0, "")
    after = {path: path.read_text() for path in node.conflist.parent.iterdir()}
    assert after == {**before, node.conflist.parent / OTHERS[0]: "a newer one"}
    assert node.place.names() == {"bridge": "the reference plugin, newer"}


def test_the_first_one_of_others_is_named_where_podwire_is_not_alone(node: Used) -> None:
    settings = json.loads(node.config.read_text())
    settings["conflist"]["exclusive"] = False
    node.config.write_text(json.dumps(settings))
    (node.conflist.parent / OTHERS[1]).unlink()
    node.start()  # multus may be first
    (node.conflist.parent / OTHERS[1]).write_text("{}")
    eventually(lambda: f"runtimes take {OTHERS[1]}" in status(node), lambda: status(node))
    assert set(OTHERS) <= conflists(node)
    (node.conflist.parent / OTHERS[1]).unlink()
    eventually(lambda: "runtimes take" not in status(node), lambda: status(node))


def test_a_folder_that_was_removed_is_not_made_anew(node: Used) -> None:
    node.start()
    folder = node.conflist.parent
    folder.rename(folder.with_name("old"))
    eventually(lambda: "restart the runtime" in status(node), lambda: status(node))
    assert not folder.exists()
    folder.mkdir()
    eventually(node.conflist.exists, lambda: status(node))
    eventually(lambda: "restart the runtime" not in status(node), lambda: status(node))


def test_executables_come_back_once_their_folder_does(node: Used) -> None:
    node.start()
    folder = node.place.cni_bin
    shutil.rmtree(folder)
    eventually(lambda: f"the folder {folder} was removed" in status(node), lambda: status(node))
    assert not folder.exists(), "a runtime may watch it"
    folder.mkdir()
    eventually(lambda: {"bridge", "podwire"} <= node.place.names().keys(), node.place.names)
    eventually(lambda: "was removed" not in status(node), lambda: status(node))


@pytest.mark.parametrize("command", ["run", "serve"])
def test_executables_come_back_without_a_configuration(node: Used, command: str) -> None:
    program = node.place.prefix / "venv" / "bin" / "podwired"
    (node.place.cni_bin / "podwire").unlink()
    with subprocess.Popen([*node.node.enter, program, command], stderr=subprocess.PIPE) as daemon:
        assert daemon.stderr is not None
        try:
            eventually(lambda: {"bridge", "podwire"} <= node.place.names().keys(), node.place.names)
            (node.place.cni_bin / "bridge").unlink()
            (node.place.cni_bin / "bridge").write_text("the reference plugin, newer")
            eventually((node.place.cni_bin / "bridge").is_symlink, node.place.names)
            shutil.rmtree(node.place.cni_bin)
            folder = f"the folder {node.place.cni_bin} was removed"
            assert any(folder in line.decode() for line in daemon.stderr)
        finally:
            daemon.terminate()
    journal = node.node.run(["cat", "/var/lib/podwire/journal.jsonl"]).stdout
    for name in ("bridge", "podwire"):
        assert f'"action":"restored","object":"file {node.place.cni_bin / name}"' in journal


def test_executables_come_back_once_there_is_space(node: Used) -> None:
    folder, run = node.place.cni_bin, node.node.run
    node.start()
    run(["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "podwire-test", folder])
    eventually(lambda: "No space left on device; free some" in status(node), lambda: status(node))
    run(["mount", "-o", "remount,nr_inodes=100", folder])
    eventually(lambda: "No space left" not in status(node), lambda: status(node))
    assert {"bridge", "podwire"} <= set(run(["ls", folder]).stdout.split())


def test_no_conflist_of_another_path_is_given_back(node: Used) -> None:
    before = {path: path.read_text() for path in node.conflist.parent.iterdir()}
    node.start()
    eventually(lambda: conflists(node) == TAKEN, lambda: conflists(node))
    node.kill()
    text = node.conflist.read_text()
    former, node.conflist = node.conflist, node.conflist.with_name("20-podwire.conflist")
    settings = json.loads(node.config.read_text())
    settings["conflist"]["path"] = str(node.conflist)
    node.config.write_text(json.dumps(settings))
    node.start()
    expected = TAKEN - {former.name} | {node.conflist.name}
    eventually(lambda: conflists(node) == expected, lambda: conflists(node))
    node.kill()

    # Earlier daemons set it aside.
    record = "/var/lib/podwire/install.json"
    manifest = json.loads(node.node.run(["cat", record]).stdout)
    manifest["conflists"].append(str(former))
    node.node.run(["tee", record], stdin=json.dumps(manifest))
    former.with_name(f"{former.name}.set-aside-by-podwire").write_text(text)
    done = node.uninstall("--config", node.config)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path: path.read_text() for path in node.conflist.parent.iterdir()} == before


def test_not_while_pods_run(node: Used, netns: MakeNamespace) -> None:
    node.start()
    conf = json.loads(node.conflist.read_text())
    plugin = {**conf["plugins"][0], "name": conf["name"], "cniVersion": conf["cniVersion"]}
    program = node.place.cni_bin / "podwire"
    pod = netns("pod")
    args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1"
    added = node.node.cni("ADD", program, plugin, netns=pod.path, args=args)
    assert added.code == 0, added.stderr
    node.kill()
    before = conflists(node), node.place.names()
    refused = node.uninstall("--config", node.config)
    assert refused.returncode == 1
    assert "1 pod of podwire runs on this node (default/web-1)" in refused.stderr
    assert (conflists(node), node.place.names()) == before
    done = node.uninstall("--config", node.config, "--force")
    assert (done.returncode, done.stderr) == (0, "")


def use_lost_cluster(node: Used, kind: str) -> str:
    """From now on the configuration names a cluster that is gone; what it says of its entry."""
    settings = json.loads(node.config.read_text())
    missing = str(node.config.with_name("missing"))
    cidrs = {"clusterCIDRs": ["10.244.0.0/16"]}
    sources = {
        "kubernetes": {"kubeconfig": missing, **cidrs},
        "etcd": {"endpoints": ["http://127.0.0.1:23790"], "leaseSeconds": 600, **cidrs},
    }
    node.config.write_text(json.dumps({**settings, "source": {kind: sources[kind]}}))
    return {
        "kubernetes": "kubectl -n podwire delete nodenetwork node-1",
        "etcd": "600 s after the daemon renewed it last",
    }[kind]


@pytest.mark.parametrize("kind", ["kubernetes", "etcd"])
@pytest.mark.parametrize("words", [[], ["--force", "--purge"]])
def test_a_node_whose_cluster_is_gone_is_as_before(node: Used, kind: str, words: list[str]) -> None:
    before = {path: path.read_text() for path in node.conflist.parent.iterdir()}
    node.start()
    eventually(lambda: conflists(node) == TAKEN, lambda: conflists(node))
    node.kill()
    remedy = use_lost_cluster(node, kind)
    done = node.uninstall("--config", node.config, *words)
    assert done.returncode == 0, done.stderr
    assert "what this node published could not be withdrawn" in done.stderr
    assert remedy in done.stderr
    assert {path: path.read_text() for path in node.conflist.parent.iterdir()} == before
    assert node.place.names() == {"bridge": "the reference plugin"}
    left = node.node.run(["ls", "-A", "/var/lib/podwire"], check=False).stdout.split()
    assert left == ([] if words else ["journal.jsonl"])


@pytest.mark.parametrize("kind", ["kubernetes", "etcd"])
def test_a_cleanup_says_what_becomes_of_an_entry_that_stays(node: Used, kind: str) -> None:
    node.start()
    node.kill()
    remedy = use_lost_cluster(node, kind)
    program = node.place.prefix / "venv" / "bin" / "podwirectl"
    words = ("cleanup", "--yes", "--data", "--config", node.config)
    done = node.node.run([program, *words], check=False)
    assert done.returncode == 1
    assert remedy in done.stderr
    assert f"removed file {node.conflist}" in done.stdout
    assert "removed /var/lib/podwire/journal.jsonl" in done.stdout


def test_pods_of_another_plugin_are_named(node: Used) -> None:
    cached = {
        "kind": "cniCacheV1", "containerId": "c9", "ifName": "eth0", "networkName": "flannel",
        "cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "old"]],
    }  # fmt: skip
    place = "/var/lib/cni/results/flannel-c9-eth0"
    node.node.run(["mkdir", "-p", "/var/lib/cni/results"])
    node.node.run(["tee", place], stdin=json.dumps(cached))
    text = "1 pod was attached by another plugin (default/old)"
    node.start(wait=False)
    eventually(lambda: text in status(node), lambda: status(node))
    node.node.run(["rm", place])
    eventually(lambda: text not in status(node), lambda: status(node))
