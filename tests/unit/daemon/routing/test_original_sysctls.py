"""The file of settings' original values: what is no such file says nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.routing.original_sysctls import (
    Original,
    load_originals,
    note_originals,
    parse_originals,
    render_originals,
    restore_originals,
)
from kernel.model import Sysctl

_PATHS = st.sampled_from(
    ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/a.b-1/accept_ra"]
)
_VALUES = st.builds(Original, st.sampled_from("012"), st.sampled_from("12"))


@given(st.dictionaries(_PATHS, _VALUES))
@settings(max_examples=20)
def test_what_was_saved_is_read(saved: dict[str, Original]) -> None:
    data = render_originals(saved, "boot 1")
    assert parse_originals(data, "boot 1") == saved
    assert parse_originals(data, "boot 2") == {}


@pytest.mark.parametrize(
    "path",
    [
        "kernel/core_pattern",
        "net/ipv4/conf/../../forwarding",
        "net/ipv4/conf/../forwarding",
        "net/ipv4/conf/a/b/forwarding",
        "net/ipv4/conf/eth0/route_localnet",
        "net/ipv4/ip_forward\n",
        "/net/ipv4/ip_forward",
    ],
)
def test_no_other_file_is_written(path: str) -> None:
    data = json.dumps({"namespace": "n", "settings": {path: ["0", "1"]}})
    assert parse_originals(data.encode(), "n") == {}


@pytest.mark.parametrize("before", [0, None, "", "-", "1\n2", "9999", ["0"]])
def test_no_other_value_is_written(before: object) -> None:
    data = json.dumps({"namespace": "n", "settings": {"net/ipv4/ip_forward": [before, "1"]}})
    assert parse_originals(data.encode(), "n") == {}


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"namespace": "n", "settings": [1]}', b"[" * 100_000]
)
def test_a_damaged_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "sysctls.json"
    file.write_bytes(content)
    assert parse_originals(content, "n") == {}
    assert load_originals(file) == {}
    assert list(restore_originals(file)) == []
    assert not file.exists()


def test_what_changes_nothing_is_not_saved(tmp_path: Path) -> None:
    file = tmp_path / "sysctls.json"
    note_originals(file, [Sysctl("net/ipv4/conf/nowhere/forwarding", "1"), Sysctl("kernel/x", "1")])
    assert not file.exists()
