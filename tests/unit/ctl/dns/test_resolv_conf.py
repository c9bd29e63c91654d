"""resolv.conf as glibc takes it, and safely from a pod's root."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl.dns.resolv_conf import ResolvConf, parse, read_of

KUBERNETES = """\
# made by kubelet
search shop.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.96.0.10
options ndots:5 timeout:2
"""


def test_the_one_that_kubelet_makes() -> None:
    conf = parse(KUBERNETES)
    assert conf == ResolvConf(
        (ip_address("10.96.0.10"),),
        ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"),
        ndots=5,
        timeout=2,
    )
    outside = [f"www.example.com.{domain}" for domain in conf.search]
    assert conf.candidates("www.example.com") == [*outside, "www.example.com"]
    assert conf.candidates("www.example.com.") == ["www.example.com"]


def test_enough_dots_come_first() -> None:
    conf = parse("search a.b\noptions ndots:2")
    assert conf.candidates("x.y.z") == ["x.y.z", "x.y.z.a.b"]
    assert conf.candidates("x.y") == ["x.y.a.b", "x.y"]


def test_limits_and_what_says_nothing() -> None:
    text = "nameserver\nnameserver x\noptions ndots:99 timeout:-1 attempts:0 nonsense\n\nsearch .\n"
    conf = parse(text + "nameserver 10.0.0.1\n" * 5 + "options single-request-reopen")
    assert conf.servers == (ip_address("10.0.0.1"),) * 3
    assert (conf.ndots, conf.timeout, conf.attempts, conf.one_by_one) == (15, 5, 1, True)
    assert conf.search == ()


@given(st.text(max_size=200))
@settings(max_examples=50)
def test_any_text_has_settings(text: str) -> None:
    conf = parse(f"{text}\noptions {text}\nsearch {text}")
    assert len(conf.candidates("a")) >= 1


def test_a_process_is_read_by_its_root() -> None:
    found = read_of([os.getpid(), 1 << 30])
    path = Path("/etc/resolv.conf")
    assert found == ((path.read_text(), os.getpid()) if path.is_file() else None)


@pytest.mark.parametrize("kind", ["fifo", "folder", "nothing"])
def test_what_is_no_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "resolv.conf"
    if kind == "fifo":
        os.mkfifo(target)
    elif kind == "folder":
        target.mkdir()
    monkeypatch.setattr("ctl.dns.resolv_conf.PATH", str(target).lstrip("/"))
    assert read_of([os.getpid()]) is None
