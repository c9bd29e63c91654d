"""The last known state: what is written is read again, and whatever else is there is refused."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.log import Log
from daemon.model import Node
from daemon.sources.cache import LastKnown, Unreadable, load, open_cache, render

NODES = (
    Node("a", (ip_address("192.0.2.1"),), (ip_network("10.244.1.0/24"),)),
    Node("b", (ip_address("192.0.2.2"), ip_address("fd00::2")), ()),
)
KNOWN = LastKnown("here", NODES, (ip_network("10.244.0.0/16"),), "17", 1234.5)


def write(path: Path, known: LastKnown) -> Path:
    path.write_bytes(render(known))
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert load(write(tmp_path / "f", KNOWN), "here") == KNOWN


def test_no_file_is_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "f", "here") is None


def test_another_clusters_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="is of another source: here"):
        load(write(tmp_path / "f", KNOWN), "there")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 2}, "has format 2, not 1"),
        ({"nodes": [["a", ["192.0.2.1"]]]}, "is damaged"),
        ({"nodes": [["../a", ["192.0.2.1"], []]]}, "is damaged: must be a DNS subdomain"),
        ({"nodes": [["a", ["127.0.0.1"], []]]}, "is damaged: must be the address of one node"),
        ({"nodes": [["a", [], ["0.0.0.0/0"]]]}, "is damaged: must not overlap"),
        ({"nodes": [["a", [], []], ["a", [], []]]}, "is damaged: two nodes have one name"),
        ({"nodes": 5}, "is damaged"),
        ({"nodes": {"a": 1}}, "is damaged"),
        ({"clusterCIDRs": ["x"]}, "is damaged"),
        ({"saved": "x"}, "is damaged"),
        ({"saved": None}, "is damaged"),
    ],
)
def test_what_is_not_as_it_should_be_is_refused(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    content = {**json.loads(render(KNOWN)), **change}
    path = tmp_path / "f"
    path.write_text(json.dumps(content))
    with pytest.raises(Unreadable, match=why):
        load(path, "here")


@given(st.binary(max_size=200), st.integers(0, 400))
def test_damage_is_never_more_than_refused(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, place: int
) -> None:
    content = render(KNOWN)
    path = tmp_path_factory.mktemp("known") / "f"
    path.write_bytes(content[:place] + junk + content[place + len(junk) :])
    with suppress(Unreadable):
        known = load(path, "here")
        assert known is not None
        assert known.identity == "here"


@pytest.mark.parametrize("content", ["", "null", "[]", "[" * 100_000, "\ud800"])
def test_content_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(Unreadable, match="is damaged"):
        load(path, "here")


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="could not be read: it is no regular file"):
        load(tmp_path, "here")


def test_the_time_of_the_write_is_saved(tmp_path: Path) -> None:
    path, began = tmp_path / "f", time.time()
    cache = open_cache(path, Log())
    cache.update(KNOWN)
    cache.close()
    known = load(path, "here")
    assert known is not None
    assert replace(known, saved=KNOWN.saved) == KNOWN
    assert began - 1 < known.saved < time.time() + 1
