"""resolv.conf files, read as host-local reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipam.config import parse_ipam
from ipam.dns import Dns, parse_resolv_conf
from ipam.errors import IpamError

RESOLV_CONF = """\
# comment
; another
nameserver 10.0.0.53 trailing
  nameserver\tfd00::53
domain example.net
search a.example.net b.example.net
search c.example.net
options ndots:5 edns0
nameserver
sortlist 10.0.0.0
"""


def test_keywords_add_up() -> None:
    assert parse_resolv_conf(RESOLV_CONF) == Dns(
        nameservers=("10.0.0.53", "fd00::53"),
        domain="example.net",
        search=("a.example.net", "b.example.net", "c.example.net"),
        options=("ndots:5", "edns0"),
    )


def parse_with(resolv_conf: Path) -> Dns | None:
    ipam = {"subnet": "10.0.0.0/24", "resolvConf": str(resolv_conf), "dns": {"domain": "not.me"}}
    return parse_ipam("podnet", ipam, default_data_dir=Path("/x")).dns


def test_the_file_wins_over_the_dns_object(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(b"domain \xffexample.net\n")
    assert parse_with(path) == Dns(domain="\ufffdexample.net")


@pytest.mark.parametrize("kind", ["missing", "folder", "huge"])
def test_a_file_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "resolv.conf"
    if kind == "folder":
        path.mkdir()
    if kind == "huge":
        path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(IpamError) as caught:
        parse_with(path)
    assert caught.value.code == 5
    assert str(path) in str(caught.value)
