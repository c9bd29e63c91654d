"""No secret survives, wherever it stands; what is none stays."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl.bundle.redact import MARK, redact

SECRET = st.text(f"{string.ascii_letters}{string.digits}+/=_.~-", min_size=12, max_size=60).map(
    lambda text: f"q{text}z"
)
PLACES = [
    "password: {}",
    "  token: '{}'",
    'etcd:\n  clientSecret: "{}"\nnext: 1',
    "api_key={}",
    "time=1 accessToken={} node=a",
    "Authorization: Bearer {}",
    "GET / authorization=basic {}",
    "endpoints: [https://root:{}@10.0.0.1:2379]",
    "client-key-data: {}",
    "password: q,{}]q{}",
    "password:\n  {}\nnext: 1",
    "privateKey: |\n  {}\n  {}\nother: 1",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN CERTIFICATE-----\n{}",
    "x eyJhbGciOiJSUzI1NiJ9.{} y",
]


@given(st.sampled_from(PLACES), SECRET, st.text(max_size=20))
@settings(max_examples=150)
def test_no_secret_survives(place: str, secret: str, before: str) -> None:
    if "://" in place:  # there it has no slash
        secret = secret.replace("/", "_")
    found = redact(f"{before}\n{place.format(secret, secret)}\n")
    assert secret not in found
    assert MARK in found


@given(SECRET)
@settings(max_examples=30)
def test_nor_in_json(secret: str) -> None:
    found = redact(json.dumps({"a": {"passwd": secret}, "b": [1]}, indent=1))
    assert secret not in found
    assert '"b"' in found


def test_a_long_blob_is_removed() -> None:
    assert redact(f"data {'Ab0/' * 40}== end") == f"data {MARK} end"


@pytest.mark.parametrize(
    "text",
    [
        "passwordFile: /etc/podwire/etcd-password",
        "tokenFile=/var/run/secrets/token",
        "10.244.1.0/24 via 10.244.1.0 dev podwire-vxlan proto 113 onlink",
        "link pw1a2b3c4d5e6 mac 0a:1b:2c:3d:4e:5f alias podwire net=podwire id=" + "c" * 64,
        "endpoints: [https://10.0.0.1:2379]",
        '{"container": "' + "0123456789abcdef" * 4 + '"}',
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_a_long_word_takes_no_long_time() -> None:
    text = "a" * (1 << 20) + "token" * 1000 + " " * 10_000
    assert len(redact(text)) > 0
