"""A real etcd in a network namespace: one member or three, killed and started at will."""

import base64
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tests.netns.etcd.authority import Authority
from tests.netns.routing.conftest import eventually
from tests.pytest_netns.namespace import Namespace, run

PROGRAMS = Path(__file__).resolve().parents[3] / "build/programs"
USER, PASSWORD, ROOT_PASSWORD = "podwire", "correct horse", "battery staple"
PREFIX = "/podwire"


def program(name: str) -> Path:
    """Where `make programs` put it."""
    path = PROGRAMS / name
    assert path.exists(), f"{path} is missing: make programs"
    return path


class Member:
    """A member: its ports, its data, its process."""

    def __init__(self, etcd: "Etcd", number: int) -> None:
        self.name = f"m{number}"
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self._etcd = etcd
        self._log = etcd.folder / f"{self.name}.log"

    @property
    def url(self) -> str:
        return f"https://{self._etcd.address}:{2379 + 10 * self.number}"

    @property
    def peer_url(self) -> str:
        return f"https://{self._etcd.address}:{2380 + 10 * self.number}"

    def start(self) -> None:
        """Start it; `Etcd.wait` until it serves."""
        etcd = self._etcd
        everyone = ",".join(f"{m.name}={m.peer_url}" for m in etcd.members)
        certificate, key = etcd.server_files
        options = {
            "name": self.name,
            "data-dir": etcd.folder / f"{self.name}.data",
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": self.peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": everyone,
            "cert-file": certificate,
            "key-file": key,
            "trusted-ca-file": etcd.authority.certificate,
            "peer-cert-file": certificate,
            "peer-key-file": key,
            "peer-trusted-ca-file": etcd.authority.certificate,
            "auth-token": etcd.tokens,
            "bcrypt-cost": 4,  # the least: each call of etcdctl is a password to be checked
            "log-level": "warn",
        }
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                ["nsenter", f"--net={etcd.ns.path}", "setpriv", "--pdeathsig", "KILL",
                 program("etcd"), "--client-cert-auth", "--peer-client-cert-auth",
                 *(f"--{key}={value}" for key, value in options.items())],
                stdout=log, stderr=log, env={"PATH": os.environ["PATH"]},
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process: SIGSTOP makes it hang."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As by a power failure: SIGKILL. Repeatable."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def log(self) -> str:
        return self._log.read_text()


class Etcd:
    """All members, in one namespace that has the address already.

    tokens: etcd's --auth-token.
    """

    def __init__(
        self, ns: Namespace, address: str, folder: Path, size: int = 1, tokens: str = "simple"
    ) -> None:
        self.ns, self.address, self.folder, self.tokens = ns, address, folder, tokens
        self.authority = Authority(folder / "pki")
        self.server_files = self.authority.issue("server", address, "127.0.0.1")
        self.client_files = self.authority.issue("client")
        self.members = [Member(self, number) for number in range(size)]

    def start(self) -> None:
        """Start all members with authentication on, and the user of the daemons."""
        for member in self.members:
            member.start()
        self.wait()
        for words in (
            ("user", "add", f"root:{ROOT_PASSWORD}"),
            ("user", "grant-role", "root", "root"),
            ("user", "add", f"{USER}:{PASSWORD}"),
            ("role", "add", USER),
            ("role", "grant-permission", USER, "readwrite", "--prefix=true", f"{PREFIX}/"),
            ("user", "grant-role", USER, USER),
            ("auth", "enable"),
        ):
            self._control(words)

    def stop(self) -> None:
        """Kill all members."""
        for member in self.members:
            member.kill()

    def wipe(self) -> None:
        """Lose all data, as with a disk, and begin anew."""
        self.stop()
        for member in self.members:
            shutil.rmtree(self.folder / f"{member.name}.data")
        self.start()

    def wait(self) -> None:
        """Until every member that runs serves."""
        for member in self.members:
            if member.process is not None:
                eventually(partial(self._serves, member))

    def ctl(self, *words: str, check: bool = True) -> str:
        """The output of etcdctl, called as root."""
        return self._control(words, f"root:{ROOT_PASSWORD}", check=check)

    def entries(self, prefix: str = PREFIX) -> dict[str, str]:
        """All keys below a prefix."""
        return {text(kv["key"]): text(kv.get("value", "")) for kv in self.pairs(prefix)}

    def pairs(self, prefix: str = PREFIX) -> list[dict[str, Any]]:
        """The same with revisions and leases."""
        body = json.loads(self.ctl("get", f"{prefix}/", "--prefix", "-w", "json"))
        return list(body.get("kvs", ()))

    def revision(self) -> int:
        """The newest one."""
        return int(json.loads(self.ctl("get", "x", "-w", "json"))["header"]["revision"])

    def leader(self) -> Member:
        """The member that leads."""
        for member in self.members:
            if member.process is not None:
                endpoint = ["--endpoints", member.url]
                body = json.loads(self.ctl(*endpoint, "endpoint", "status", "-w", "json"))
                status = body[0]["Status"]
                if status["leader"] == status["header"]["member_id"]:
                    return member
        raise AssertionError("no leader")

    @property
    def urls(self) -> list[str]:
        return [member.url for member in self.members]

    @cached_property
    def password_file(self) -> Path:
        path = self.folder / "password"
        path.touch(mode=0o600)
        path.write_text(f"{PASSWORD}\n")
        return path

    def settings(self, **changes: object) -> dict[str, Any]:
        """`source.etcd` of a node."""
        certificate, key = self.client_files
        return {
            "endpoints": self.urls,
            "clusterCIDRs": ["10.244.0.0/16", "fd00:10:244::/48"],
            "caFile": str(self.authority.certificate),
            "certFile": str(certificate),
            "keyFile": str(key),
            "username": USER,
            "passwordFile": str(self.password_file),
            "prefix": PREFIX,
            **changes,
        }

    def _serves(self, member: Member) -> object:
        assert member.process is not None
        assert member.process.poll() is None, member.log
        user = f"root:{ROOT_PASSWORD}"
        words = ["--endpoints", member.url, "endpoint", "health"]
        commands = (self._run(words, user), self._run(words, ""))
        return any(done.returncode == 0 for done in commands) or commands[0].stderr

    def _control(self, words: Sequence[str], user: str = "", *, check: bool = True) -> str:
        done = self._run(words, user)
        assert not check or done.returncode == 0, (words, done.stderr, done.stdout)
        return done.stdout

    def _run(self, words: Sequence[str], user: str) -> "subprocess.CompletedProcess[str]":
        certificate, key = self.client_files
        alive = [member.url for member in self.members if member.process is not None]
        where = [] if "--endpoints" in words else ["--endpoints", ",".join(alive)]
        return run(
            ["nsenter", f"--net={self.ns.path}", program("etcdctl"), "--dial-timeout", "2s",
             "--command-timeout", "10s", "--cacert", self.authority.certificate,
             "--cert", certificate, "--key", key, *(["--user", user] if user else []),
             *where, *words],
            env={"ETCDCTL_API": "3", "PATH": os.environ["PATH"]}, check=False,
        )  # fmt: skip


def text(encoded: str) -> str:
    """What etcdctl's JSON has in base64."""
    return base64.b64decode(encoded).decode()
