"""`podman run`, with its CNI back end, puts containers on a network of podwire's."""

import json
import tarfile
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from daemon.config.schema import ConflistSettings, Mode
from daemon.routing.conflist import render_conflist
from tests.netns.clients.conftest import Held, WriteNetwork
from tests.pytest_netns import Node, Underlay

pytestmark = pytest.mark.needs("podman")

BUSYBOX = Path("/bin/busybox")
ROOT = Path(__file__).resolve().parents[3]

# cgroups off and limits as they are: containers come up without privileges that CI may lack.
CONFIGURATION = """
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{plugins}"]
network_config_dir = "{networks}"
default_network = "pods"
"""

NETWORK = {
    "type": "podwire",
    "mode": "bridge",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": {"ranges": [[{"subnet": "10.44.0.0/24"}], [{"subnet": "2001:db8:44::/64"}]]},
}

Podman = Callable[..., str]


@pytest.fixture
def podman(
    node: Node, podwire_bin: Path, write_network: WriteNetwork, tmp_path: Path
) -> Iterator[Podman]:
    """Runs podman on the node; what it keeps is in the node's own /run and /var/lib."""
    # podman 4 refuses lists of 1.1.0.
    networks = write_network("pods", NETWORK, version="1.0.0")
    conf = tmp_path / "containers.conf"
    conf.write_text(CONFIGURATION.format(plugins=podwire_bin, networks=networks))
    env = {"CONTAINERS_CONF": str(conf), "HOME": str(tmp_path)}
    # podman names its namespaces in /run/netns: in a directory of the node's own. crun refuses
    # some arrangements of cgroups even when told to use none: it finds none.
    for place in ("/run/netns", "/sys/fs/cgroup"):
        node.run(["mount", "-t", "tmpfs", "podwire-test", place])

    def run(*args: str | Path) -> str:
        return node.run(["podman", "--storage-driver", "vfs", *args], env=env).stdout

    run("import", busybox_image(tmp_path), "busybox")
    yield run
    run("rm", "--all", "--force", "--time", "0")


def busybox_image(directory: Path) -> Path:
    """A root file system with busybox and one page to serve."""
    page = directory / "index.html"
    page.write_text("hello from a container")
    archive = directory / "busybox.tar"
    with tarfile.open(archive, "w") as image:
        image.add(BUSYBOX, "bin/busybox")
        image.add(page, "www/index.html")
    return archive


def addresses(podman: Podman, container: str) -> tuple[str, str]:
    """The container's addresses as podman knows them, IPv4 and IPv6."""
    networks = json.loads(
        podman("inspect", container, "--format", "{{json .NetworkSettings.Networks}}")
    )
    return networks["pods"]["IPAddress"], networks["pods"]["GlobalIPv6Address"]


def test_containers_reach_each_other_and_the_world_and_leave_nothing(
    podman: Podman, node: Node, underlay: Underlay, held: Held
) -> None:
    start = ("run", "--detach", "--network", "pods", "--name")
    busybox = ("busybox", "/bin/busybox")
    podman(*start, "server", *busybox, "httpd", "-f", "-h", "/www")
    podman(*start, "client", *busybox, "sleep", "600")
    execute = ("exec", "client", "/bin/busybox")

    ip4, ip6 = addresses(podman, "server")
    for host in (ip4, f"[{ip6}]"):
        page = podman(*execute, "wget", "-q", "-O", "-", f"http://{host}/index.html")
        assert page == "hello from a container"

    outside = underlay.ns.echo("tcp", underlay.gateway(4))
    address, port = outside.listens
    assert podman(*execute, "nc", address, str(port)) == node.address(4)
    assert len(held()) == 4

    podman("rm", "--force", "--time", "0", "server", "client")
    assert held() == []
    assert {link["ifname"] for link in node.ip("link show")} == {"lo", "eth0", "cni0"}


def test_a_restarted_container_gets_its_network_again(podman: Podman, held: Held) -> None:
    podman("run", "--detach", "--name", "server", "busybox", "/bin/busybox", "sleep", "600")
    podman("restart", "--time", "0", "server")
    listing = podman("exec", "server", "/bin/busybox", "ip", "address", "show", "eth0")
    assert all(address in listing for address in addresses(podman, "server"))
    assert len(held()) == 2


def test_a_network_of_two_interfaces(podman: Podman, write_network: WriteNetwork) -> None:
    second = {**NETWORK, "bridge": "cni1", "ipam": {"ranges": [[{"subnet": "10.45.0.0/24"}]]}}
    write_network("more", {**second, "isDefaultGateway": False, "isGateway": True}, version="1.0.0")
    links = podman(
        *("run", "--rm", "--network", "pods", "--network", "more", "busybox"),
        *("/bin/busybox", "ip", "-o", "-4", "address"),
    )
    assert "10.44.0." in links
    assert "10.45.0." in links


def test_errors_reach_the_person(podman: Podman, node: Node) -> None:
    node.ns.ip_batch("link add cni0 type veth peer name other\n")
    with pytest.raises(AssertionError, match="cni0"):
        podman("run", "--rm", "busybox", "/bin/busybox", "true")


def test_the_configuration_to_copy_works_as_it_stands(
    podman: Podman, write_network: WriteNetwork, held: Held
) -> None:
    """podman sends every capability that the file declares, aliases in a shape of its own."""
    shipped = json.loads((ROOT / "conf" / "bridge.conflist").read_text())
    write_network(shipped["name"], *shipped["plugins"], version=shipped["cniVersion"])
    start = ("run", "--detach", "--network", "bridged", "--network-alias", "web", "--name")
    podman(*start, "server", "busybox", "/bin/busybox", "sleep", "600")
    listing = podman("exec", "server", "/bin/busybox", "ip", "address", "show", "eth0")
    assert "10.89.0." in listing
    podman("rm", "--force", "--time", "0", "server")
    assert held() == []


@pytest.mark.parametrize("mode", ["ptp", "bridge"])
def test_what_the_daemon_writes_works_as_it_stands(
    podman: Podman, tmp_path: Path, held: Held, mode: Mode
) -> None:
    prefixes = (ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64"))
    content = render_conflist(ConflistSettings(mode=mode), prefixes, mtu=1450)
    (tmp_path / "net.d" / "05-podwire.conflist").write_bytes(content)
    links = podman(
        "run", "--rm", "--network", "podwire", "busybox", "/bin/busybox", "ip", "address"
    )
    assert "mtu 1450" in links
    assert "10.244.1.2/24" in links
    assert "fd00:10:244:1::2/64" in links
    assert held() == []


def test_the_default_network_of_podman(
    podman: Podman, node: Node, underlay: Underlay, tmp_path: Path, held: Held
) -> None:
    """bridge, portmap, firewall and tuning by their names, and a published port."""
    listed = (Path(__file__).parent / "conflists" / "podman.conflist").read_text()
    (tmp_path / "net.d" / "87-podman-bridge.conflist").write_text(listed)
    start = ("run", "--detach", "--network", "podman", "--publish", "8080:80", "--name", "server")
    podman(*start, "busybox", "/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www")
    fetch = ["/bin/busybox", "wget", "-q", "-O", "-", f"http://{node.address(4)}:8080/index.html"]
    for space in (underlay.ns, node.ns):
        assert space.run(fetch).stdout == "hello from a container"
    podman("rm", "--force", "--time", "0", "server")
    assert held() == []
    assert underlay.ns.run(fetch, check=False).returncode != 0
    assert {link["ifname"] for link in node.ip("link show")} <= {"lo", "eth0", "cni-podman0"}
