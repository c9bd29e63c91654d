"""A full disk, and a file system that is read-only: clear error, nothing lost, and it heals."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.netns.robustness.calls import Outcome
from tests.netns.robustness.confs import MODES, Conf, ipam, netconf
from tests.netns.robustness.scene import DATA_DIR, DATABASE, LINK_LOCAL, OWN_LINKS, Attached, Scene
from tests.pytest_netns import Namespace, changes, snapshot

MakePod = Callable[[], Namespace]
BALLAST = DATA_DIR / "ballast"


def mount_small_disk(scene: Scene) -> None:
    scene.node.run(["mkdir", "-p", DATA_DIR])
    scene.node.run(["mount", "-t", "tmpfs", "-o", "size=512k", "podwire-test", DATA_DIR])


def fill(scene: Scene) -> None:
    def write() -> None:
        fd = os.open(BALLAST, os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):
            while True:
                os.write(fd, bytes(4096))
        os.close(fd)

    scene.on_files(write)


def make_room(scene: Scene) -> None:
    scene.on_files(BALLAST.unlink)


def make_read_only(scene: Scene) -> None:
    scene.node.run(["mount", "-o", "remount,ro", DATA_DIR])


def make_writable(scene: Scene) -> None:
    scene.node.run(["mount", "-o", "remount,rw", DATA_DIR])


PROBLEMS = {"full": (fill, make_room), "read-only": (make_read_only, make_writable)}


def assert_clear(answer: Outcome) -> None:
    """Code 5, the path, and what to do about it."""
    assert answer.code == 1, answer
    error = answer.json
    assert error["code"] == 5, error
    assert "/var/lib/podwire" in error["msg"]
    assert "free some space" in error["details"] or "remount it writable" in error["details"], error
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_before_the_first_pod(scene: Scene, pod: Namespace, problem: str, mode: str) -> None:
    strike, heal = PROBLEMS[problem]
    mount_small_disk(scene)
    strike(scene)
    before = scene.state(pod)
    assert_clear(scene.call("ADD", netconf(mode, (4, 6), ipMasq=True), pod))
    assert before.changes_to(scene.state(pod)) == []
    assert scene.call("STATUS", netconf(mode)).code == 1
    heal(scene)
    attached = scene.add(netconf(mode, (4, 6), ipMasq=True), pod)
    assert pod.ping("10.77.0.1")
    scene.delete(attached)
    assert scene.leftovers(pod) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_under_running_pods(scene: Scene, make_pod: MakePod, problem: str, mode: str) -> None:
    strike, heal = PROBLEMS[problem]
    mount_small_disk(scene)
    conf = netconf(mode, (4, 6), ipMasq=True)
    running = [scene.add(conf, make_pod(), f"c{number}") for number in range(3)]
    pod, rows = make_pod(), scene.rows()
    strike(scene)
    before = snapshot(scene.node.ns)

    assert_clear(scene.call("ADD", conf, pod, "new"))
    assert scene.links(pod) == {"lo"}
    found = changes(before, snapshot(scene.node.ns))
    assert [line for line in found if not LINK_LOCAL.match(line)] == []
    # What is in the kernel goes without the store.
    gone = scene.call("DEL", conf, running[0].pod, "c0")
    assert gone.code == 0, gone
    assert "addresses stay allocated for now" in gone.stderr
    assert "nothing was" not in gone.stderr
    assert scene.links(running[0].pod) == {"lo"}
    assert running[0].host not in scene.links()
    assert not any(f'"{running[0].host}"' in line for line in scene.ruleset().splitlines())
    assert scene.gc(conf, [("c1", "eth0")]).code == 0
    assert scene.links(running[2].pod) == {"lo"}
    assert running[1].pod.ping("10.77.0.1")

    heal(scene)
    assert scene.rows() == rows, "something was lost"
    new = scene.add(conf, pod, "new")
    assert new.address(4) not in {a.address(4) for a in running}
    everyone: list[Attached] = [*running, new]
    assert scene.gc(conf, [("c1", "eth0"), ("new", "eth0")]).code == 0
    assert {row[1] for row in scene.rows()["attachment"]} == {"c1", "new"}
    for attached in everyone:
        scene.delete(attached)
    assert scene.leftovers(*(a.pod for a in everyone)) == []


def _hold() -> sqlite3.Connection:
    """What lets others read the store on a full disk: one that has it open, as the daemon has."""
    connection = sqlite3.connect(DATABASE, check_same_thread=False)
    connection.execute("SELECT * FROM attachment").fetchall()
    return connection


CHAIN: dict[str, Conf] = {
    "tuning": {"mtu": 1400},
    "portmap": {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}},
    "bandwidth": {"ingressRate": 10**9, "ingressBurst": 10**7},
    "firewall": {"ingressPolicy": "same-bridge"},
}


@pytest.mark.parametrize("program", ["bridge", "/usr/lib/cni/bridge"])
@pytest.mark.parametrize(
    ("problem", "is_held"), [("full", False), ("full", True), ("read-only", False)]
)
def test_a_chain_is_deleted(
    scene: Scene, pod: Namespace, problem: str, is_held: bool, program: str
) -> None:
    """Pods end on a full disk, whichever plugin attached them; their addresses are podwire's."""
    strike, heal = PROBLEMS[problem]
    mount_small_disk(scene)
    keys = {"type": "host-local", **ipam(4, 6)}
    confs = {program: netconf("bridge", type="bridge", cniVersion="1.0.0", ipam=keys)}
    result: Conf = {}
    for kind in (program, *CHAIN):
        if result:
            own: Conf = {"cniVersion": "1.0.0", "name": "robust", "type": kind}
            confs[kind] = {**own, **CHAIN[kind], "prevResult": result}
        answer = scene.call("ADD", confs[kind], pod, program=kind)
        assert answer.code == 0, answer
        result = answer.json
    held = scene.on_files(_hold) if is_held else None
    strike(scene)
    last = {**confs, program: {**confs[program], "prevResult": result}}
    for kind in reversed(last):
        gone = scene.call("DEL", last[kind], pod, program=kind)
        assert gone.code == 0, gone
        assert "for now" in gone.stderr
    if held:  # the record can be read
        assert "8080" not in scene.ruleset()
        assert scene.links() <= OWN_LINKS
    assert scene.links(pod) == {"lo"}
    if held:
        held.close()
    heal(scene)
    for kind in reversed(last):
        assert scene.call("DEL", last[kind], pod, program=kind).code == 0
    assert (scene.rows(), scene.links(pod)) == ({}, {"lo"})
    assert scene.links() <= OWN_LINKS
    assert "podwire" not in scene.ruleset()
    assert "8080" not in scene.ruleset()


def test_folder_cannot_be_made(scene: Scene, pod: Namespace) -> None:
    scene.node.run(["mount", "-o", "remount,ro", "/var/lib"])
    assert_clear(scene.call("ADD", netconf("ptp"), pod))
    assert scene.links(pod) == {"lo"}


def test_space_runs_out_pod_by_pod(scene: Scene, make_pod: MakePod) -> None:
    """Until the disk is full pods come; those stay, and the one that fails has no link.

    Its undo may lack the space to forget it, so the DEL that a runtime sends after a failed ADD
    must find it.
    """
    mount_small_disk(scene)
    conf = netconf("ptp", (4, 6), ipMasq=True)
    scene.add(conf, make_pod(), "first")
    room = scene.on_files(lambda: os.statvfs(DATA_DIR).f_bavail * 4096)
    scene.on_files(lambda: BALLAST.write_bytes(bytes(max(0, room - 16 * 4096))))
    came: list[Attached] = []
    last = ""
    for number in range(64):
        pod = make_pod()
        answer = scene.call("ADD", conf, pod, f"c{number}", args=f"K8S_POD_NAME={'x' * 200}")
        if answer.code:
            assert_clear(answer)
            assert scene.links(pod) == {"lo"}
            last = f"c{number}"
            break
        came.append(Attached(pod, f"c{number}", "eth0", conf, answer.json))
    assert last, "the disk never filled up"
    make_room(scene)
    assert all(scene.check(attached).code == 0 for attached in came)
    for attached in came:
        scene.delete(attached)
    for container_id in ("first", last):
        assert scene.call("DEL", conf, "", container_id).code == 0
    assert scene.leftovers(*(a.pod for a in came)) == []
