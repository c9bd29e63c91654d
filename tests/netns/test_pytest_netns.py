"""The namespace fixtures themselves: what the other tests stand on."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pytest_netns import MakeNamespace, MakeNode, Namespace, Node, Underlay, changes, snapshot
from tests.pytest_netns.reaper import named
from tests.pytest_netns.underlay import Family

PLUGIN_ROOT = Path(__file__).resolve().parents[2]


def test_namespaces_are_distinct_and_empty(netns: MakeNamespace) -> None:
    first, second = netns("a"), netns("a")
    assert first.path.exists()
    assert first.path.stat().st_ino != second.path.stat().st_ino
    assert [link["ifname"] for link in first.ip("link show")] == ["lo"]


def test_addresses_are_the_global_ones(node: Node) -> None:
    """`ip -j` prints an empty object for each link-local address that it leaves out."""
    node.ns.ip_batch("address add 169.254.7.7/16 dev eth0 scope link\n")
    expected = {f"{node.address(4)}/24", f"{node.address(6)}/64"}
    assert node.ns.addresses("eth0") == expected
    assert node.ns.addresses("lo") == set()
    assert node.ns.addresses("absent") == set()


def test_call_works_inside_and_leaves_the_test_outside(pod: Namespace) -> None:
    inside = pod.call(lambda: os.stat("/proc/thread-self/ns/net").st_ino)
    assert inside == pod.path.stat().st_ino
    assert Path("/proc/self/ns/net").stat().st_ino != inside


def test_call_passes_exceptions_on(pod: Namespace) -> None:
    with pytest.raises(FileNotFoundError):
        pod.sysctl("ipv4/conf/absent/forwarding")


def test_removal_kills_what_runs_inside(netns: MakeNamespace) -> None:
    space = netns("busy")
    process = subprocess.Popen(["nsenter", f"--net={space.path}", "sleep", "600"])
    while os.stat(f"/proc/{process.pid}/ns/net").st_ino != space.path.stat().st_ino:
        assert process.poll() is None
    space.remove()
    assert process.wait() == -signal.SIGKILL
    assert not space.path.exists()


def test_removal_is_repeatable(netns: MakeNamespace) -> None:
    space = netns("twice")
    space.remove()
    space.remove()
    assert not space.exists


@pytest.mark.parametrize("family", [4, 6])
def test_nodes_reach_each_other_and_the_underlay(
    make_node: MakeNode, underlay: Underlay, family: Family
) -> None:
    one, other = make_node(), make_node()
    assert one.ns.ping(other.address(family))
    assert one.ns.ping(underlay.gateway(family))
    assert one.address(family) != other.address(family)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8:ffff::1"])
def test_echo_server_tells_the_source(
    node: Node, underlay: Underlay, protocol: str, address: str
) -> None:
    server = underlay.ns.echo("tcp" if protocol == "tcp" else "udp", address)
    assert node.ns.exchange(server) == node.address(6 if ":" in address else 4)
    server.close()
    assert not node.ns.reaches(server)


def test_node_has_the_mtu_that_was_asked_for(make_node: MakeNode, underlay: Underlay) -> None:
    node = make_node(mtu=1400)
    assert node.ns.link("eth0") == {**(node.ns.link("eth0") or {}), "mtu": 1400}
    gateway = underlay.gateway(4)
    assert node.ns.ping(gateway, size=1400, fragment=False)
    assert not node.ns.ping(gateway, size=1401, fragment=False, seconds=2)


def test_node_mounts_are_its_own(node: Node, pod: Namespace) -> None:
    node.run(["touch", "/run/mark", "/var/lib/mark"])
    assert not Path("/run/mark").exists()
    assert not Path("/var/lib/mark").exists()
    assert pod.name in node.run(["ls", "/run/netns"]).stdout.split()
    assert node.run(["ls", "/sys/class/net"]).stdout.split() == ["eth0", "lo"]


def test_names_removed_outside_vanish_on_the_node(node: Node, netns: MakeNamespace) -> None:
    space = netns("short")
    space.remove()
    assert space.name not in node.run(["ls", "/run/netns"]).stdout.split()


def test_cni_result_carries_exit_code_and_output(node: Node) -> None:
    result = node.cni("VERSION", Path("/usr/lib/cni/bridge"), {"cniVersion": "1.0.0"})
    assert result.code == 0
    assert "1.0.0" in result.json["supportedVersions"]
    refused = node.cni("NONSENSE", Path("/usr/lib/cni/bridge"), {"cniVersion": "1.0.0"})
    assert refused.code != 0
    assert refused.json["msg"]


def change_link(ns: Namespace) -> None:
    ns.ip_batch("link add v0 type veth peer name v1")


def change_address(ns: Namespace) -> None:
    ns.ip_batch("address add 10.9.9.9/32 dev eth0")


def change_route(ns: Namespace) -> None:
    ns.ip_batch("route add 2001:db8:9::/64 via 2001:db8:ffff::1")


def change_rule(ns: Namespace) -> None:
    ns.ip_batch("rule add from 10.9.9.9 table 99")


def change_neighbour(ns: Namespace) -> None:
    ns.ip_batch("neighbour add 192.0.2.77 lladdr 02:00:00:00:00:01 dev eth0 nud permanent")


def change_sysctl(ns: Namespace) -> None:
    ns.sysctl("ipv4/conf/eth0/proxy_arp", "1")


def change_nft(ns: Namespace) -> None:
    ns.run(["nft", "add table inet stray"])


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("links", change_link),
        ("addresses", change_address),
        ("routes", change_route),
        ("rules", change_rule),
        ("neighbours", change_neighbour),
        ("sysctls", change_sysctl),
        ("nft", change_nft),
    ],
)
def test_snapshot_shows_a_change(
    node: Node, section: str, change: Callable[[Namespace], None]
) -> None:
    before = snapshot(node.ns)
    change(node.ns)
    assert any(line.startswith(f"+ {section} ") for line in changes(before, snapshot(node.ns)))


def test_snapshot_is_steady_under_traffic(node: Node, underlay: Underlay) -> None:
    node.ns.ping(underlay.gateway(6))
    before = snapshot(node.ns)
    server = underlay.ns.echo("tcp", underlay.gateway(4))
    assert node.ns.exchange(server)
    assert node.ns.ping(underlay.gateway(6))
    assert changes(before, snapshot(node.ns)) == []


SESSIONS = {
    "passes": "assert True",
    "fails": "assert False",
    "is interrupted": "raise KeyboardInterrupt",
    "is killed": "os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("end", SESSIONS)
def test_nothing_remains_however_a_session_ends(tmp_path: Path, end: str) -> None:
    process = run_session(
        tmp_path,
        f"""
        import os
        def test_one(node, pod, underlay):
            underlay.ns.echo("tcp", "192.0.2.1")
            {SESSIONS[end]}
        """,
    )
    output = process.stdout
    assert (process.returncode == 0) == (end == "passes"), output
    assert left_by(output) == [], output


def test_a_leaked_namespace_fails_the_run_and_is_removed(tmp_path: Path) -> None:
    process = run_session(
        tmp_path,
        """
        def test_one(netns_registry):
            netns_registry.make("leaked")
        """,
    )
    assert process.returncode == 1, process.stdout
    assert "network namespaces left behind: pwt-" in process.stdout
    assert left_by(process.stdout) == []


def run_session(directory: Path, test: str) -> "subprocess.CompletedProcess[str]":
    """Run pytest on one file; it prints the prefix of its namespaces' names."""
    file = directory / "test_session.py"
    file.write_text(
        textwrap.dedent(
            """
            import pytest
            pytest_plugins = ("tests.pytest_netns.plugin",)
            @pytest.fixture(autouse=True)
            def tell(netns_registry, capsys):
                with capsys.disabled():
                    print("reaper", netns_registry._reaper.pid, netns_registry.prefix, flush=True)
            """
        )
        + textwrap.dedent(test)
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", directory, file],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PLUGIN_ROOT)},
    )


def left_by(output: str) -> list[str]:
    """Namespaces that the session left, once its reaper is done."""
    words = output.split()
    pid, prefix = words[words.index("reaper") + 1 :][:2]
    while Path(f"/proc/{pid}").exists():
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            break
    return named(prefix)
