"""What a chain with `portmap` does: answers, and every way by which a mapped port is reached."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tests.netns.differential.port_cases import NODE4, NODE6, SECOND4, SECOND6, Mappings, PortCase
from tests.netns.differential.world import World
from tests.pytest_netns import CniResult, Namespace, traffic
from tests.pytest_netns.traffic import Protocol

GATEWAY4, GATEWAY6 = "10.20.0.1", "2001:db8:20::1"
PASSING4, PASSING6 = "203.0.113.9", "2001:db8:99::9"
"""Addresses of a machine outside, to which the node routes."""
SECONDS = 4.0
"""After which a packet counts as lost. All are sent at once, so that one wait is enough."""
_AT_ONCE = 128

TARGETS = {
    "the node": (NODE4, NODE6),
    "its second address": (SECOND4, SECOND6),
    "the gateway": (GATEWAY4, GATEWAY6),
    "loopback": ("127.0.0.1", "::1"),
    "other loopback": ("127.0.0.2",),
    "a machine outside": (PASSING4, PASSING6),
}
NOT_FROM = {
    ("outside", "the gateway"), ("outside", "loopback"), ("outside", "other loopback"),
    ("outside", "a machine outside"), ("node", "a machine outside"),
    *((pod, "loopback") for pod in ("pod0", "pod1")),
    *((pod, "other loopback") for pod in ("pod0", "pod1")),
}  # fmt: skip


@dataclass
class PortWorld:
    """A world with two pods; the first ones have mapped ports."""

    world: World
    case: PortCase
    folder: Path
    """The plugins' folder; `mains` where the plugin before `portmap` is of another."""
    mains: Path
    pods: list[Namespace] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    lines: set[str] = field(default_factory=set)

    def observe(self) -> set[str]:
        """Attach, use, check, detach and use again; one line for each observation."""
        self._prepare()
        for number in range(2):
            self._add(number)
        self._say("ADD again", [self._port_map("ADD", 0)])
        self._use("attached")
        self._say("CHECK", [self._port_map("CHECK", n) for n in range(len(self.case.mappings))])
        for verb in ("DEL", "DEL again"):
            ended = [self._port_map("DEL", n) for n in range(len(self.case.mappings))]
            self._say(verb, ended)
        self._say("CHECK after DEL", [self._port_map("CHECK", 0)])
        # The reference leaves entries, which a client's port that comes again would meet.
        self.world.node.ns.run(["conntrack", "-F"])
        self._use("detached")
        return self.lines

    def _prepare(self) -> None:
        node, far = self.world.node.ns, self.world.underlay.ns
        node.ip_batch(
            f"address add {SECOND4}/32 dev lo\naddress add {SECOND6}/128 dev lo nodad\n"
            f"route add {PASSING4} via 192.0.2.1\nroute add {PASSING6} via 2001:db8:ffff::1\n"
        )
        far.ip_batch(
            f"route add {SECOND4} via {NODE4}\nroute add {SECOND6} via {NODE6}\n"
            f"address add {PASSING4}/32 dev lo\naddress add {PASSING6}/128 dev lo nodad\n"
            + "".join(f"route add {s} via {NODE6 if ':' in s else NODE4}\n"
                      for s in self.case.subnets)
        )  # fmt: skip
        for argv in self.case.prepare:
            node.run(argv)

    def _call(self, verb: str, plugin: Path, conf: dict[str, Any], number: int) -> CniResult:
        return self.world.node.cni(
            verb, plugin, conf, container_id=f"container{number}", netns=self.pods[number].path
        )

    def _port_map(self, verb: str, number: int) -> CniResult:
        mappings = self.case.mappings[number : number + 1]
        runtime = {"runtimeConfig": {"portMappings": list(mappings[0])}} if mappings else {}
        conf = {**self.case.conf("portmap"), **runtime, "prevResult": self.results[number]}
        return self._call(verb, self.folder / "portmap", conf, number)

    def _add(self, number: int) -> None:
        self.pods.append(self.world.make_pod())
        main = self.case.main
        first = self._call("ADD", self.mains / main, self.case.conf(main), number)
        assert first.code == 0, first
        self.results.append(first.json)
        self.world.pods = self.pods
        if self.world.settles:
            self.world.settle()
        answer = self._port_map("ADD", number)
        self._say("ADD", [answer])
        # What the reference's result leaves out where it is empty, podwire's has or has not.
        passed = {"dns": {}, **answer.json} == {"dns": {}, **first.json}
        self.lines.add(f"the previous result is passed on: {passed}")
        path = f"ipv4/conf/{self._host_link(number)}/route_localnet"
        self.lines.add(f"{path.replace(self._host_link(number), 'LINK')}:"
                       f" {self.world.node.ns.sysctl(path)}")  # fmt: skip

    def _host_link(self, number: int) -> str:
        """The link that the node's route to the pod names."""
        names = [i["name"] for i in self.results[number]["interfaces"] if not i.get("sandbox")]
        return "cni0" if "cni0" in names else str(names[0])

    def _say(self, what: str, answers: list[CniResult]) -> None:
        for answer in answers:
            self.lines.add(f"{what}: {'success' if answer.code == 0 else 'error'}")

    def _use(self, when: str) -> None:
        for number, mappings in enumerate(self.case.mappings):
            served = list(self._serve(number, mappings))
            probes = list(self._probes(number))
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                self.lines |= set(threads.map(lambda probe: f"{when}: {self._try(*probe)}", probes))
            for server in served:
                server.close()

    def _serve(self, number: int, mappings: Mappings) -> Iterator[traffic.EchoServer]:
        ports = {(m["protocol"].lower(), m["containerPort"]) for m in _some(mappings)}
        for ip in self.results[number]["ips"]:
            for protocol, port in ports - {("sctp", 132)}:
                yield self.pods[number].echo(protocol, ip["address"].partition("/")[0], port)

    def _probes(self, number: int) -> Iterator[tuple[str, str, Protocol, str, int]]:
        for mapping in _some(self.case.mappings[number]):
            protocol = mapping["protocol"].lower()
            for place in ("outside", "node", "pod0", "pod1"):
                for name, addresses in TARGETS.items():
                    if protocol != "sctp" and (place, name) not in NOT_FROM:
                        for address in addresses:
                            if self._has(address):
                                yield place, name, protocol, address, mapping["hostPort"]

    def _has(self, address: str) -> bool:
        """Whether the pods have the address's family."""
        return any((":" in address) == (":" in subnet) for subnet in self.case.subnets)

    def _try(self, place: str, name: str, protocol: Protocol, address: str, port: int) -> str:
        spaces = {"outside": self.world.underlay.ns, "node": self.world.node.ns}
        spaces |= {f"pod{number}": pod for number, pod in enumerate(self.pods)}
        family = ip_address(address).version
        what = f"from {place} to {name} by {protocol} {port} of IPv{family}"
        try:
            source = traffic.exchange(
                spaces[place].socket, protocol, (address, port), seconds=SECONDS
            )
        except (OSError, AssertionError):
            return f"{what}: no answer"
        return f"{what}: the pod sees {self._name_of(source)}"

    def _name_of(self, address: str) -> str:
        names = {
            NODE4: "the node", NODE6: "the node", GATEWAY4: "the gateway", GATEWAY6: "the gateway",
            "192.0.2.1": "the machine outside", "2001:db8:ffff::1": "the machine outside",
        }  # fmt: skip
        for number, result in enumerate(self.results):
            for ip in result["ips"]:
                names[ip["address"].partition("/")[0]] = f"pod{number}"
        return names.get(address, address)


def _some(mappings: Mappings) -> Mappings:
    """Those that are tried."""
    return mappings if len(mappings) < 4 else (mappings[0], mappings[-1])
