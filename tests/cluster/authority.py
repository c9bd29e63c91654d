"""A certificate authority for one run: keys and certificates made by openssl, thrown away."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

NAMES = ("localhost", "kubernetes", "kubernetes.default.svc")
ADDRESSES = ("127.0.0.1", "192.0.2.1", "2001:db8:ffff::1", "10.96.0.1", "fd00:10:96::1")
"""Where an API of the tests may be reached: on loopback, on the underlay, as a service."""
_DAYS = "2"


@dataclass(frozen=True, slots=True)
class Authority:
    """Files of the authority and of one server; `signer` signs tokens of service accounts."""

    ca: Path
    certificate: Path
    key: Path
    signer: Path


def make_authority(folder: Path) -> Authority:
    """Make an authority and a server's certificate in a folder."""
    made = Authority(*(folder / name for name in ("ca.crt", "api.crt", "api.key", "signer.key")))
    ca_key, request, extensions = (folder / name for name in ("ca.key", "api.csr", "api.ext"))
    subject = ",".join([f"DNS:{n}" for n in NAMES] + [f"IP:{a}" for a in ADDRESSES])
    extensions.write_text(f"subjectAltName={subject}\nextendedKeyUsage=serverAuth\n")
    for key in (ca_key, made.key, made.signer):
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        key.chmod(0o600)
    _openssl(
        "req", "-x509", "-new", "-key", ca_key, "-out", made.ca, "-days", _DAYS,
        "-subj", "/CN=podwire tests",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )  # fmt: skip
    _openssl("req", "-new", "-key", made.key, "-out", request, "-subj", "/CN=kube-apiserver")
    _openssl(
        "x509", "-req", "-in", request, "-CA", made.ca, "-CAkey", ca_key, "-CAcreateserial",
        "-out", made.certificate, "-days", _DAYS, "-extfile", extensions,
    )  # fmt: skip
    return made


def _openssl(*words: str | Path) -> None:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"openssl {words[0]}: {done.stderr}"
