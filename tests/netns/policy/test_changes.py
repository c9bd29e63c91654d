"""Policies that change, pods that come, rules that others remove: with connections at work."""

from __future__ import annotations

import json
import re
import signal
import socket
from datetime import datetime
from pathlib import Path

import pytest

from tests.netns.policy.conftest import MODES, Object, Pod, World, labelled, policy
from tests.netns.routing.conftest import Cluster, Member, eventually
from tests.pytest_netns.traffic import REPLY_TIMEOUT

DENY = policy("app", "deny", podSelector=labelled(app="web"), ingress=[])


class Stream:
    """A connection that its server keeps open, as the client sees it."""

    def __init__(self, client: Pod, server: Pod, port: int) -> None:
        address = server.addresses[4]
        self._listener = server.ns.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind((address, port))
        self._listener.listen()
        self._client = client.ns.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._client.settimeout(REPLY_TIMEOUT)
        self._client.connect((address, port))
        self._server, _peer = self._listener.accept()

    def works(self, *, back: bool = False, seconds: float = REPLY_TIMEOUT) -> bool:
        """Whether what one end sends arrives, in so many seconds; back: from the server."""
        sender, receiver = (self._server, self._client)[:: 1 if back else -1]
        receiver.settimeout(seconds)
        try:
            sender.sendall(b"x")
            return receiver.recv(1) == b"x"
        except OSError:
            return False

    def close(self) -> None:
        for each in (self._client, self._server, self._listener):
            each.close()


@pytest.fixture
def pods(world: World) -> tuple[Pod, Pod, Pod]:
    one, two = world.members
    made = (
        world.pod(one, "app", "web", app="web"),
        world.pod(two, "app", "good", role="good"),
        world.pod(two, "app", "bad", role="bad"),
    )
    world.write_pods(app={})
    return made


def limit(*roles: str) -> Object:
    peers = [{"podSelector": labelled(role=role)} for role in roles]
    return policy("app", "limit", podSelector=labelled(app="web"), ingress=[{"from": peers}])


@pytest.mark.parametrize("mode", MODES)
def test_connections_that_a_policy_forbids_are_cut_and_others_are_not(
    world: World, pods: tuple[Pod, Pod, Pod], mode: str
) -> None:
    web, good, bad = pods
    streams = Stream(good, web, 7001), Stream(bad, web, 7002)
    assert all(stream.works() and stream.works(back=True) for stream in streams)
    world.enforce(limit("good"))
    assert streams[0].works()
    assert streams[0].works(back=True)
    # Neither end brings it back: not the server, either, whom no policy keeps from sending.
    assert not streams[1].works(back=True, seconds=2)
    assert not streams[1].works(seconds=2)
    # Other changes do not let it through again.
    world.enforce(limit("good"), policy("app", "more", podSelector=labelled(app="other")))
    assert not streams[1].works(back=True, seconds=2)
    world.enforce(limit("good", "bad"))
    again = Stream(bad, web, 7003)
    assert again.works()
    for stream in (*streams, again):
        stream.close()
    # Frames between ports that nftables does not see are named, where there are ports.
    setting = "bridge/bridge-nf-call-iptables"
    web.member.node.ns.sysctl(setting, "0")
    wanted = "app/web are ports of a bridge" if mode == "bridge" else ""
    eventually(lambda: wanted in web.member.fault("policy") or web.member.log)
    web.member.node.ns.sysctl(setting, "1")
    eventually(lambda: not web.member.fault("policy") or web.member.log)


def test_a_pod_that_no_file_describes_is_known_by_its_name(
    world: World, pods: tuple[Pod, Pod, Pod]
) -> None:
    web, good, bad = pods
    selector = labelled(**{"podwire.dev/pod-name": "late"})
    ingress = limit("good")["spec"]["ingress"]
    world.enforce(policy("app", "late", podSelector=selector, ingress=ingress))
    late = world.pod(web.member, "app", "late", role="good")
    assert good.connects(late)
    assert not bad.reaches(late)
    # As soon as it is described it is what the file says.
    world.write_pods(app={})
    eventually(lambda: bad.reaches(late))


def differences(pod: Pod) -> list[tuple[str, str]]:
    """What `podwirectl diff` says of policies on the pod's node: whose it is, and the sentence."""
    argv: list[str | Path] = [pod.member.podwirectl, "diff", "--area", "policy", "-o", "json"]
    argv += ["--config", pod.member.folder / "podwired.yaml"]
    found = json.loads(pod.member.node.run(argv, check=False).stdout)
    return [(each["of"], each["text"]) for each in found]


def test_rules_that_others_flush_are_made_again_and_stay_without_a_daemon(
    world: World, pods: tuple[Pod, Pod, Pod]
) -> None:
    web, good, bad = pods
    world.enforce(limit("good"))
    assert not bad.reaches(web)
    node = web.member.node
    node.run(["nft", "flush", "ruleset"])
    eventually(lambda: "podwire-policy" in node.run(["nft", "list", "tables"]).stdout)
    eventually(lambda: not bad.reaches(web))
    assert good.connects(web)
    eventually(lambda: [r["action"] for r in web.member.history("policies")] == ["restored"])
    node.run(["nft", "flush", "set", "inet", "podwire-policy", "known"])
    eventually(lambda: good.reaches(web))
    eventually(lambda: differences(web) == [] or differences(web))

    web.member.stop(signal.SIGKILL)
    assert good.connects(web)
    assert not bad.reaches(web)
    assert differences(web) == []
    chains = node.run(["nft", "list", "chains", "inet"]).stdout
    chain = re.search("ingress-[0-9a-f]{16}", chains)
    assert chain
    name = chain[0]
    table = ["inet", "podwire-policy"]
    node.run(["nft", "add", "element", *table, f"{name}-hosts4", f"{{ {bad.addresses[4]} }}"])
    node.run(["nft", "flush", "set", *table, f"{name}-hosts6"])
    node.run(["nft", "add", "rule", *table, "forward", "accept"])
    assert bad.connects(web, family=4)
    what = "of nft table inet podwire-policy"
    assert differences(web) == [
        ("", "nft chain forward of table inet podwire-policy has other rules"),
        ("app/web", f"{bad.addresses[4]} should not be in set {name}-hosts4 {what}"),
        ("app/web", f"{good.addresses[6]} is missing in set {name}-hosts6 {what}"),
    ]
    node.run(["nft", "delete", "table", *table])
    missing = "nft table inet podwire-policy is missing: what policies forbid passes"
    assert differences(web) == [("", missing)]
    web.member.start()
    world.enforce(limit("bad"))
    assert not good.reaches(web)
    assert bad.connects(web)


def logged(member: Member, text: str) -> float:
    """When the daemon logged such a line last, in seconds."""
    line = [each for each in member.log.splitlines() if text in each][-1]
    return datetime.fromisoformat(line.partition(" ")[0]).timestamp()


@pytest.mark.parametrize("roles", [("good", "bad"), ("good",)])
def test_a_restart_cuts_by_what_the_source_delivers_and_not_by_what_was_saved(
    world: World, pods: tuple[Pod, Pod, Pod], roles: tuple[str, ...]
) -> None:
    web, _good, bad = pods
    member, saved = web.member, "/var/lib/podwire/policy.json"
    world.enforce(limit("good"))
    member.node.run(["cp", saved, "/var/lib/old"])
    world.enforce(limit("good", "bad"))
    stream = Stream(bad, web, 7001)
    # Killed before it saved the second policy, and started while the source has no answer.
    member.stop(signal.SIGKILL)
    member.node.run(["cp", "/var/lib/old", saved])
    (world.folder / "policies.yaml").write_text("{")
    member.start()
    # The rules of the kernel are newer, and stay for a while. What was saved cuts no connection.
    eventually(lambda: not bad.reaches(web) or member.log)
    assert logged(member, "restored nftables rules of") - logged(member, "serving") > 3
    assert stream.works()
    assert stream.works(back=True)
    world.write("policies", limit(*roles))
    both = ("bad" in roles,) * 2
    eventually(lambda: (stream.works(seconds=2), bad.reaches(web)) == both or member.log)
    stream.close()


@pytest.mark.parametrize("answers", [True, False])
def test_a_connection_that_was_cut_stays_so_when_the_daemon_restarts(
    world: World, pods: tuple[Pod, Pod, Pod], answers: bool
) -> None:
    web, _good, bad = pods
    member, again = web.member, "restored nftables rules of"
    stream = Stream(bad, web, 7001)
    assert stream.works()
    world.enforce(limit("good"))
    before = member.log.count(again)
    member.stop(signal.SIGKILL)
    if not answers:  # the rules are those of what was saved
        (world.folder / "policies.yaml").write_text("{")
    member.start()
    eventually(lambda: member.log.count(again) > before or member.log)
    # The server may send to the client: that must not make the connection known again.
    assert not stream.works(back=True, seconds=2)
    assert not stream.works(seconds=2)
    stream.close()


def test_a_node_is_not_ready_before_its_policies_are_known(
    cluster: Cluster, tmp_path: Path, podwire_bin: Path
) -> None:
    member, folder = cluster.prepare(), tmp_path / "policies"
    cluster.write()
    folder.mkdir()
    (folder / "one.yaml").write_text("{")
    member.start(policy={"dir": str(folder)}, health=False)
    wanted = f"network policies are not known yet: {folder}/one.yaml"
    eventually(lambda: wanted in str(member.status().get("fault")) or member.log)
    assert not member.conflist.exists()
    (folder / "one.yaml").write_text(json.dumps(DENY))
    eventually(member.conflist.exists)
    eventually(member.saved_policies.exists)
    # What was saved is enough for the next start.
    (folder / "one.yaml").write_text("{")
    member.conflist.unlink()
    member.stop(signal.SIGKILL)
    member.start()
    eventually(member.conflist.exists)


def test_story_19_what_a_policy_changed_is_in_the_history(
    world: World, pods: tuple[Pod, Pod, Pod]
) -> None:
    web, *_ = pods
    world.enforce(limit("good"))
    world.enforce(limit("bad"))
    world.enforce()
    records = [r for r in web.member.history("NetworkPolicy") if "app/limit" in r["object"]]
    assert [r["action"] for r in records] == ["added", "changed", "removed"]
    assert "role=good" in records[1]["before"]
    assert "role=bad" in records[1]["after"]


def test_a_policy_that_cannot_be_honoured_closes_its_pods_and_is_named(
    world: World, pods: tuple[Pod, Pod, Pod]
) -> None:
    web, good, bad = pods
    broken = policy("app", "broken", podSelector=labelled(app="web"), ingress=[{"from": [{}]}])
    world.enforce(broken)
    assert not good.reaches(web)
    assert good.connects(bad)
    eventually(lambda: "app/broken" in web.member.fault("policy") or web.member.log)
    world.enforce(limit("good"))
    eventually(lambda: not web.member.fault("policy"))


def test_a_policy_that_monitors_drops_nothing_and_counts(
    world: World, pods: tuple[Pod, Pod, Pod]
) -> None:
    web, good, bad = pods
    monitored = limit("good")
    monitored["metadata"]["annotations"] = {"podwire.dev/policy-mode": "monitor"}
    world.enforce(limit("bad"))
    world.enforce(monitored)
    assert good.connects(web)
    assert bad.connects(web)
    listed = web.member.node.run(["nft", "-j", "list", "table", "inet", "podwire-policy"]).stdout
    rules = [item["rule"]["expr"] for item in json.loads(listed)["nftables"] if "rule" in item]
    last = [r for r in rules if {"return": None} in r and "log" not in str(r)][-1]
    assert next(e["counter"]["packets"] for e in last if "counter" in e) > 0
    # Nor does it close pods that come while no daemon knows them.
    web.member.stop(signal.SIGKILL)
    assert good.connects(world.pod(web.member, "app", "new"))
    web.member.start()
    world.enforce(limit("bad"))
    web.member.stop(signal.SIGKILL)
    assert not good.reaches(world.pod(web.member, "app", "newer"))


def test_denials_are_in_the_history_by_name(world: World, pods: tuple[Pod, Pod, Pod]) -> None:
    web, _good, bad = pods
    world.enforce(limit("good"))
    assert not bad.reaches(web)
    name = f"connection app/bad ({bad.addresses[4]}) -> app/web ({web.addresses[4]}) tcp/80"
    eventually(lambda: [r["object"] for r in web.member.history("connection")] == [name] or name)


@pytest.mark.parametrize("mode", MODES)
def test_podwirectl_explains_what_the_kernel_does(world: World, pods: tuple[Pod, Pod, Pod]) -> None:
    web, good, bad = pods
    world.enforce(limit("good"))
    assert good.connects(web)
    assert not bad.reaches(web)

    def ask(*words: object) -> tuple[int, str]:
        argv = [str(web.member.podwirectl), "policy", *map(str, words)]
        done = web.member.node.run(argv, check=False)
        return done.returncode, done.stdout

    code, text = ask("check", good, f"{web}:80")
    assert code == 0, text
    assert "rule 1 of app/limit: from pods role=good" in text
    code, text = ask("check", bad, f"{web.addresses[6]}")
    assert code == 1, text
    assert "no rule of app/limit allows it" in text
    # The node reaches its own pods, and nobody else's.
    for member in world.members:
        expected = int(member is not web.member)
        seconds = 2 if expected else REPLY_TIMEOUT
        reached = member.node.ns.reaches(web.servers["tcp", 80, 4], seconds=seconds)
        assert reached is not bool(expected)
        code, text = ask("check", member.addresses[0], f"{web}:80")
        assert code == expected, text
    code, text = ask("show", web, "-o", "json")
    ingress, egress = json.loads(text)["directions"]
    assert (ingress["policies"], ingress["limited"], egress["limited"]) == (
        ["app/limit"], True, False,
    )  # fmt: skip
    assert ingress["allowed"] >= 1
    assert ingress["denied"] >= 1
    assert ask("lint")[0] == 0


def test_doctor_takes_no_silence_for_a_fault_that_a_policy_asks_for(
    world: World, pods: tuple[Pod, Pod, Pod]
) -> None:
    web, *_ = pods
    member = web.member
    world.enforce(policy("app", "mute", policyTypes=["Egress"]))
    assert not web.reaches(pods[1])
    config = member.folder / "podwired.yaml"
    for name in ((), (str(web),)):
        argv = [str(member.podwirectl), "doctor", *name, "--config", str(config)]
        done = member.node.run(argv, check=False)
        assert done.returncode == 0, done.stdout
