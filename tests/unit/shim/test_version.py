"""VERSION is answered by the shim itself, and as Python answers it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni_plugin.handle import handle
from cni_plugin.host import Host
from cni_plugin.versions import SUPPORTED
from tests.unit.shim.conftest import run


def assert_same(shim: Path, folder: Path, stdin: bytes) -> None:
    """Both answers to VERSION; no daemon is there, and the socket's path would be refused."""
    done = run(shim, "relative", stdin, CNI_COMMAND="VERSION")
    expected = handle({"CNI_COMMAND": "VERSION"}, stdin, Host(data_dir=folder))
    assert (done.returncode, done.stdout) == (expected.status, expected.stdout), stdin


@pytest.mark.parametrize("version", [*SUPPORTED, "1.2.0", "1.0", "", 1, None, ["1.0.0"], {}])
def test_every_version(shim: Path, tmp_path: Path, version: object) -> None:
    for conf in (
        {"cniVersion": version},
        {"name": "n", "list": [{"cniVersion": "0.2.0"}], "CNIVERSION": version, "x": "}"},
        {"cniversion": "0.3.0", "cniVersion": version, "CniVersion": "0.3.1"},
    ):
        assert_same(shim, tmp_path, json.dumps(conf, indent=1).encode())
        assert_same(shim, tmp_path, json.dumps(conf, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    "stdin",
    [
        *(b"", b" \n", b"{}", b"[]", b"x", b"{", b"}", b'"cniVersion": "1.0.0"', b"{} x"),
        *(b'{"cniVersion": "0.4.0"', b'{"cniVersion": "0.4.0', b'{"cniVersion', b'{"cniVersion"'),
        *(b'{"cniVersion":', b'{"cniVersion": "0.4.0"}}', b'["cniVersion", "0.4.0"]'),
        b'\xef\xbb\xbf{"cniVersion": "0.4.0"}',
        b'{"a": "\\"cniVersion\\": \\"0.2.0\\"", "cniVersion": "0.4.0", "b": "\\\\"}',
        b'{"a": {"cniVersion": "0.2.0"}, "cniVersionX": "0.2.0", "cniVersio": "0.2.0"}',
        b'{"cniVersion": "0.2.0", "cniVersion": "0.3.0"}',
        b'\n\t{ "cniVersion"\r\n:\t"0.4.0" }\n',
        b'{"cniVersion": "0.4.0", "x": "' + b"x" * (4 << 20) + b'"}',
    ],
)
def test_whatever_is_on_stdin(shim: Path, tmp_path: Path, stdin: bytes) -> None:
    assert_same(shim, tmp_path, stdin)


keys = st.sampled_from(["cniVersion", "CNIVersion", "name", "a b"]) | st.text(max_size=5)
leaves = st.sampled_from(SUPPORTED) | st.text(max_size=5) | st.integers() | st.none()
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v))


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(conf=st.dictionaries(keys, values, max_size=4), ascii=st.booleans())
def test_any_object(shim: Path, tmp_path: Path, conf: dict[str, object], ascii: bool) -> None:
    assert_same(shim, tmp_path, json.dumps(conf, ensure_ascii=ascii).encode())
