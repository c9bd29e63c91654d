"""What is read of a configuration that is wrong: places, whatever else the file holds."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from daemon.config.schema import MetricsSettings
from daemon.salvage import Places, salvage

SOCKET, DATA = Path("/run/podwire/podwire.sock"), Path("/var/lib/podwire")
HOST, METRICS = os.uname().nodename, MetricsSettings()
USUAL = Places(SOCKET, DATA, Path("/run/podwire/status.json"), "podwire", HOST, METRICS)
JSON = {"x": 1, "conflist": {"name": "pods"}, "socket": "/a/s", "statusFile": "/d/x.json"}


def read(folder: Path, text: str) -> Places:
    path = folder / "podwired.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    return salvage(path, SOCKET, DATA)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "source: {static\n",
        "#socket: /a/s\n  # dataDir: /b\n#statusFile: /c\n#  name: pods\n",
        "socket: relative\ndataDir:\nstatusFile: ''\nname: -x\n",
        "mysocket: /a\nnodename: x\n",
    ],
)
def test_what_it_does_not_say_is_as_usual(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == USUAL


@pytest.mark.parametrize(
    "text",
    [
        "\tsocket: /a/s\nstatusFile: '/d/x.json'  # mine\nconflist:\n  name: pods\n  {",
        'conflist: {name: pods, mode: x}\n{socket: /a/s, statusFile: "/d/x.json"}\nmtu: big\n',
        json.dumps(JSON),
        json.dumps(JSON, indent=2),
    ],
)
def test_what_it_says_counts_though_the_rest_is_wrong(tmp_path: Path, text: str) -> None:
    wanted = Places(Path("/a/s"), DATA, Path("/d/x.json"), "pods", HOST, METRICS)
    assert read(tmp_path, text) == wanted


def test_the_status_is_beside_the_socket(tmp_path: Path) -> None:
    found = read(tmp_path, "dataDir: /data\nsocket: /a/s\nx\n")
    wanted = replace(USUAL, socket=Path("/a/s"), data_dir=Path("/data"))
    assert found == replace(wanted, status_file=Path("/a/status.json"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("metrics: {listen: '[::1]:80'}\nsource: {", MetricsSettings("::1", 80)),
        ('{"x": 1, "metrics": {"listen": "192.0.2.1:9000"}', MetricsSettings("192.0.2.1", 9000)),
        ("metrics:\n  listen: 127.0.0.1:1 # mine\n\tx", MetricsSettings("127.0.0.1", 1)),
        ("metrics:\n  listen: anywhere\n", METRICS),
        ("metrics:\n  listen: 127.0.0.1:99999\n", METRICS),
        ("# metrics: false\n", METRICS),
        ("metrics: falsehood\n", METRICS),
        ("metrics: false\nsource: {", None),
        ('{"metrics": false, "x"', None),
    ],
)
def test_where_metrics_are_served(
    tmp_path: Path, text: str, wanted: MetricsSettings | None
) -> None:
    assert read(tmp_path, text) == replace(USUAL, metrics=wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("node: worker-1.example\nx", "worker-1.example"),
        ('{"node": "worker-1", x', "worker-1"),
        ("# node: a\nnodes: b\n", HOST),
        ("node: Not_A_Name\n", HOST),
        ("node:\n", HOST),
    ],
)
def test_whose_it_is(tmp_path: Path, text: str, wanted: str) -> None:
    assert read(tmp_path, text) == replace(USUAL, node=wanted)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert salvage(tmp_path / "none", SOCKET, DATA) == USUAL
    assert salvage(tmp_path, SOCKET, DATA) == USUAL


WORDS = st.sampled_from(
    [
        "socket",
        "metrics",
        "listen",
        "false",
        "node",
        "dataDir",
        "statusFile",
        "name",
        ": ",
        " /a",
        '"',
        "\n",
        "#",
        "\0",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(WORDS | st.text(max_size=8), max_size=20).map("".join))
@example(text="socket: /\n")
@example(text="socket: /..\n")
@example(text="socket: /a/\nstatusFile: //\n")
def test_whatever_there_is_makes_places(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)
    for path in (found.socket, found.data_dir, found.status_file):
        assert path.is_absolute()
        assert path.name
        assert "\0" not in str(path)
