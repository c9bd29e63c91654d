"""A node with podwire on it: calls, and everything that they may leave behind."""

import json
import re
import socket
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.netns.robustness.calls import At, Call, Outcome, Zygote, among_files
from tests.netns.robustness.confs import BRIDGE, Conf
from tests.pytest_netns import Namespace, Node, Snapshot, changes, snapshot
from tests.pytest_netns.underlay import Family

T = TypeVar("T")

DATA_DIR = Path("/var/lib/podwire")
DATABASE = DATA_DIR / "podwire.db"
"""The store on the node's own mounts."""

TABLES = ("allocation", "attachment", "network")
"""Tables of podwire.db that are empty when nothing is attached."""

LINK_LOCAL = re.compile(
    r'\+ (routes {"dev": "[^"]+", "dst": "fe80::'
    r'|fdb {"flags": \[\], "ifname": "[^"]+", "mac": "33:33:)'
)
"""What appears by itself, on a busy machine seconds later: a link's address of its own has passed
its duplicate detection, and the link hears its groups."""

OWN_LINKS = {"lo", "eth0", BRIDGE}
"""Links of a node that has no pod; a bridge outlives its pods."""


def addresses(ns: Namespace, ifname: str) -> set[str]:
    """Global addresses of a link, with their prefix lengths."""
    return {
        f"{info['local']}/{info['prefixlen']}"
        for link in ns.ip(f"address show dev {ifname}")
        for info in link.get("addr_info", ())
        if info.get("scope") == "global"
    }


def _query(sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(DATABASE, timeout=10)) as connection, connection:
        return connection.execute(sql, values).fetchall()


@dataclass
class Attached:
    """An attachment that a test made."""

    pod: Namespace
    container_id: str
    ifname: str
    conf: Conf
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """Name of the node's end."""
        return str(next(i["name"] for i in self.result["interfaces"] if i["name"][:2] == "pw"
                        and i["name"] != BRIDGE))  # fmt: skip

    def cidr(self, family: Family) -> str:
        """The pod's address with its prefix length."""
        separator = {4: ".", 6: ":"}[family]
        return next(str(i["address"]) for i in self.result["ips"] if separator in i["address"])

    def address(self, family: Family) -> str:
        """The pod's address."""
        return self.cidr(family).partition("/")[0]


class Scene:
    """A node and the executable that tests run on it, through the zygote."""

    def __init__(self, zygote: Zygote, node: Node, bin_dir: Path) -> None:
        self.node = node
        self.bin_dir = bin_dir
        self._zygote = zygote

    def start(
        self,
        verb: str,
        conf: Conf,
        pod: Namespace | Path | str | None = None,
        container_id: str = "c1",
        ifname: str = "eth0",
        *,
        args: str = "",
        program: str = "podwire",
        cni_path: str = "",
        env: dict[str, str] | None = None,
        at: At | None = None,
    ) -> Call:
        """Start a call and return at once."""
        netns = pod.path if isinstance(pod, Namespace) else pod or ""
        variables = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": str(netns),
            "CNI_IFNAME": ifname,
            "CNI_ARGS": args,
            "CNI_PATH": cni_path or str(self.bin_dir),
            **(env or {}),
        }
        stdin = json.dumps(conf).encode()
        return self._zygote.start(self.node, self.bin_dir / program, variables, stdin, at)

    def call(self, verb: str, conf: Conf, *args: Any, **keys: Any) -> Outcome:
        """Make a call and wait for its end; parameters are those of `start`."""
        return self.start(verb, conf, *args, **keys).result()

    def add(
        self,
        conf: Conf,
        pod: Namespace,
        container_id: str = "c1",
        ifname: str = "eth0",
        **keys: Any,
    ) -> Attached:
        """ADD; AssertionError if it fails."""
        answer = self.call("ADD", conf, pod, container_id, ifname, **keys)
        assert answer.code == 0, answer
        return Attached(pod, container_id, ifname, conf, answer.json)

    def check(self, attached: Attached, **keys: Any) -> Outcome:
        """CHECK, with the result of ADD as prevResult."""
        conf = {**attached.conf, "prevResult": attached.result}
        return self.call(
            "CHECK", conf, attached.pod, attached.container_id, attached.ifname, **keys
        )

    def delete(self, attached: Attached, **keys: Any) -> None:
        """DEL as a runtime does it; AssertionError if it fails."""
        conf = {**attached.conf, "prevResult": attached.result}
        answer = self.call(
            "DEL", conf, attached.pod, attached.container_id, attached.ifname, **keys
        )
        assert answer.code == 0, answer

    def gc(self, conf: Conf, valid: Sequence[tuple[str, str]] | None, **keys: Any) -> Outcome:
        """GC with these (container ID, ifname) as the valid ones; None is JSON's null."""
        listed = None if valid is None else [{"containerID": c, "ifname": i} for c, i in valid]
        return self.call("GC", {**conf, "cni.dev/valid-attachments": listed}, **keys)

    def on_files(self, work: Callable[[], T]) -> T:
        """Result of `work`, which sees the node's files."""
        return among_files(self.node, work)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run SQL on the store; changes are committed."""
        return self.on_files(lambda: _query(sql, values))

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """What the store says is attached; empty tables are left out."""

        def read() -> dict[str, list[tuple[Any, ...]]]:
            if not DATABASE.exists():
                return {}
            tables = {name: _query(f"SELECT * FROM {name} ORDER BY 1, 2") for name in TABLES}  # noqa: S608
            return {name: rows for name, rows in tables.items() if rows}

        return self.on_files(read)

    def links(self, ns: Namespace | None = None) -> set[str]:
        """Names of the links of a namespace, the node's unless given."""
        where = self.node.ns if ns is None else ns
        return where.call(lambda: {name for _, name in socket.if_nameindex()})

    def ruleset(self) -> str:
        """nft's rules of the node."""
        return self.node.ns.run(["nft", "list", "ruleset"]).stdout.strip()

    def leftovers(self, *pods: Namespace) -> list[str]:
        """What is there although nothing is attached: links, rules, rows."""
        found = [f"node link {name}" for name in sorted(self.links() - OWN_LINKS)]
        for pod in pods:
            found += [f"pod link {name}" for name in sorted(self.links(pod) - {"lo"})]
        found += [f"rows in {name}: {rows}" for name, rows in self.rows().items()]
        rules = self.ruleset()
        return found + ([f"rules: {rules}"] if rules else [])

    def state(self, *pods: Namespace) -> "State":
        """Everything there is on the node, in pods and in the store."""
        spaces = [self.node.ns, *pods]
        return State([snapshot(space) for space in spaces], self.rows())


@dataclass(frozen=True)
class State:
    """Kernel state of the node and of pods, and the store's rows."""

    spaces: list[Snapshot]
    rows: dict[str, list[tuple[Any, ...]]]

    def changes_to(self, after: "State") -> list[str]:
        """What appeared (+) and what vanished (-)."""
        lines = [
            line
            for old, new in zip(self.spaces, after.spaces, strict=True)
            for line in changes(old, new)
            if not LINK_LOCAL.match(line)
        ]
        if self.rows != after.rows:
            lines.append(f"rows: {self.rows} became {after.rows}")
        return lines
