"""The command for people: what it prints, what it asks, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipam.cli import main
from ipam.store import open_store
from tests import ROOT
from tests.unit.ipam.helpers import ip, owner

LONG_ID = "3f1c9a" + "0" * 58


@pytest.fixture
def used(data_dir: Path) -> Path:
    """A store with three addresses, one of which is in two networks."""
    with open_store(data_dir) as store, store.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.2"))
        tx.put_attachment(owner(1), "{}")
        tx.reserve(owner(2), ip("10.0.0.3"))
        tx.reserve(owner(2, "other"), ip("10.0.0.3"))
        tx.reserve(type(owner(1))("podnet", LONG_ID, "eth0"), ip("fd00::5"))
    return data_dir


def held(data_dir: Path) -> list[tuple[str, str]]:
    with open_store(data_dir) as store, store.read() as tx:
        return [(a.owner.network, str(a.address)) for a in tx.allocations()]


def run(data_dir: Path, *words: str) -> int:
    return main(["--data-dir", str(data_dir), *words])


def test_list(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(used, "list") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["NETWORK", "ADDRESS", "CONTAINER", "INTERFACE", "AGE"],
        ["other", "10.0.0.3", "container2", "eth0", "0s"],
        ["podnet", "10.0.0.2", "container1", "eth0", "0s"],
        ["podnet", "10.0.0.3", "container2", "eth0", "0s"],
        ["podnet", "fd00::5", LONG_ID[:13], "eth0", "0s"],
    ]


def test_list_of_nothing(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_store(data_dir).close()
    assert run(data_dir, "list") == 0
    assert capsys.readouterr().out == "no address is allocated\n"
    assert run(data_dir, "list", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_folder_of_the_environment(
    used: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODWIRE_DATA_DIR", str(used))
    assert main(["list", "--network", "other"]) == 0
    assert "10.0.0.3" in capsys.readouterr().out


def test_json_for_programs(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(used, "-o", "json", "list", "--network", "podnet") == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["address"] for entry in entries] == ["10.0.0.2", "10.0.0.3", "fd00::5"]
    assert entries[2]["containerID"] == LONG_ID
    assert [entry["attached"] for entry in entries] == [True, False, False]
    assert set(entries[0]) == {
        "network", "address", "containerID", "ifname", "createdAt", "bootID", "attached",
    }  # fmt: skip


def test_show_an_address_and_a_container(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(used, "show", "10.0.0.2") == 0
    text = capsys.readouterr().out
    for part in ("10.0.0.2", "podnet", "container1", "eth0", "(0s)", "Attached:   yes"):
        assert part in text
    assert run(used, "show", "3f1c9a") == 0
    assert LONG_ID in capsys.readouterr().out
    assert run(used, "show", "container2", "-o", "json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_show_what_is_not_there(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("10.0.0.9", "nobody"):
        assert run(used, "show", what) == 3
        assert what in capsys.readouterr().err


def test_release_with_yes(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(used, "release", "10.0.0.2", "--yes") == 0
    text = capsys.readouterr().out
    assert "container1" in text
    assert "Attached:   yes" in text
    assert text.endswith("released 10.0.0.2\n")
    assert ("podnet", "10.0.0.2") not in held(used)


def test_release_needs_the_network_where_it_matters(
    used: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(used, "release", "10.0.0.3", "--yes") == 4
    assert "other, podnet" in capsys.readouterr().err
    assert run(used, "release", "10.0.0.3", "--yes", "--network", "other") == 0
    assert ("podnet", "10.0.0.3") in held(used)
    assert ("other", "10.0.0.3") not in held(used)
    assert run(used, "release", "10.0.0.3", "--yes", "--network", "other") == 3
    assert "not allocated in network other" in capsys.readouterr().err


def test_release_takes_the_reservation_along(
    used: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next pod that was to get the address would find it, and the container would have it
    again."""
    for network, container in (("former", "container1"), ("another", "container9")):
        (used / network).mkdir()
        for address in ("10.0.0.2", "10.0.0.8"):
            (used / network / address).write_text(f"{container}\r\neth0")
    assert run(used, "release", "10.0.0.2", "--yes") == 0
    assert f"reservation {used}/former/10.0.0.2\n" in capsys.readouterr().out
    left = sorted(str(file.relative_to(used)) for file in used.glob("*/*"))
    assert left == ["another/10.0.0.2", "another/10.0.0.8", "former/10.0.0.8"]


COMMAND = [
    sys.executable,
    "-c",
    "import sys; from ipam.cli import main; sys.exit(main(sys.argv[1:]))",
]


def test_release_without_a_terminal_refuses(used: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--data-dir", used, "release", "10.0.0.2"],
        cwd=ROOT, input="y\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "--yes" in done.stderr
    assert ("podnet", "10.0.0.2") in held(used)


@pytest.mark.parametrize(
    ("answer", "code"), [("y\n", 0), ("yes\n", 0), ("\n", 4), ("no\n", 4), ("\x04", 4), ("\x03", 4)]
)
def test_release_asks_on_a_terminal(used: Path, answer: str, code: int) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a run in the background ignores it
        os.execv(COMMAND[0], [*COMMAND, "--data-dir", str(used), "release", "10.0.0.2"])
    seen = b""
    while b"[y/N]" not in seen:
        seen += os.read(terminal, 4096)
    done = 0
    while not done:
        # Python misses a Ctrl-C between its prompt and its read; people press it again, too.
        os.write(terminal, answer.encode())
        time.sleep(0.1)
        done, status = os.waitpid(child, os.WNOHANG)
    os.close(terminal)
    assert b"will clash" in seen
    assert os.waitstatus_to_exitcode(status) == code
    assert (("podnet", "10.0.0.2") in held(used)) == (code != 0)


def test_a_store_that_is_missing_or_damaged(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data_dir, "list") == 1
    assert "there is no podwire.db in" in capsys.readouterr().err
    data_dir.mkdir()
    (data_dir / "podwire.db").write_text("not a database")
    for words in (["list"], ["show", "10.0.0.2"], ["release", "10.0.0.2", "--yes"]):
        assert run(data_dir, *words) == 1
        error = capsys.readouterr().err
        assert "is damaged" in error
        assert "the CNI call rebuilds the database" in error
        assert "podwire.db.damaged-" in error
        assert "Traceback" not in error
    assert list(data_dir.glob("podwire.db.damaged-*")) == []
    assert (data_dir / "podwire.db").read_text() == "not a database"


def test_a_reboot_is_told(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(data_dir, boot_id="earlier") as store, store.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.2"))
    assert run(data_dir, "list") == 0
    captured = capsys.readouterr()
    assert "rebooted: freed 1 addresses and 0 records" in captured.err
    assert captured.out == "no address is allocated\n"


def test_import(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "podnet"
    folder.mkdir()
    (folder / "10.0.0.7").write_bytes(b"abc\r\neth0")
    (folder / "10.0.0.8").write_bytes(b"")
    assert run(data_dir, "import-host-local", str(folder)) == 0
    text = capsys.readouterr().out
    assert "network podnet: took over 1 addresses, 0 were known already, skipped 1 files" in text
    assert "10.0.0.8: empty" in text
    assert run(data_dir, "import-host-local", str(folder), "-o", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["taken"], told["known"]) == ([], ["10.0.0.7"])
    (folder / "10.0.0.7").write_bytes(b"xyz\r\neth0")
    assert run(data_dir, "import-host-local", str(folder)) == 1
    assert "10.0.0.7" in capsys.readouterr().err
    assert held(data_dir) == [("podnet", "10.0.0.7")]


def test_export(tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "podnet"
    folder.mkdir()
    (folder / "10.0.0.7").write_bytes(b"abc\r\neth0")
    assert run(data_dir, "import-host-local", str(folder)) == 0
    (folder / "10.0.0.7").unlink()
    capsys.readouterr()
    assert run(data_dir, "export-host-local", str(folder)) == 0
    assert capsys.readouterr().out == "wrote 1 reservations, 0 were there already\n"
    assert run(data_dir, "export-host-local", str(folder), "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"written": 0, "known": 1}
    assert (folder / "10.0.0.7").read_bytes() == b"abc\r\neth0"


@pytest.mark.parametrize("words", [[], ["release"], ["release", "x"], ["nonsense"], ["-o", "xml"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: podwire-ipam" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for part in ("examples:", "podwire-ipam list -o json", "exit codes:", "/var/lib/podwire"):
        assert part in text


def test_a_reader_that_goes_away_is_no_traceback(used: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "--data-dir", used, "list"],
        cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
