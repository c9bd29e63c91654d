"""The file with the connections to peers."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from daemon.probes.peers_file import PeersFile, peers_file_of, read_peers
from daemon.probes.report import PeerHealth, Reason, State

NAMES = [field.name for field in fields(PeerHealth)]
PEER = PeerHealth("node-2", State.FAILED, Reason.MTU, "raise it", 5.0, None, 1400, 64, 3)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    file = PeersFile(status)
    file.write(lambda: [PEER])
    assert peers_file_of(status).stat().st_mode & 0o777 == 0o600
    found, age = read_peers(status)
    assert found == {"node-2": PEER}
    assert 0 <= age < 60
    file.write(list)  # not due yet
    assert read_peers(status)[0] == {"node-2": PEER}
    file.close()
    assert read_peers(status) == ({}, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[", "{}", "[1]", '{"fields": ["name"], "peers": []}', "[" * 5000),
        json.dumps({"fields": NAMES, "peers": [["n", "x"]]}),
        json.dumps({"fields": NAMES, "peers": [["n", "x", *[0] * 7]]}),
        json.dumps({"fields": NAMES, "peers": 7}),
    ],
)
def test_what_is_none(text: str, tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    peers_file_of(status).write_text(text)
    assert read_peers(status)[0] == {}
