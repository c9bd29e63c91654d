"""DEL removes everything, whatever else is missing or has changed since ADD."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.netns.robustness.confs import BRIDGE, MODES, Conf, ipam, netconf
from tests.netns.robustness.scene import DATA_DIR, DATABASE, Attached, Scene
from tests.pytest_netns import Namespace

DEBIAN = Path("/usr/lib/cni")

Damage = Callable[[Scene, Attached], None]


def full_conf(mode: str, **keys: Any) -> Conf:
    """A configuration that puts something of every kind on the node."""
    more: dict[str, Any] = {"macspoofchk": True} if mode == "bridge" else {}
    return netconf(mode, (4, 6), **({"ipMasq": True} | more | keys))


def on_node(commands: str) -> Damage:
    return lambda scene, attached: scene.node.ns.ip_batch(commands.format(host=attached.host))


def in_pod(commands: str) -> Damage:
    return lambda scene, attached: attached.pod.ip_batch(commands)


def sql(*statements: str) -> Damage:
    def act(scene: Scene, attached: Attached) -> None:
        for statement in statements:
            scene.query(statement)

    return act


def remove_database(scene: Scene, attached: Attached) -> None:
    def remove() -> None:
        for path in DATA_DIR.iterdir():
            path.unlink()

    scene.on_files(remove)


def remove_database_alone(scene: Scene, attached: Attached) -> None:
    scene.on_files(DATABASE.unlink)


def flush_rules(scene: Scene, attached: Attached) -> None:
    scene.node.ns.run(["nft", "flush ruleset"])


def empty_rules(scene: Scene, attached: Attached) -> None:
    for name in ("hairpin4", "hairpin6", "masquerade4", "internal4"):
        scene.node.ns.run(["nft", f"flush set inet podwire {name}"])


def nothing(scene: Scene, attached: Attached) -> None:
    pass


DAMAGES: dict[str, Damage] = {
    "nothing": nothing,
    "link removed": on_node("link delete {host}"),
    "link removed in the pod": in_pod("link delete eth0"),
    "link renamed": on_node("link set {host} down\nlink set {host} name other0"),
    "link renamed in the pod": in_pod("link set eth0 down\nlink set eth0 name other0"),
    "link down": on_node("link set {host} down"),
    "addresses flushed": in_pod("address flush dev eth0"),
    "rules flushed": flush_rules,
    "members flushed": empty_rules,
    "record lost": sql("DELETE FROM attachment"),
    "allocation lost": sql("DELETE FROM allocation"),
    "rows lost": sql("DELETE FROM attachment", "DELETE FROM allocation"),
    "record is another version's": sql("""UPDATE attachment SET record = '{"schema": 9}'"""),
    "record is nonsense": sql("UPDATE attachment SET record = 'nonsense'"),
    "database removed": remove_database,
    "database removed, its log not": remove_database_alone,
}

BRIDGE_DAMAGES: dict[str, Damage] = {
    "bridge removed": on_node(f"link delete {BRIDGE}"),
    "bridge replaced": on_node(
        f"link delete {BRIDGE}\nlink add {BRIDGE} type veth peer name other1"
    ),
    "port moved": on_node("link add other0 type bridge\nlink set {host} master other0"),
}

CASES = [
    pytest.param(mode, damage, id=f"{mode}-{name}")
    for mode in MODES
    for name, damage in (DAMAGES | (BRIDGE_DAMAGES if mode == "bridge" else {})).items()
]

OWN_MESS = {"node link other0", "node link other1"}


@pytest.mark.parametrize(("mode", "damage"), CASES)
def test_after_damage(scene: Scene, pod: Namespace, mode: str, damage: Damage) -> None:
    attached = scene.add(full_conf(mode), pod)
    damage(scene, attached)
    scene.delete(attached)
    left = scene.leftovers(pod)
    renamed = mode == "bridge" and damage in BRIDGE_DAMAGES.values()
    assert [line for line in left if not (renamed and line in OWN_MESS)] == []


def pod_gone(pod: Namespace) -> str:
    path = str(pod.path)
    pod.remove()
    return path


NAMESPACES: dict[str, Callable[[Namespace], str]] = {
    "gone": pod_gone,
    "not given": lambda pod: "",
    "a file": lambda pod: "/etc/hostname",
    "a device": lambda pod: "/dev/null",
    "a directory": lambda pod: "/run/netns",
    "of another kind": lambda pod: "/proc/self/ns/uts",
    "the node's own": lambda pod: "/proc/self/ns/net",
    "another's": lambda pod: "/proc/1/ns/net",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_without_the_namespace(scene: Scene, pod: Namespace, mode: str, namespace: str) -> None:
    attached = scene.add(full_conf(mode), pod)
    path = NAMESPACES[namespace](pod)
    answer = scene.call("DEL", attached.conf, path)
    assert answer.code == 0, answer
    assert scene.leftovers(*([pod] if pod.exists else [])) == []


@pytest.mark.parametrize("mode", MODES)
def test_after_a_reboot_in_anothers_namespace(scene: Scene, pod: Namespace, mode: str) -> None:
    """CNI_NETNS names a process, and its number is another process's by now."""
    pod.ip_batch("link add eth0 type veth peer name other0")
    with pod.call(lambda: subprocess.Popen(["sleep", "infinity"])) as process:
        try:
            answer = scene.call("DEL", full_conf(mode), f"/proc/{process.pid}/ns/net")
        finally:
            process.kill()
    assert answer.code == 0, answer
    assert scene.links(pod) == {"lo", "eth0", "other0"}


def unconfigured(mode: str) -> Conf:
    return {"cniVersion": "1.1.0", "name": "robust", "type": "podwire"}


CHANGED: dict[str, Callable[[str], Conf]] = {
    "other mode": lambda mode: full_conf(next(m for m in MODES if m != mode), macspoofchk=False),
    "other bridge": lambda mode: full_conf(mode, bridge="other0"),
    "other subnet": lambda mode: full_conf(mode, ipam={"subnet": "10.99.0.0/24"}),
    "no masquerade": lambda mode: full_conf(mode, ipMasq=False),
    "no MAC check": lambda mode: full_conf(mode, macspoofchk=False),
    "impossible MTU": lambda mode: full_conf(mode, mtu="large"),
    "impossible subnet": lambda mode: full_conf(mode, ipam={"subnet": "10.77.0.0/240"}),
    "no ipam": lambda mode: full_conf(mode, ipam={}),
    "ipam is no object": lambda mode: full_conf(mode, ipam=[]),
    "other ipam": lambda mode: full_conf(mode, ipam={"type": "nowhere"}),
    "almost nothing left": unconfigured,
    "other version": lambda mode: full_conf(mode, cniVersion="0.4.0"),
    "strange prevResult": lambda mode: full_conf(mode, prevResult={"ips": 5}),
    "version to come": lambda mode: full_conf(mode, cniVersion="1.0.1"),
    "half a version": lambda mode: full_conf(mode, cniVersion="1.0"),
    "version as a number": lambda mode: full_conf(mode, cniVersion=1.0),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", CHANGED)
def test_after_a_change_of_configuration(
    scene: Scene, pod: Namespace, mode: str, change: str
) -> None:
    scene.add(full_conf(mode), pod)
    answer = scene.call("DEL", CHANGED[change](mode), pod)
    assert answer.code == 0, answer
    assert scene.leftovers(pod) == []


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "relative namespace": {"CNI_NETNS": "run/netns/x"},
    "arguments without values": {"CNI_ARGS": "a;b"},
    "unknown arguments": {"CNI_ARGS": "NEW=1"},
    "half a word": {"CNI_ARGS": "IgnoreUnknown=perhaps"},
    "strange pod": {"CNI_ARGS": "K8S_POD_NAME=/"},
    "strange path": {"CNI_PATH": ":relative:"},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_with_a_wrong_environment(
    scene: Scene, pod: Namespace, mode: str, environment: dict[str, str]
) -> None:
    """Container ID and interface say what goes."""
    attached = scene.add(full_conf(mode), pod)
    answer = scene.call("DEL", attached.conf, pod, env=environment)
    assert answer.code == 0, answer
    assert scene.leftovers(pod) == []


@pytest.mark.parametrize("mode", MODES)
def test_again_and_never_added(scene: Scene, pod: Namespace, mode: str) -> None:
    conf = full_conf(mode)
    before = scene.state(pod)
    assert scene.call("DEL", conf, pod, "never").code == 0
    assert before.changes_to(scene.state(pod)) == []
    attached = scene.add(conf, pod)
    for _ in range(3):
        scene.delete(attached)
        assert scene.leftovers(pod) == []


@pytest.mark.parametrize("mode", MODES)
def test_neighbour_is_left_alone(
    scene: Scene, make_pod: Callable[[], Namespace], mode: str
) -> None:
    conf = full_conf(mode)
    stays = scene.add(conf, make_pod(), "stays")
    goes = scene.add(conf, make_pod(), "goes")
    scene.delete(goes)
    assert scene.check(stays).code == 0
    assert stays.pod.ping("10.77.0.1")
    assert stays.pod.ping(scene.node.underlay.gateway(4)), "it was masqueraded before"


@pytest.mark.parametrize("mode", MODES)
def test_address_and_name_serve_again(scene: Scene, pod: Namespace, mode: str) -> None:
    conf = full_conf(mode, ipam={"subnet": "10.77.0.0/29", "rangeStart": "10.77.0.2", "rangeEnd": "10.77.0.2"})  # fmt: skip  # noqa: E501
    for _ in range(3):
        attached = scene.add(conf, pod)
        assert attached.address(4) == "10.77.0.2"
        assert pod.ping("10.77.0.1")
        scene.delete(attached)
    assert scene.leftovers(pod) == []


@pytest.mark.parametrize("reference", ["bridge", "ptp"])
def test_pod_of_the_reference_plugin(
    scene: Scene, pod: Namespace, tmp_path: Path, reference: str
) -> None:
    """A node that changed over to podwire under running pods."""
    conf = {
        "cniVersion": "1.0.0",
        "name": "robust",
        "type": reference,
        "bridge": BRIDGE,
        "isGateway": True,
        "ipam": {"type": "host-local", "dataDir": str(tmp_path), **ipam(4)},
    }
    answer = scene.node.cni("ADD", DEBIAN / reference, conf, netns=pod.path)
    assert answer.code == 0, answer
    conf["prevResult"] = answer.json
    answer = scene.call("DEL", conf, pod, program=reference, cni_path=str(DEBIAN))
    assert answer.code == 0, answer
    assert scene.leftovers(pod) == []
    files = {path.name for path in (tmp_path / "robust").iterdir()}
    assert not {name for name in files if name.startswith("10.")}, "host-local's address is held"


@pytest.mark.parametrize("mode", MODES)
def test_delegated_address_is_given_back_last(
    scene: Scene, pod: Namespace, tmp_path: Path, mode: str
) -> None:
    """An IPAM plugin that fails at DEL keeps the record for the next DEL."""
    delegated = {"type": "host-local", "dataDir": str(tmp_path), **ipam(4)}
    conf = full_conf(mode, cniVersion="1.0.0", ipam=delegated)
    scene.add(conf, pod, cni_path=str(DEBIAN))
    answer = scene.call("DEL", conf, pod, cni_path="/nowhere")
    assert answer.json["code"] == 7
    assert "attachment" in scene.rows()
    answer = scene.call("DEL", {**conf, "ipam": {"subnet": "10.99.0.0/24"}}, pod, cni_path=str(DEBIAN))  # fmt: skip  # noqa: E501
    assert answer.code != 0 or scene.leftovers(pod) == []
