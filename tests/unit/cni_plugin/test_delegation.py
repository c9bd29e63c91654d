"""Delegated plugins that misbehave: they cost their own call, in bounded time, and nothing else."""

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from cni_plugin import delegation as delegate
from tests.unit.cni_plugin.calls import Node, config, environment, refused, succeeded

SECONDS = 30.0
CONF = config(ipam={"type": "other-ipam"})
ADDRESS = """echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.88.0.9/24"}]}'"""


def make_plugin(folder: Path, script: str) -> None:
    """An IPAM plugin that notes its verbs, and its process ID."""
    path, here = folder / "other-ipam", f"cd {folder}\n"
    path.write_text(
        f'#!/bin/bash\n{here}echo "$CNI_COMMAND" >>heard\necho $$ >>started\n{script}\n'
    )
    path.chmod(0o755)


def ask(node: Node, folder: Path, verb: str = "ADD") -> dict[str, Any]:
    """The error of a call."""
    return refused(node.call(environment(verb, CNI_PATH=str(folder)), CONF))


def heard(folder: Path) -> list[str]:
    return (folder / "heard").read_text().split()


def is_running(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for_end(pids: list[str]) -> None:
    until = time.monotonic() + SECONDS
    while any(map(is_running, pids)):
        assert time.monotonic() < until, "a plugin outlives its call"
        time.sleep(0.01)


def test_add_and_its_undo_have_one_deadline(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delegate, "ADD_SECONDS", 3.0)
    monkeypatch.setattr(delegate, "CALL_SECONDS", 6.0)
    make_plugin(tmp_path, "sleep 1000 & echo $! >>started; wait")
    answer = ask(node, tmp_path)
    assert answer["code"] == 11
    assert "IPAM plugin other-ipam did not answer ADD" in answer["msg"]
    assert heard(tmp_path) == ["ADD", "DEL"]
    assert any("did not answer DEL" in line for line in node.log)
    wait_for_end((tmp_path / "started").read_text().split())


def test_the_deadlines_are_below_what_the_shim_waits() -> None:
    shim = Path(delegate.__file__).with_name("shim") / "shim.c"
    found = re.search(r"^#define REPLY_SECONDS (\d+)$", shim.read_text(), re.MULTILINE)
    assert found is not None
    assert delegate.ADD_SECONDS + 10 < delegate.CALL_SECONDS < int(found[1])


def test_a_call_that_waited_for_too_long_executes_nothing(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delegate, "CALL_SECONDS", 0.0)
    make_plugin(tmp_path, ADDRESS)
    answer = ask(node, tmp_path, "DEL")
    assert answer["code"] == 11
    assert "no time was left to execute IPAM plugin other-ipam with DEL" in answer["msg"]
    assert not (tmp_path / "heard").exists()


def test_endless_output_is_an_error(node: Node, tmp_path: Path) -> None:
    make_plugin(tmp_path, "exec cat /dev/zero")
    answer = ask(node, tmp_path)
    assert answer["code"] == 104
    assert "IPAM plugin other-ipam wrote more than 1048576 bytes at ADD" in answer["msg"]
    wait_for_end((tmp_path / "started").read_text().split())


def test_much_on_stderr_is_cut_off(node: Node, tmp_path: Path) -> None:
    make_plugin(tmp_path, f"head -c 10000000 /dev/zero | tr '\\0' 'e' >&2; {ADDRESS}")
    result = succeeded(node.call(environment(CNI_PATH=str(tmp_path)), CONF))
    assert result["ips"][0]["address"] == "10.88.0.9/24"
    assert sum(map(len, node.log)) < 70_000
    assert sum(line.count("eeeee") for line in node.log) > 10_000


def test_many_lines_on_stderr_are_cut_off(node: Node, tmp_path: Path) -> None:
    make_plugin(tmp_path, f"seq 1000 >&2; echo $'\\e[31mred' >&2; {ADDRESS}")
    succeeded(node.call(environment(CNI_PATH=str(tmp_path)), CONF))
    told = [line for line in node.log if "other-ipam: " in line]
    assert len(told) == 101
    assert "901 more lines" in told[-1]
    assert all(line.isprintable() for line in told)


def test_stdin_that_is_not_read(node: Node, tmp_path: Path) -> None:
    make_plugin(tmp_path, ADDRESS)
    conf = {**CONF, "args": {"more": "x" * 1_000_000}}
    succeeded(node.call(environment(CNI_PATH=str(tmp_path)), conf))


def test_stdin_that_is_long(node: Node, tmp_path: Path) -> None:
    make_plugin(tmp_path, f"cat >stdin; {ADDRESS}")
    conf = {**CONF, "args": {"more": "x" * 1_000_000}}
    succeeded(node.call(environment(CNI_PATH=str(tmp_path)), conf))
    assert (tmp_path / "stdin").stat().st_size > 1_000_000


def test_who_keeps_the_pipe_is_not_waited_for(node: Node, tmp_path: Path) -> None:
    make_plugin(tmp_path, f"setsid sleep 1000 & echo $! >kept; {ADDRESS}")
    began = time.monotonic()
    try:
        succeeded(node.call(environment(CNI_PATH=str(tmp_path)), CONF))
    finally:
        os.kill(int((tmp_path / "kept").read_text()), 9)
    assert time.monotonic() - began < delegate.ADD_SECONDS


@pytest.mark.parametrize("words", ["hello", "", "[]", '{"ips": 5}', '{"cniVersion": "1.1.0"}'])
def test_an_answer_without_addresses(node: Node, tmp_path: Path, words: str) -> None:
    make_plugin(tmp_path, f"echo '{words}'")
    answer = ask(node, tmp_path)
    assert answer["code"] == 104
    assert "other-ipam" in answer["msg"]
    assert heard(tmp_path) == ["ADD", "DEL"]


def test_output_without_a_meaning_hinders_no_delete(node: Node, tmp_path: Path) -> None:
    make_plugin(tmp_path, "echo released")
    succeeded(node.call(environment("DEL", CNI_PATH=str(tmp_path)), CONF))
    assert heard(tmp_path) == ["DEL"]


@pytest.mark.parametrize(
    ("output", "code", "details"),
    [
        ("no such range", 104, "it wrote: no such range"),
        ('{"code": 120, "msg": "full"}', 120, ""),
        ('{"code": 120, "msg": "full", "details": "of 10.88.0.0/24"}', 120, "of 10.88.0.0/24"),
    ],
)
def test_a_failure_is_passed_on(
    node: Node, tmp_path: Path, output: str, code: int, details: str
) -> None:
    make_plugin(tmp_path, f"echo '{output}'; exit 1")
    answer = ask(node, tmp_path)
    assert (answer["code"], answer.get("details", "").strip()) == (code, details)


def test_a_signal_has_its_name(node: Node, tmp_path: Path) -> None:
    make_plugin(tmp_path, "kill -USR1 $$")
    answer = ask(node, tmp_path)
    assert answer["code"] == 104
    assert "it was ended by signal 10 (SIGUSR1)" in answer["msg"]


def test_a_plugin_leaves_no_descriptor(node: Node, tmp_path: Path) -> None:
    make_plugin(tmp_path, "exec cat /dev/zero")
    ask(node, tmp_path)
    before = sorted(os.listdir("/proc/self/fd"))
    ask(node, tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == before
