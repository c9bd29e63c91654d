"""An IPAM plugin that hangs takes neither the daemon nor its end from anybody else."""

from pathlib import Path

from tests.netns.daemon.call import Call
from tests.netns.daemon.conftest import Daemon
from tests.netns.daemon.networks import CONF, MakePod
from tests.netns.daemon.test_stop import eventually
from tests.pytest_netns.node import Node

CALLS = 145
HUNG = """\
#!/bin/sh
echo $$ >>"${0%/*}/started"
exec sleep 1000
"""


def started(folder: Path) -> list[str]:
    """The process IDs of the plugins that were executed."""
    noted = folder / "started"
    return noted.read_text().split() if noted.exists() else []


def test_it_holds_up_nobody_else(
    daemon: Daemon, node: Node, make_pod: MakePod, podwire_bin: Path, tmp_path: Path
) -> None:
    (tmp_path / "podwire").symlink_to((podwire_bin / "podwire").resolve())
    (tmp_path / "hung").write_text(HUNG)
    (tmp_path / "hung").chmod(0o755)
    conf, program, pod = {**CONF, "ipam": {"type": "hung"}}, tmp_path / "podwire", make_pod()
    calls = [
        Call(daemon, program, "ADD", conf, container_id=f"hung{n}", netns=pod.path)
        for n in range(CALLS)
    ]
    eventually(lambda: daemon.log.count("ADD failed") + len(started(tmp_path)) == CALLS)
    refused, processes = daemon.log.count("ADD failed"), len(daemon.processes)
    assert refused >= CALLS - 24 * processes
    assert 0 < daemon.log.count("further ones are refused") <= processes
    other, keys = make_pod(), {"container_id": "other"}
    assert daemon.cni("STATUS", program, CONF).code == 0
    for verb in ("ADD", "DEL"):
        assert daemon.cni(verb, program, CONF, netns=other.path, **keys).code == 0

    status, log = daemon.stop()
    assert (status, "calls in flight" in log) == (0, False)
    replies = [call.result() for call in calls]
    words = [reply.json["msg"] for reply in replies]
    assert sum("24 of them for hung" in text for text in words) == refused
    assert sum("it was ended by signal 9 (SIGKILL)" in text for text in words) == CALLS - refused
    assert not [pid for pid in started(tmp_path) if Path(f"/proc/{pid}").exists()]
