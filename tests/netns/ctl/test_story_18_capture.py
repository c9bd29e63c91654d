"""Story 18: packets are captured at the right links, at all of them at once, into one file."""

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from tests.netns.routing.conftest import Cluster, Member
from tests.pytest_netns import Namespace

pytestmark = pytest.mark.xdist_group("podwirectl capture")


@pytest.fixture(scope="module")
def pods(cluster: Cluster, podwire_bin: Path) -> list[Namespace]:
    """One on each node."""
    return [member.attach(podwire_bin / "podwire") for member in cluster.members]


def address(pod: Namespace) -> str:
    return str(pod.ip("-4 address show dev eth0")[0]["addr_info"][0]["local"])


def start(member: Member, *words: object, stdout: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    config = member.folder / "podwired.yaml"
    argv = [member.podwirectl, "capture", *words, "--config", config]
    return subprocess.Popen(
        [*member.node.enter, *map(str, argv)],
        stdout=stdout, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def read(file: Path, *words: str) -> list[str]:
    """The frames, by an independent reader."""
    argv = ["tcpdump", "-n", "-e", "-tt", "-r", str(file), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_ping_at_all_links(cluster: Cluster, pods: list[Namespace], tmp_path: Path) -> None:
    one, file = cluster.members[0], tmp_path / "c1.pcapng"
    here, there = map(address, pods)
    with start(one, "c1", "icmp", "-o", file) as running:
        assert running.stdout is not None
        shown = ""
        while "VXLAN" not in shown:
            pods[0].run(["ping", "-c", "2", "-i", "0.01", there])
            if select.select([running.stdout], [], [], 0)[0]:
                shown += running.stdout.readline()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert running.returncode == 0, err
    text = shown + out
    assert f"container c1 ({here}) > {there}: icmp echo request" in text
    assert f"node-1 ({one.addresses[0]}) > node-2 (" in text
    assert "VXLAN 1: container c1" in text
    frames = read(file)
    # The same packet at the pod, at the node's end, on the overlay device and on the uplink.
    assert any(".8472" in frame for frame in frames)
    assert sum("ICMP echo request" in frame for frame in frames) >= 3
    assert sum("ICMP echo reply" in frame for frame in frames) >= 3
    assert file.stat().st_mode & 0o777 == 0o600
    assert "frames in" in err


def test_into_a_pipe_and_bounded(cluster: Cluster, pods: list[Namespace], tmp_path: Path) -> None:
    one, file = cluster.members[0], tmp_path / "pipe.pcapng"
    with file.open("wb") as pipe:
        words = ["node", "host", address(pods[0]), "-o", "-", "--max-bytes", "4k", "--snap", "64"]
        with start(one, *words, stdout=pipe.fileno()) as running:
            while running.poll() is None:
                pods[0].run(["ping", "-c", "5", "-i", "0.01", address(pods[1])])
            assert running.stderr is not None
            err = running.stderr.read()
    assert running.returncode == 0, err
    assert "has reached its size" in err
    assert os.stat(file).st_size < 5000
    assert len(read(file)) > 3


def test_what_cannot_be_captured(cluster: Cluster, pods: list[Namespace]) -> None:
    for words, message in ((["c1", "prot", "5"], "'prot 5' is no filter"), (["x"], "is no pod")):
        with start(cluster.members[0], *words) as running:
            _, err = running.communicate(timeout=30)
        assert (running.returncode, message in err) == (1, True), err
