"""A node's own chain, as it is kept: no token for two contents, and the secret for nobody else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from daemon.sources.kubernetes.chain import parse_token, steps
from daemon.sources.kubernetes.succession import Succession
from tests.cluster.follower import Notes

LENGTH = 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "succession.json"


def opened(path: Path, log: Notes | None = None, node: str = "a") -> Succession:
    return Succession(path, node, log or Notes(), length=LENGTH)


def distance(old: str, new: str) -> int | None:
    first, second = parse_token(old), parse_token(new)
    assert first is not None
    assert second is not None
    return steps(first, second, LENGTH)


def test_the_same_content_keeps_its_token(path: Path) -> None:
    one = opened(path)
    first = one.token("x")
    assert not one.is_as_left
    assert one.token("x") == first
    again = opened(path)
    assert again.token("x") == first
    assert again.is_as_left
    second = again.token("y")
    assert (distance(first, second), again.is_as_left) == (1, False)
    assert distance(first, again.token("x")) == 2
    assert distance(second, again.renew("x")) == 2


def test_what_is_given_out_was_written_before(path: Path) -> None:
    one = opened(path)
    for number in range(5):
        token = one.token(str(number))
        assert opened(path).token(str(number)) == token
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_chain_that_is_used_up_is_followed_by_another(path: Path) -> None:
    one = opened(path)
    tokens = [one.token(str(number)) for number in range(LENGTH + 2)]
    for number in range(1, LENGTH):
        assert distance(tokens[number - 1], tokens[number]) == 1
    assert all(distance(token, tokens[LENGTH]) is None for token in tokens[:LENGTH])
    assert distance(tokens[LENGTH], tokens[LENGTH + 1]) == 1


BAD: dict[str, Any] = {
    "nothing": "",
    "no JSON": "{",
    "another type": "[]",
    "deep": "[" * 3000,
    "large": "[" + " " * 5000 + "]",
    "another format": {"format": 2},
    "another node": {"node": "b"},
    "a copy": {"host": "0" * 32},
    "a short seed": {"seed": "00"},
    "no seed": {"seed": "zz"},
    "seed of another type": {"seed": 5},
    "index beyond the end": {"index": LENGTH},
    "negative index": {"index": -1},
    "no index": {"index": True},
    "index of another type": {"index": "1"},
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_is_not_its_own_is_followed_by_another_chain(path: Path, what: str) -> None:
    log = Notes()
    first = opened(path).token("x")
    good, bad = json.loads(path.read_text()), BAD[what]
    path.write_text(bad if isinstance(bad, str) else json.dumps({**good, **bad}))
    one = opened(path, log)
    assert distance(first, one.token("x")) is None
    assert not one.is_as_left
    assert "this node begins another succession" in log.text
    assert good["seed"] not in log.text
    assert opened(path).token("x") == one.token("x")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_secret_that_others_could_read_is_none(path: Path, mode: int) -> None:
    log = Notes()
    first = opened(path).token("x")
    path.chmod(mode)
    assert distance(first, opened(path, log).token("x")) is None
    assert "others than its owner could read" in log.text
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("what", ["folder", "link"])
def test_what_is_no_file_is_not_read(path: Path, what: str, tmp_path: Path) -> None:
    opened(tmp_path / "elsewhere").token("x")
    path.parent.mkdir()
    path.mkdir() if what == "folder" else path.symlink_to(tmp_path / "elsewhere")
    log = Notes()
    one = opened(path, log)
    assert one.token("x") == one.token("x")
    assert (one.token("x") != "") == (what == "link")
    assert "begins another succession" in log.text


def test_what_is_no_file_leaves_nothing_open(path: Path) -> None:
    path.mkdir(parents=True)
    one = opened(path)
    one.token("x")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        one.token(str(number))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_secret_of_another_user_is_none(path: Path) -> None:
    log = Notes()
    first = opened(path).token("x")
    os.chown(path, 12345, 12345)
    assert distance(first, opened(path, log).token("x")) is None
    assert "is another user's" in log.text
    assert path.stat().st_uid == os.geteuid()


def test_what_cannot_be_kept_is_not_given_out(path: Path) -> None:
    path.parent.write_text("in the way")
    log = Notes()
    one = opened(path, log)
    assert [one.token("x"), one.token("y"), one.renew("y")] == ["", "", ""]
    assert log.text.count("this node's succession") == 1
    path.parent.unlink()
    assert opened(path).token("y") == one.token("y") != ""


def test_a_token_that_could_not_be_kept_is_given_out_later_for_the_first_time(path: Path) -> None:
    one = opened(path)
    first = one.token("x")
    away = path.parent.rename(path.parent.with_name("away"))
    path.parent.write_text("in the way")
    assert [one.token("y"), one.renew("x"), one.token("x")] == ["", "", first]
    path.parent.unlink()
    away.rename(path.parent)
    assert distance(first, one.token("y")) == 1


def test_a_chain_of_which_others_know_more_is_abandoned(path: Path) -> None:
    one = opened(path)
    first = one.token("a")
    before = path.read_text()
    later = [one.token(str(number)) for number in range(LENGTH - 1)]
    path.write_text(before)
    back = opened(path)
    assert all(back.is_behind(token) for token in later)
    others = [first, "", "A" * 22, None, 5, opened(path.with_name("other")).token("x")]
    assert not any(back.is_behind(token) for token in others)
    assert not opened(path.with_name("none")).is_behind(first)
    back.abandon()
    assert not path.exists()
    assert not back.is_as_left
    assert distance(first, back.token("a")) is None
    assert opened(path).token("a") == back.token("a")


def test_the_secret_shows_nowhere(path: Path) -> None:
    one = opened(path)
    one.token("x")
    seed = json.loads(path.read_text())["seed"]
    shown = repr(one) + repr(one._chain) + str(vars(one)["_chain"])
    assert seed not in shown
    assert repr(bytes.fromhex(seed)) not in shown
