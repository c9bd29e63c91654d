"""The etcd of `make demo SOURCE=etcd`: a real one with TLS and users, on a host of its own."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cluster import (
    NAME,
    attach_uplink,
    enter,
    fail,
    make_namespace,
    quote,
    run,
    say,
    wait_until,
)

PROGRAMS = Path(__file__).resolve().parents[2] / "build/programs"
ADDRESS = "192.0.2.2"
ENDPOINT = f"https://{ADDRESS}:2379"
RANGES = ("10.244.0.0/16", "fd00:10:244::/48")
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@contextmanager
def _private_files() -> Iterator[None]:
    """What is made meanwhile is for root alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


class Etcd:
    """One member; its files are in a folder that goes with the demo."""

    def __init__(self, folder: Path) -> None:
        self.namespace = f"{NAME}-etcd"
        self._folder = folder
        self._password, self._root = secrets.token_hex(16), secrets.token_hex(16)

    def make(self, undo: ExitStack) -> None:
        """Start it, let in nobody but root and the daemons."""
        make_namespace(self.namespace, undo)
        attach_uplink(self.namespace, "etcd", ADDRESS)
        self._folder.mkdir()
        self._issue_certificates()
        self._start(undo)
        self._restrict()

    def source(self, addresses: tuple[str, ...]) -> dict[str, Any]:
        """`source` of a node's podwired.yaml."""
        settings = {
            "endpoints": [ENDPOINT],
            "clusterCIDRs": RANGES,
            "addresses": addresses,
            "caFile": str(self._folder / "ca.crt"),
            "certFile": str(self._folder / "client.crt"),
            "keyFile": str(self._folder / "client.key"),
            "username": "podwire",
            "passwordFile": str(self._folder / "password"),
        }
        return {"etcd": settings}

    def show(self) -> None:
        """What is in it."""
        say("   $ etcdctl get --prefix /podwire/v1/subnets/    (which node leased what)")
        lines = self._control("get", "--prefix", "/podwire/v1/subnets/").split()
        quote("\n".join(f"{k:<52}{v}" for k, v in zip(lines[::2], lines[1::2], strict=True)))

    def _issue_certificates(self) -> None:
        with _private_files():
            ca = ("-keyout", self._folder / "ca.key", "-out", self._folder / "ca.crt")
            run("openssl", "req", "-x509", *_KEY, *ca, "-subj", "/CN=podwire demo", "-days", "1")
            self._issue("server", f"subjectAltName=IP:{ADDRESS}\n")
            self._issue("client", "")
            (self._folder / "password").write_text(self._password)

    def _issue(self, name: str, extensions: str) -> None:
        stem = self._folder / name
        request, text = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        text.write_text(f"{extensions}extendedKeyUsage=serverAuth,clientAuth\n")
        key = ("-keyout", stem.with_suffix(".key"), "-out", request)
        # etcd's gateway refuses certificates with a common name where it asks clients for one.
        run("openssl", "req", *_KEY, *key, "-subj", f"/O={name}")
        run(
            *("openssl", "x509", "-req", "-in", request, "-out", stem.with_suffix(".crt")),
            *("-CA", self._folder / "ca.crt", "-CAkey", self._folder / "ca.key"),
            *("-CAcreateserial", "-days", "1", "-extfile", text),
        )

    def _start(self, undo: ExitStack) -> None:
        options = {
            "data-dir": self._folder / "data",
            "listen-client-urls": ENDPOINT,
            "advertise-client-urls": ENDPOINT,
            "listen-peer-urls": "http://127.0.0.1:2380",
            "cert-file": self._folder / "server.crt",
            "key-file": self._folder / "server.key",
            "trusted-ca-file": self._folder / "ca.crt",
            "log-level": "error",
        }
        with open(self._folder / "log", "w") as log:
            process = subprocess.Popen(
                [*enter(self.namespace), "setpriv", "--pdeathsig", "TERM",
                 PROGRAMS / "etcd", "--client-cert-auth",
                 *(f"--{key}={value}" for key, value in options.items())],
                stdout=log, stderr=log, start_new_session=True,
                env={"PATH": os.environ["PATH"]},
            )  # fmt: skip
        undo.callback(process.wait)
        undo.callback(process.kill)

        def serves() -> bool:
            if process.poll() is not None:
                fail(f"etcd ended: {(self._folder / 'log').read_text()}")
            return self._run("endpoint", "health").returncode == 0

        wait_until("start of etcd", serves)

    def _restrict(self) -> None:
        for words in (
            ("user", "add", f"root:{self._root}"),
            ("user", "grant-role", "root", "root"),
            ("user", "add", f"podwire:{self._password}"),
            ("role", "add", "podwire"),
            ("role", "grant-permission", "podwire", "readwrite", "--prefix=true", "/podwire/"),
            ("user", "grant-role", "podwire", "podwire"),
            ("auth", "enable"),
        ):
            self._control(*words, user="")

    def _control(self, *words: str, user: str | None = None) -> str:
        done = self._run(*words, user=f"root:{self._root}" if user is None else user)
        if done.returncode:
            fail(f"etcdctl {words[0]}: {done.stderr.strip()}")
        return done.stdout

    def _run(self, *words: str, user: str = "") -> subprocess.CompletedProcess[str]:
        folder = self._folder
        files = {"cacert": "ca.crt", "cert": "client.crt", "key": "client.key"}
        options = [f"--{option}={folder / name}" for option, name in files.items()]
        options += [f"--endpoints={ENDPOINT}", *([f"--user={user}"] if user else [])]
        argv = [*enter(self.namespace), str(PROGRAMS / "etcdctl"), *options, *words]
        env = {"ETCDCTL_API": "3", "PATH": os.environ["PATH"]}
        return subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
