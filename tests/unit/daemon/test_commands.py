"""The commands for people: what they print, for people and for programs, and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from daemon.__main__ import COMMANDS, main
from daemon.journal import Journal, Record
from daemon.status import NodeStatus, Refused, StatusFile
from tests import ROOT

NODES = """\
clusterCIDRs: [10.244.0.0/16]
nodes:
- name: node-1
  addresses: [192.0.2.1, "2001:db8::1"]
  podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]
- name: node-2
  addresses: [192.0.2.2]
  podCIDRs: [10.244.2.0/24]
"""
GOOD = NodeStatus(
    "node-1", "vxlan", "static /etc/podwire/nodes.yaml",
    peers=2, wanted=6, in_sync=6, mtu=1450, prefixes=("10.244.1.0/24", "fd00:10:244:1::/64"),
)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A right configuration whose files are all in a folder of its own."""
    (tmp_path / "nodes.yaml").write_text(NODES)
    path = tmp_path / "podwired.yaml"
    path.write_text(
        f"node: node-1\nsource: {{static: {tmp_path}/nodes.yaml}}\n"
        f"dataDir: {tmp_path}/data\nsocket: {tmp_path}/run/podwire.sock\n"
    )
    return path


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command: exit status, output, what it says beside it."""

    def call(*words: object) -> tuple[int, str, str]:
        try:
            status = main([str(word) for word in words])
        except SystemExit as end:
            status = int(str(end.code))
        out, err = capsys.readouterr()
        return status, out, err

    return call


# -- all of them


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    status, out, _err = run(command, "--help")
    assert status == 0
    assert out.startswith(f"usage: podwired {command}")
    assert "exit codes:" in out or "signals:" in out
    assert len(max(out.splitlines(), key=len)) <= 100


def test_the_first_help_names_every_command(run: Run) -> None:
    status, out, _err = run("--help")
    assert status == 0
    assert all(f"    {command}" in out for command in COMMANDS)
    assert run()[0] == run("frob")[0] == 2


LOADED = """
import sys
sys.argv = ["podwired", *sys.argv[1:]]
from daemon.__main__ import main
try:
    main()
finally:
    print("\\n".join(sys.modules), file=sys.stderr)
"""


def loaded(*words: object, env: Mapping[str, str] | None = None) -> set[str]:
    """Modules that a command loads in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *map(str, words)],
        cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return set(done.stderr.split())


def test_a_command_loads_what_it_needs(tmp_path: Path) -> None:
    journal, status = tmp_path / "journal.jsonl", tmp_path / "status.json"
    heavy = {
        "pydantic",
        "filelock",
        "pyroute2",
        "yaml",
        "asyncio",
        "subprocess",
        "daemon.cni_server.server",
    }
    assert loaded("history", "--file", journal) & (heavy | {"daemon.status"}) == set()
    assert loaded("status", "--file", status) & (heavy | {"daemon.journal"}) == set()
    assert loaded("--help") & (heavy | {"daemon.journal", "daemon.status"}) == set()
    modules = loaded("check-config", tmp_path / "none.yaml")
    assert "yaml" in modules
    unused = {
        "pyroute2",
        "filelock",
        "asyncio",
        "daemon.cni_server.server",
        "daemon.journal",
    }
    assert modules & unused == set()


def test_a_configuration_is_what_pydantic_is_loaded_for(config: Path) -> None:
    assert "pydantic" in loaded("check-config", config)
    assert "pydantic" not in loaded("serve", "--help") | loaded("run", "--help")


# -- check-config


def test_a_right_configuration_is_summed_up(run: Run, config: Path, tmp_path: Path) -> None:
    status, out, err = run("check-config", config)
    assert (status, err) == (0, "")
    assert f"{config} is right" in out
    assert f"{tmp_path}/nodes.yaml is right: 2 nodes" in out
    assert "node-1, pod CIDRs 10.244.1.0/24, fd00:10:244:1::/64" in out
    assert "vxlan, VNI 1, UDP port 8472, device podwire-vxlan" in out
    assert "!" not in out


def test_a_node_that_the_list_lacks_is_pointed_at(run: Run, config: Path) -> None:
    config.write_text(config.read_text().replace("node-1", "node-9"))
    status, out, _err = run("check-config", config)
    assert status == 1
    assert "node-9, this node, is not in the list" in out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("10.244.2.0/24", "10.244.1.128/25", "its pod CIDR 10.244.1.128/25 overlaps 10.244.1.0/24"),
        ("[192.0.2.2]", "[192.0.2.1]", "node-2: its address 192.0.2.1 is that of node-1 too"),
        ("[192.0.2.2]", '["2001:db8::2"]', "10.244.2.0/24 is not reached: no IPv4 address"),
        ('[10.244.1.0/24, "fd00:10:244:1::/64"]', "[]", "node-1, this node, has no pod CIDR"),
    ],
)
def test_what_the_plan_would_refuse_is_said_before(
    run: Run, config: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    (tmp_path / "nodes.yaml").write_text(NODES.replace(old, new))
    status, out, err = run("check-config", config)
    assert (status, err) == (1, "")
    assert [line for line in out.splitlines() if line.startswith("!")] == [
        line for line in out.splitlines() if said in line
    ]
    assert said in out
    assert "nodes.yaml can be read: 2 nodes" in out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("node-1", "Node_1", "podwired.yaml:1: node is 'Node_1'"),
        ("dataDir", "datadir", "podwired.yaml:3: datadir: unknown key; did you mean dataDir?"),
        ("nodes.yaml", "gone.yaml", "gone.yaml: could not be read: No such file or directory"),
    ],
)
def test_what_is_wrong_in_the_configuration_is_named(
    run: Run, config: Path, old: str, new: str, said: str
) -> None:
    config.write_text(config.read_text().replace(old, new))
    status, out, err = run("check-config", config)
    assert (status, out) == (1, "")
    assert said in err


def test_what_is_wrong_in_the_list_is_named(run: Run, config: Path, tmp_path: Path) -> None:
    (tmp_path / "nodes.yaml").write_text(NODES.replace("10.244.2.0/24", "10.244.2.0/33"))
    status, out, err = run("check-config", config)
    assert (status, out) == (1, "")
    assert "nodes.yaml:8: nodes[1].podCIDRs[0] is '10.244.2.0/33', must be a prefix" in err


def test_a_configuration_that_is_not_there(run: Run, tmp_path: Path) -> None:
    status, _out, err = run("check-config", tmp_path / "none.yaml")
    assert status == 1
    assert f"{tmp_path}/none.yaml: could not be read" in err


# -- history


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "journal.jsonl"
    now = time.time()
    records = [
        Record(1_605_952_800.0, "added", "route 10.244.2.0/24", "node-2 joined", "", "via X"),
        Record(now - 3000, "restored", "route 10.244.2.0/24", "pid 7 (ip)", "via X", "via X"),
        Record(now - 3, "changed", "link podwire-vxlan", "MTU", "mtu 1450", "mtu 1430"),
    ]
    with closing(Journal(path, 1 << 20)) as writer:
        writer.write(records)
    return path


def test_history_is_a_table(run: Run, config: Path, journal: Path) -> None:
    status, out, err = run("history", "--config", config)
    assert (status, err) == (0, "")
    header, *rows = out.splitlines()
    assert header.split() == ["TIME", "ACTION", "OBJECT", "CAUSE", "CHANGE"]
    assert len(rows) == 3
    assert rows[0].startswith("2020-11-21T10:00:00.000Z  added ")
    assert rows[0].endswith("  node-2 joined  via X")
    assert rows[1].endswith("  pid 7 (ip)     via X")
    assert rows[2].endswith("  MTU            mtu 1450 -> mtu 1430")


def test_what_is_gone_is_said_so(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with closing(Journal(path, 1 << 20)) as writer:
        writer.write([Record(1.0, "removed", "route R", "", "via X"), Record(2.0, "found", "o")])
    _status, out, _err = run("history", "--file", path)
    assert [row.split()[3:] for row in out.splitlines()[1:]] == [["R", "-", "was", "via", "X"],
                                                                ["-", "-"]]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ([], 3),
        (["--since", "10m"], 1),
        (["--since", "2h"], 2),
        (["--since", "2020-11-21T10:00"], 3),
        (["--since", "2020-11-21T10:00:01Z"], 2),
        (["--since", "2020-11-21T12:00:01+02:00"], 2),
        (["--object", "10.244.2"], 2),
        (["--object", "VXLAN", "--since", "1m"], 1),
        (["--object", "10.244.9"], 0),
    ],
)
def test_history_for_programs(run: Run, journal: Path, words: list[str], count: int) -> None:
    status, out, _err = run("history", "--file", journal, "-o", "json", *words)
    assert status == 0
    records = json.loads(out)
    assert len(records) == count
    for record in records:
        assert set(record) == {"time", "action", "object", "cause", "before", "after"}


@pytest.mark.parametrize("text", ["", "x", "10", "5w", "-5m", "2026-13-01", "9" * 12 + "s", "٣m"])
def test_a_time_that_is_none(run: Run, journal: Path, text: str) -> None:
    status, _out, err = run("history", "--file", journal, f"--since={text}")
    assert status == 2
    assert "10m" in err


def test_nothing_found_is_said_beside_the_output(run: Run, journal: Path, tmp_path: Path) -> None:
    status, out, err = run("history", "--file", journal, "--object", "nothing")
    assert (status, out) == (0, "")
    assert f"no such change in {journal}" in err
    status, out, err = run("history", "--file", tmp_path / "none")
    assert (status, out) == (0, "")
    assert "there is no journal" in err


def test_a_journal_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    status, _out, err = run("history", "--file", tmp_path)
    assert status == 1
    assert str(tmp_path) in err


def test_a_terminal_obeys_nothing_of_it(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with closing(Journal(path, 1 << 20)) as writer:
        writer.write([Record(1.0, "found", "link \x1b[2Jx\n", "\udce4", "", "\u202e")])
    _status, out, _err = run("history", "--file", path)
    assert out.count("\n") == 2
    assert out.replace("\n", "").isprintable()
    assert "\\x1b[2Jx\\n" in out


def test_a_reader_that_goes_away_is_no_error(journal: Path) -> None:
    with closing(Journal(journal, 1 << 24)) as writer:
        writer.write([Record(1.0, "added", "x" * 100)] * 5000)
    argv = [sys.executable, "-m", "daemon", "history", "--file", str(journal), "-o", "json"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.wait()
    process.stderr.close()


# -- status


@pytest.fixture
def publish(tmp_path: Path) -> Callable[[NodeStatus], StatusFile]:
    def write(status: NodeStatus) -> StatusFile:
        file = StatusFile(tmp_path / "run" / "status.json")
        file.write(status)
        return file

    return write


def test_a_node_in_sync(
    run: Run, config: Path, publish: Callable[[NodeStatus], StatusFile]
) -> None:
    with closing(publish(GOOD)):
        status, out, err = run("status", "--config", config)
    assert (status, err) == (0, "")
    assert "node        node-1 is in sync\n" in out
    assert "back end    vxlan, pods' MTU 1450\n" in out
    assert "peers       2\n" in out
    assert "entries     6 of 6 as planned\n" in out
    assert f"ago by pid {os.getpid()}" in out
    assert "!" not in out


BAD = NodeStatus(
    "node-1", "vxlan", "static", peers=3, wanted=9, in_sync=7,
    refused=(Refused("node-3", "10.244.2.0/24", "node-2 has it"),),
    source_fault="nodes.yaml:8: broken", last_error="no buffer\x1b space", last_error_time=1.0,
)  # fmt: skip


def test_a_node_that_is_not_in_sync(
    run: Run, config: Path, publish: Callable[[NodeStatus], StatusFile]
) -> None:
    with closing(publish(BAD)):
        status, out, _err = run("status", "--config", config)
    assert status == 1
    assert "node-1 is NOT in sync" in out
    assert "!           2 of 9 entries are not as planned\n" in out
    assert "!           the last good state is in use: nodes.yaml:8: broken\n" in out
    assert "no buffer\\x1b space (" in out
    assert out.endswith("\nNODE    REFUSED        WHY\nnode-3  10.244.2.0/24  node-2 has it\n")


def test_status_for_programs(
    run: Run, config: Path, publish: Callable[[NodeStatus], StatusFile]
) -> None:
    with closing(publish(BAD)):
        status, out, _err = run("status", "--config", config, "-o", "json")
    assert status == 1
    said: dict[str, Any] = json.loads(out)
    assert (said["inSync"], said["running"], said["pid"]) == (False, True, os.getpid())
    assert (said["node"], said["backend"], said["peers"]) == ("node-1", "vxlan", 3)
    assert (said["wanted"], said["entriesInSync"]) == (9, 7)
    assert said["refused"] == [
        {"node": "node-3", "prefix": "10.244.2.0/24", "why": "node-2 has it"}
    ]
    assert said["sourceFault"] == "nodes.yaml:8: broken"
    assert len(said["troubles"]) == 3
    with closing(publish(GOOD)):
        status, out, _err = run("status", "--config", config, "-o", "json")
    assert status == 0
    assert json.loads(out)["inSync"] is True


def test_no_daemon_says_what_to_do(run: Run, config: Path) -> None:
    status, out, err = run("status", "--config", config)
    assert (status, out) == (2, "")
    assert "status.json" in err
    assert "podwired run" in err


def test_a_daemon_that_was_killed_is_not_in_sync(
    run: Run, config: Path, tmp_path: Path, publish: Callable[[NodeStatus], StatusFile]
) -> None:
    path = tmp_path / "run" / "status.json"
    with closing(publish(GOOD)):
        content = path.read_bytes()
    path.write_bytes(content)  # as kill -9 leaves it
    status, out, err = run("status", "--config", config)
    assert status == 2
    assert "NOT in sync" in out
    assert "podwired run" in err


@pytest.mark.parametrize("shift", [-3600.0, 3600.0])
def test_a_daemon_that_is_stuck_is_not_in_sync(
    run: Run,
    config: Path,
    tmp_path: Path,
    publish: Callable[[NodeStatus], StatusFile],
    shift: float,
) -> None:
    path = tmp_path / "run" / "status.json"
    with closing(publish(GOOD)):
        raw = json.loads(path.read_bytes())
        path.write_text(json.dumps({**raw, "uptime": raw["uptime"] + shift}))
        status, out, _err = run("status", "--config", config)
    assert status == 1
    assert "the daemon has not written for" in out


def test_a_broken_configuration_is_no_status(run: Run, config: Path) -> None:
    config.write_text("sauce: x\n")
    status, _out, err = run("status", "--config", config)
    assert status == 2
    assert "podwired.yaml:1: sauce: unknown key" in err
    status, _out, err = run("history", "--config", config)
    assert status == 1
    assert "podwired.yaml:1: sauce: unknown key" in err


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_the_version_is_the_plugins(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([word])
    assert ended.value.code in (0, None)
    plugin = subprocess.run(
        [sys.executable, "-m", "cni_plugin", "explain", "podwire", "--version"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert plugin.startswith("podwire ")
    assert capsys.readouterr().out == plugin.replace("podwire ", "podwired ", 1)
