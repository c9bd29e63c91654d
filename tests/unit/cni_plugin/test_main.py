"""The executables around `handle`: standard input, standard output and exit status."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import pytest

from cni_plugin.chained import STAND_INS
from cni_plugin.errors import DECODING_FAILURE, INVALID_ENVIRONMENT, IO_FAILURE
from cni_plugin.versions import REFERENCE, SUPPORTED
from tests import ROOT
from tests.unit.cni_plugin.calls import CONFIG, encode, environment

PODWIRE = "from cni_plugin.__main__ import main; import sys; sys.exit(main())"
CLOSE_STDIN = (
    "import os, sys; os.close(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
IPAM = "from cni_plugin.__main__ import ipam_main; import sys; sys.exit(ipam_main())"


def run(
    code: str,
    *args: str,
    env: Mapping[str, str],
    stdin: bytes | IO[Any] | int = b"",
    data_dir: Path = Path("/nonexistent"),
    closed: bool = False,
) -> "subprocess.CompletedProcess[bytes]":
    """One run of an executable's entry point. closed: it finds no standard input."""
    given: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    wrapper = ["-c", CLOSE_STDIN] if closed else []
    return subprocess.run(
        [sys.executable, *wrapper, "-c", code, *args],
        env={
            "PYTHONPATH": str(ROOT),
            "PODWIRE_DATA_DIR": str(data_dir),
            "PODWIRE_STORES": str(data_dir.with_name("stores")),
            **env,
        },
        capture_output=True,
        check=False,
        timeout=60,
        **given,
    )


def error_of(done: "subprocess.CompletedProcess[bytes]") -> dict[str, Any]:
    assert done.returncode == 1, done
    assert b"Traceback" not in done.stdout + done.stderr
    body = json.loads(done.stdout)
    assert isinstance(body, dict)
    assert {"cniVersion", "code", "msg"} <= set(body)
    return body


def test_an_answer_is_all_that_is_on_standard_output(tmp_path: Path) -> None:
    done = run(IPAM, env=environment(), stdin=encode(CONFIG), data_dir=tmp_path / "data")
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["ips"] == [{"address": "10.88.0.2/24", "gateway": "10.88.0.1"}]
    assert (tmp_path / "data" / "podwire.db").exists()
    again = error_of(run(IPAM, env=environment(), stdin=encode(CONFIG), data_dir=tmp_path / "data"))
    assert "10.88.0.2" in again["msg"]


@pytest.mark.parametrize("code", [PODWIRE, IPAM])
def test_wrong_input(code: str) -> None:
    body = error_of(run(code, env=environment(), stdin=b"\xff"))
    assert body["code"] == DECODING_FAILURE


def test_standard_input_that_is_closed() -> None:
    assert error_of(run(PODWIRE, env=environment(), closed=True))["code"] == IO_FAILURE


def test_standard_input_that_cannot_be_read(tmp_path: Path) -> None:
    with open(tmp_path / "write-only", "wb") as file:
        body = error_of(run(PODWIRE, env=environment(), stdin=file))
    assert body["code"] == IO_FAILURE
    assert "stdin" in body["msg"]


def test_endless_standard_input() -> None:
    with open("/dev/zero", "rb") as zeros:
        body = error_of(run(PODWIRE, env=environment(), stdin=zeros))
    assert body["code"] == DECODING_FAILURE
    assert "larger" in body["msg"]


@pytest.mark.parametrize("args", [["--version"], ["--help"]])
def test_questions_of_a_person(args: list[str]) -> None:
    done = run(PODWIRE, *args, env={})
    assert done.returncode == 0
    assert done.stdout.startswith(b"podwire ")
    assert b"1.1.0" in done.stdout


def test_a_runtime_that_says_no_verb() -> None:
    body = error_of(run(PODWIRE, env={}, stdin=encode(CONFIG)))
    assert body["code"] == INVALID_ENVIRONMENT
    assert "CNI_COMMAND" in body["msg"]


@pytest.mark.parametrize("env", [{}, {"CNI_COMMAND": ""}])
@pytest.mark.parametrize("name", sorted(STAND_INS))
def test_a_stand_in_without_a_verb_says_what_it_is(name: str, env: dict[str, str]) -> None:
    """As the reference's (containernetworking/cni, pkg/skel): nerdctl reads the version."""
    done = run(f"import sys; sys.argv[0] = '/opt/cni/bin/{name}'; {PODWIRE}", env=env)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode().splitlines() == [
        f"CNI {name} plugin v{REFERENCE}",
        f"CNI protocol versions supported: {', '.join(SUPPORTED)}",
    ]


def test_the_version_of_the_reference_is_the_one_that_tests_compare_with() -> None:
    assert f"plugins  v{REFERENCE} " in (ROOT / "tests/tools/go-tools.versions").read_text()


@pytest.mark.parametrize("args", [["--no-such-option"], ["ADD"]])
def test_a_person_who_asks_something_else_gets_help(args: list[str]) -> None:
    done = run(PODWIRE, *args, env={})
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"CNI_COMMAND" in done.stderr


def test_the_ipam_executable_is_a_command_too(tmp_path: Path) -> None:
    done = run(IPAM, "--help", env={})
    assert done.returncode == 0
    assert b"import-host-local" in done.stdout
