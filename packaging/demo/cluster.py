"""What the demo is played with: namespaces as nodes and pods, daemons, calls as of runtimes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

BIN = Path(sys.executable).parent
NAME = f"podwire-demo-{os.getpid()}"
UNDERLAY = f"{NAME}-underlay"
OUTSIDE = ("192.0.2.1", "2001:db8::1")
STOP_SECONDS, WAIT_SECONDS = 40.0, 30.0
# The daemon's own: they keep the overlay out of connection tracking, once something is tracked.
UNTRACKED = re.compile(r"\n\tchain untracked_\w+ \{.*?\n\t\}\n", re.DOTALL)
# Elements that probes add, each for some seconds.
RATES = re.compile(r"set probe_rates\d \{.*?\n\t\}\n", re.DOTALL)


def fail(message: str) -> NoReturn:
    """End the demo; what it made is removed on the way out."""
    sys.exit(f"demo failed: {message}")


def say(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)


def quote(text: str, *, most: int = 190) -> None:
    """Print a program's output, indented."""
    for line in text.rstrip().splitlines():
        say(f"   {line[:most]}")


def run(*argv: str | Path, stdin: str = "", env: dict[str, str] | None = None) -> str:
    """Run a program to its end; its stdout. Raises CalledProcessError."""
    done = subprocess.run(argv, input=stdin, env=env, capture_output=True, text=True, check=True)
    return done.stdout


def enter(namespace: str) -> list[str]:
    """Command prefix that runs the rest in a network namespace."""
    return ["nsenter", f"--net=/run/netns/{namespace}"]


def inside(namespace: str, *argv: str | Path) -> str:
    """Run a program in a network namespace."""
    return run(*enter(namespace), *argv)


def ping(namespace: str, address: str) -> str:
    """One ping; its round trip."""
    try:
        output = inside(namespace, "ping", "-n", "-c", "1", "-W", "2", address)
    except subprocess.CalledProcessError:
        fail(f"no answer from {address}")
    return output.partition("time=")[2].partition("\n")[0]


def wait_until(what: str, holds: Callable[[], bool]) -> float:
    """Wait for it; how long that took, in milliseconds."""
    begin = time.perf_counter()
    while not holds():
        if time.perf_counter() - begin > WAIT_SECONDS:
            fail(f"{what} did not happen within {WAIT_SECONDS:.0f} s")
        time.sleep(0.005)
    return (time.perf_counter() - begin) * 1000


def make_namespace(name: str, undo: ExitStack) -> None:
    """A network namespace that goes with the demo."""
    # First of all: Ctrl-C may come as soon as it is there.
    remove = ["ip", "netns", "del", name]
    undo.callback(subprocess.run, remove, check=False, capture_output=True)
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")
    # No test of addresses for duplicates: the demo's own links would be silent for a second.
    set_sysctl(name, "ipv6/conf/default/accept_dad", "0")


def set_sysctl(namespace: str, setting: str, value: str) -> None:
    """Set a kernel setting below net/ of a namespace."""
    run(*enter(namespace), "tee", f"/proc/sys/net/{setting}", stdin=value)


def make_underlay(undo: ExitStack) -> None:
    """The network between the nodes, with the outside world at its router."""
    make_namespace(UNDERLAY, undo)
    ip = ("ip", "-n", UNDERLAY)
    run(*ip, "link", "add", "underlay", "type", "bridge", "stp_state", "0", "forward_delay", "0")
    run(*ip, "addr", "add", f"{OUTSIDE[0]}/24", "dev", "underlay")
    run(*ip, "addr", "add", f"{OUTSIDE[1]}/64", "dev", "underlay", "nodad")
    run(*ip, "link", "set", "underlay", "up")


def attach_uplink(namespace: str, port: str, *addresses: str) -> None:
    """Put a namespace on the underlay."""
    run(
        *("ip", "-n", UNDERLAY, "link", "add", port, "master", "underlay", "up"),
        *("type", "veth", "peer", "name", "uplink", "netns", namespace),
    )
    ip = ("ip", "-n", namespace)
    for address in addresses:
        length, flags = ("64", ("nodad",)) if ":" in address else ("24", ())
        run(*ip, "addr", "add", f"{address}/{length}", "dev", "uplink", *flags)
    run(*ip, "link", "set", "uplink", "up")


@dataclass(frozen=True)
class Reply:
    """What the plugin answered, and how long the call took in milliseconds."""

    body: dict[str, Any]
    status: int
    milliseconds: float

    @property
    def addresses(self) -> list[str]:
        """The pod's addresses, without prefix lengths."""
        return [ip["address"].partition("/")[0] for ip in self.body["ips"]]


@dataclass(frozen=True)
class Node:
    """A node: a namespace with an uplink, a folder for the daemon's files, and two pods' names."""

    number: int
    folder: Path

    @property
    def name(self) -> str:
        """As in nodes.yaml."""
        return f"node-{self.number}"

    @property
    def namespace(self) -> str:
        """Its network namespace."""
        return f"{NAME}-{self.name}"

    @property
    def addresses(self) -> tuple[str, str]:
        """On the underlay."""
        return f"192.0.2.1{self.number}", f"2001:db8::1{self.number}"

    @cached_property
    def pod_cidrs(self) -> tuple[str, ...]:
        """As its daemon knows them, which must be in sync."""
        return tuple(self.status()["prefixes"])

    @property
    def pods(self) -> tuple[str, str]:
        """Namespaces of its pods: a and b on the first node, c and d on the second."""
        first = 2 * self.number - 2
        return f"{NAME}-{'abcd'[first]}", f"{NAME}-{'abcd'[first + 1]}"

    @property
    def config(self) -> Path:
        """Its podwired.yaml."""
        return self.folder / "podwired.yaml"

    @property
    def conflist(self) -> Path:
        """The CNI configuration that its daemon writes."""
        return self.folder / "05-podwire.conflist"

    def make(self, undo: ExitStack) -> None:
        """Make the namespaces, and the uplink."""
        for namespace in (self.namespace, *self.pods):
            make_namespace(namespace, undo)
        attach_uplink(self.namespace, self.name, *self.addresses)
        ip = ("ip", "-n", self.namespace)
        # As on any node that routes for pods already.
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            set_sysctl(self.namespace, setting, "1")
        for router in OUTSIDE:
            run(*ip, "route", "add", "default", "via", router)
            # A node that is in use has its router in its neighbour caches.
            ping(self.namespace, router)

    def configure(self, source: Mapping[str, Any]) -> None:
        """Write podwired.yaml."""
        self.folder.mkdir()
        files = {
            "source": source,
            "conflist": {"path": str(self.conflist)},
            "dataDir": str(self.folder / "data"),
            "socket": str(self.folder / "podwire.sock"),
        }
        # Every JSON object is YAML.
        self.config.write_text(json.dumps({"node": self.name, **files}, indent=2))

    def start_daemon(self, undo: ExitStack) -> subprocess.Popen[str]:
        """Start `podwired run`; it ends with the demo, however that ends."""
        with open(self.folder / "log", "w") as log:
            daemon = subprocess.Popen(
                # A session of its own: Ctrl-C is for the demo, which ends the daemons in order.
                [*enter(self.namespace), "setpriv", "--pdeathsig", "TERM",
                 BIN / "podwired", "run", "--config", self.config],
                stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        undo.callback(self.stop_daemon, daemon)
        return daemon

    def stop_daemon(self, daemon: subprocess.Popen[str]) -> None:
        """End it in order, as systemd would; a second time is nothing."""
        daemon.terminate()
        try:
            daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def podwirectl(self, *words: str) -> str:
        """Output of a command of podwirectl on this node."""
        command, *rest = words
        return inside(
            self.namespace, BIN / "podwirectl", command, "--config", str(self.config), *rest
        )

    def doctor(self) -> str:
        """What `podwirectl doctor` finds on this node, if anything is wrong."""
        try:
            self.podwirectl("doctor")
        except subprocess.CalledProcessError as found:
            return str(found.stdout)
        return ""

    def status(self) -> dict[str, Any]:
        """What `podwirectl status` says; nothing where its daemon does not run yet."""
        argv = [*enter(self.namespace), str(BIN / "podwirectl"), "status", "-o", "json", "--config"]
        done = subprocess.run([*argv, str(self.config)], capture_output=True, check=False)
        return dict(json.loads(done.stdout or "{}"))

    @property
    def in_sync(self) -> bool:
        """Whether `podwirectl status` says so, and that the other node answers."""
        status = self.status()
        if not status.get("inSync") or not self.conflist.exists():
            return False
        return bool(0 < status["peers"] == status["health"]["established"])

    def call(self, verb: str, pod: str, previous: object = None) -> Reply:
        """One CNI call for a pod's eth0, as a container runtime makes it."""
        conflist = json.loads(self.conflist.read_text())
        conf = {"cniVersion": conflist["cniVersion"], "name": conflist["name"]}
        conf |= conflist["plugins"][0] | ({"prevResult": previous} if previous else {})
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": pod,
            "CNI_NETNS": f"/run/netns/{pod}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(BIN),
            "CNI_ARGS": f"K8S_POD_NAMESPACE=demo;K8S_POD_NAME=pod-{pod[-1]}",
            "PODWIRE_SOCKET": str(self.folder / "podwire.sock"),
            "PODWIRE_STORES": os.environ["PODWIRE_STORES"],
        }
        begin = time.perf_counter()
        done = subprocess.run(
            [*enter(self.namespace), BIN / "podwire"],
            input=json.dumps(conf), env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        spent = (time.perf_counter() - begin) * 1000
        return Reply(json.loads(done.stdout or "{}"), done.returncode, spent)

    def expect(self, verb: str, pod: str, previous: object = None) -> Reply:
        """A call that must succeed."""
        reply = self.call(verb, pod, previous)
        if reply.status:
            fail(f"{verb} pod {pod[-1]}: {reply.body.get('msg')}; {reply.body.get('details', '')}")
        return reply

    def snapshot(self) -> dict[str, str]:
        """All that pods could leave in the node's kernel, as its tools list it; and addresses."""
        listings = {
            "links": ("ip", "-o", "link"),
            "addresses": ("ip", "-o", "addr", "show", "scope", "global"),
            "routes": ("ip", "route", "show", "table", "all"),
            "IPv6 routes": ("ip", "-6", "route", "show", "table", "all"),
            "rules": ("nft", "--stateless", "list", "ruleset"),
        }
        found = {name: inside(self.namespace, *argv) for name, argv in listings.items()}
        # A device that came back has a new number, and another place in the list.
        for name in ("links", "addresses"):
            found[name] = "\n".join(sorted(re.sub(r"(?m)^\d+: ", "", found[name]).splitlines()))
        found["rules"] = UNTRACKED.sub("", RATES.sub("", found["rules"]))
        return {**found, "allocated addresses": self._allocated()}

    def _allocated(self) -> str:
        data = self.folder / "data"
        if not (data / "podwire.db").exists():  # no pod was ever there
            return "[]\n"
        return run(BIN / "podwire-ipam", "--data-dir", data, "-o", "json", "list")
