"""The CNI configuration that the daemon writes: podwire takes it, and no other file is touched."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from ipaddress import ip_network
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugin.config import parse_config
from cni_plugin.shape import shape_of
from cni_plugin.versions import SUPPORTED, require_supported
from daemon.config.schema import ChainedPlugin, ConflistSettings, Mode
from daemon.files import explain
from daemon.journal import MIN_BYTES, Journal
from daemon.log import Log
from daemon.routing.conflist import (
    MARK,
    ConflistReconciler,
    ForeignConflist,
    Kept,
    NoConflist,
    keep_conflist,
    remove_conflist,
    render_conflist,
)
from daemon.routing.planner import Planner
from daemon.routing.reporter import Reporter
from ipam.config import IpamConf, parse_ipam
from kernel.model import IPNetwork
from tests import ROOT
from tests.unit.daemon.clusters import cluster, host_state, node, planned, settings

DATA_DIR = Path("/var/lib/podwire")
V4, V6 = ip_network("10.244.1.0/24"), ip_network("fd00:10:244:1::/64")


def plugin_of(content: bytes) -> dict[str, Any]:
    """The configuration as a runtime hands it to the plugin."""
    raw = json.loads(content)
    (plugin,) = raw["plugins"]
    return {**plugin, "cniVersion": raw["cniVersion"], "name": raw["name"]}


def ipam_of(content: bytes) -> IpamConf:
    conf = parse_config(plugin_of(content))
    return parse_ipam(conf.name, conf.ipam, default_data_dir=DATA_DIR)


@st.composite
def prefixes(draw: st.DrawFn) -> list[IPNetwork]:
    """Prefixes of a node, none overlapping another, in any order."""
    v4 = draw(st.lists(st.integers(0, 255), unique=True, max_size=3))
    v6 = draw(st.lists(st.integers(0, 0xFFFF), unique=True, max_size=3))
    found: list[IPNetwork] = [ip_network(f"10.244.{n}.0/24") for n in v4]
    found += [ip_network(f"fd00:10:244:{n:x}::/64") for n in v6]
    return draw(st.permutations(found)) if found else [V4]


@given(
    prefixes(),
    st.integers(576, 65535),
    st.sampled_from(get_args(Mode)),
    st.booleans(),
    st.sampled_from(SUPPORTED),
)
def test_podwire_takes_what_is_rendered(
    own: list[IPNetwork], mtu: int, mode: Mode, masquerade: bool, version: str
) -> None:
    settings = ConflistSettings(name="pods", mode=mode, ip_masq=masquerade, cni_version=version)
    content = render_conflist(settings, own, mtu)
    conf = parse_config(plugin_of(content))
    assert (conf.name, conf.type, conf.mode) == ("pods", "podwire", mode)
    assert (conf.mtu, conf.ip_masq) == (mtu, masquerade)
    assert require_supported(json.loads(content)["cniVersion"]) == version
    families = {prefix.version for prefix in own}
    sets = ipam_of(content).range_sets
    assert sorted(one[0].subnet.version for one in sets) == sorted(families)
    assert sorted(str(r.subnet) for one in sets for r in one) == sorted(map(str, own))


def test_a_routed_pod_gets_the_default_routes_of_its_families() -> None:
    for own in ([V4], [V6], [V6, V4]):
        routes = ipam_of(render_conflist(ConflistSettings(), own, 1450)).routes
        assert {route.dst.version for route in routes} == {prefix.version for prefix in own}
        assert all(route.dst.prefixlen == 0 for route in routes)


def test_a_bridge_gives_the_default_routes_itself() -> None:
    content = render_conflist(ConflistSettings(mode="bridge"), [V4, V6], 1450)
    assert parse_config(plugin_of(content)).is_default_gateway
    assert ipam_of(content).routes == ()


def test_the_capabilities_are_those_of_the_file_to_copy() -> None:
    copied = json.loads((ROOT / "conf" / "ptp.conflist").read_bytes())["plugins"][0]
    rendered = plugin_of(render_conflist(ConflistSettings(), [V4, V6], 1450))
    assert rendered["capabilities"] == copied["capabilities"]


@pytest.mark.parametrize("checked", [True, False])
def test_the_source_check_is_passed_on(checked: bool) -> None:
    settings = ConflistSettings(
        source_check=checked, allowed_source_prefixes=(V4, V6), non_masquerade_cidrs=(V6, V4)
    )
    conf = parse_config(plugin_of(render_conflist(settings, [V4], 1450)))
    assert shape_of(conf, "podwire").source_check is checked
    assert conf.allowed_source_prefixes == (V4, V6)
    assert conf.non_masquerade_cidrs == (V6, V4)
    assert "sourceCheck" not in plugin_of(render_conflist(ConflistSettings(), [V4], 1450))


def test_a_store_elsewhere_is_named() -> None:
    settings = ConflistSettings()
    assert ipam_of(render_conflist(settings, [V4], 1450)).data_dir == DATA_DIR
    assert "dataDir" not in plugin_of(render_conflist(settings, [V4], 1450))["ipam"]
    elsewhere = Path("/srv/node-2")
    assert ipam_of(render_conflist(settings, [V4], 1450, elsewhere)).data_dir == elsewhere


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.d" / "05-podwire.conflist"


CONTENT = render_conflist(ConflistSettings(), [V4], 1450)
OTHER = render_conflist(ConflistSettings(), [V4, V6], 1430)


def test_written_once_and_rewritten_when_it_differs(path: Path) -> None:
    assert keep_conflist(path, CONTENT).done == "new"
    first = path.stat()
    assert keep_conflist(path, CONTENT).done == "same"
    assert path.stat().st_ino == first.st_ino
    assert keep_conflist(path, OTHER).done == "rewritten"
    assert path.read_bytes() == OTHER
    path.write_bytes(CONTENT.replace(b"1450", b"9000"))
    assert keep_conflist(path, CONTENT).done == "rewritten"
    path.unlink()
    assert keep_conflist(path, CONTENT).done == "new"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("mask", [0o077, 0o000])
def test_every_runtime_may_read_it(path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        keep_conflist(path, CONTENT)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o7777 == 0o644
    path.chmod(0o600)
    assert keep_conflist(path, CONTENT).done == "rewritten"
    assert path.stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize(
    "foreign",
    [
        json.dumps({"cniVersion": "1.0.0", "name": "x", "plugins": [{"podwired": 1}]}).encode(),
        (ROOT / "conf" / "ptp.conflist").read_bytes(),
    ],
)
def test_a_file_without_the_mark_is_left_alone(path: Path, foreign: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(foreign)
    with pytest.raises(ForeignConflist, match=r"05-podwire\.conflist was left as it is.*move it"):
        keep_conflist(path, CONTENT)
    assert not remove_conflist(path)
    assert path.read_bytes() == foreign
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"not JSON",
        b"[" * 100_000,
        b"null",
        b'["podwired"]',
        CONTENT[:-10],
        CONTENT.replace(b"1450", b"NaN"),
        CONTENT.decode().encode("utf-16"),
        b"\xef\xbb\xbf" + CONTENT,
        CONTENT + b" " * (5 << 20) + b"{",
    ],
)
def test_what_no_runtime_can_read_is_replaced_if_it_stays(path: Path, damage: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(damage)
    with pytest.raises(NoConflist) as caught:
        keep_conflist(path, CONTENT)
    with pytest.raises(NoConflist):
        keep_conflist(path, CONTENT, b"another state of it")
    assert path.read_bytes() == damage
    assert not remove_conflist(path), "it may be another program's"
    assert keep_conflist(path, CONTENT, caught.value.content).done == "rewritten"
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_another_program_writes_has_time_to_become_whole(
    path: Path, tmp_path: Path
) -> None:
    found = settings(f"conflist: {{path: {path}}}")
    desired = planned(Planner(found), cluster(node(1)), host_state())
    now = [100.0]
    reporter = Reporter(Journal(tmp_path / "journal.jsonl", MIN_BYTES), Log())
    conflist = ConflistReconciler(found, reporter, lambda: now[0])
    path.parent.mkdir()
    path.write_bytes(b"{")
    for later, done in ((0.0, False), (0.3, False), (0.2, True)):
        now[0] += later
        assert conflist.reconcile(desired) is done
    assert json.loads(path.read_bytes())["plugins"]


def test_links_folders_and_pipes_are_left_alone(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    other = tmp_path / "other"
    other.write_bytes(CONTENT)
    path.symlink_to(other)
    with pytest.raises(ForeignConflist, match="symbolic link"):
        keep_conflist(path, OTHER)
    with pytest.raises(OSError, match="symbolic link"):
        remove_conflist(path)
    assert other.read_bytes() == CONTENT
    path.unlink()
    path.mkdir()
    with pytest.raises(ForeignConflist, match="no regular file"):
        keep_conflist(path, OTHER)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(ForeignConflist, match="no regular file"):
        keep_conflist(path, OTHER)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        with pytest.raises(ForeignConflist, match="no regular file"):
            keep_conflist(path, OTHER)
    assert path.is_socket()


def test_removed_with_its_mark_alone(path: Path) -> None:
    assert not remove_conflist(path)
    keep_conflist(path, CONTENT)
    assert remove_conflist(path)
    assert list(path.parent.iterdir()) == []
    assert not remove_conflist(path)


def test_the_remains_of_a_killed_writer_are_no_hindrance(path: Path) -> None:
    path.parent.mkdir()
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(b"half")
    assert keep_conflist(path, CONTENT).done == "new"
    assert list(path.parent.iterdir()) == [path]
    # And no runtime takes it meanwhile: libcni reads .conf, .conflist and .json.
    assert fresh.suffix == ".new"


def test_a_folder_that_cannot_be_written_keeps_the_old_file(path: Path) -> None:
    keep_conflist(path, CONTENT)
    fresh = path.with_name(f".{path.name}.new")
    fresh.mkdir()  # the new file cannot be made, even by root
    with pytest.raises(OSError, match=r"conflist\.new"):
        keep_conflist(path, OTHER)
    assert path.read_bytes() == CONTENT


def test_a_reader_never_sees_half_a_file(path: Path) -> None:
    keep_conflist(path, CONTENT)
    done = threading.Event()
    seen: set[bytes] = set()

    def look() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for _, content in product(range(100), (OTHER, CONTENT)):
        keep_conflist(path, content)
    done.set()
    reader.join()
    assert seen <= {CONTENT, OTHER}


KILLED = """
import sys
from pathlib import Path
from daemon.routing.conflist import keep_conflist
path, contents = Path(sys.argv[1]), [Path(name).read_bytes() for name in sys.argv[2:]]
while True:
    for content in contents:
        keep_conflist(path, content)
        print(flush=True)
"""


def test_a_killed_writer_leaves_a_whole_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    (tmp_path / "b").write_bytes(OTHER)
    argv = [sys.executable, "-c", KILLED, str(path), str(tmp_path / "a"), str(tmp_path / "b")]
    for rounds in range(1, 5):
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        for _ in range(10 * rounds):
            process.stdout.readline()
        process.kill()
        process.communicate()
        assert path.read_bytes() in (CONTENT, OTHER)
    keep_conflist(path, CONTENT)
    assert list(path.parent.iterdir()) == [path]


def test_the_mark_tells_a_person_what_to_do() -> None:
    assert "podwired.yaml" in json.loads(CONTENT)[MARK]


def test_a_link_that_leads_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "net.d").symlink_to(tmp_path / "gone")
    with pytest.raises(NotADirectoryError) as caught:
        keep_conflist(tmp_path / "net.d" / "05-podwire.conflist", CONTENT)
    text = explain("the CNI configuration", tmp_path / "x", caught.value, "conflist.path")
    assert f"Not a directory ({tmp_path}/net.d); a part of its path is no folder" in text


def test_podwires_file_behind_a_link_is_reported(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "05-podwire.conflist"
    link.symlink_to(target)
    target.write_bytes(b'{"plugins": []}')
    assert not remove_conflist(link), "another program's"
    target.write_bytes(CONTENT)
    with pytest.raises(OSError, match="is a symbolic link to a CNI configuration of podwire"):
        remove_conflist(link)
    assert link.is_symlink()
    assert target.exists()


# -- other programs' plugins


MESH = {"name": "istio-cni", "type": "istio-cni", "log_level": "info"}


def install(path: Path, entry: dict[str, Any], *, remove: bool = False) -> None:
    """As the installers of istio and linkerd: keys sorted, an entry of the type replaced."""
    conf = json.loads(path.read_bytes())
    conf["plugins"] = [e for e in conf["plugins"] if e["type"] != entry["type"]]
    conf["plugins"] += [] if remove else [entry]
    fresh = path.with_name(f"{path.name}.install")
    fresh.write_text(json.dumps(conf, sort_keys=True, indent=1))
    fresh.rename(path)


def entries(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_bytes())["plugins"])


def test_an_installers_entry_stays_until_it_is_removed(path: Path) -> None:
    keep_conflist(path, CONTENT)
    install(path, MESH)
    as_installed = path.stat()
    assert keep_conflist(path, CONTENT) == Kept("same", ("istio-cni",))
    assert path.stat().st_ino == as_installed.st_ino, "rewritten, and so the installer woken"
    assert keep_conflist(path, OTHER) == Kept("rewritten", ("istio-cni",))
    assert entries(path) == [*json.loads(OTHER)["plugins"], MESH]
    install(path, MESH, remove=True)
    assert keep_conflist(path, OTHER) == Kept("same")
    assert entries(path) == json.loads(OTHER)["plugins"]


def test_podwires_own_entry_is_restored_beside_an_installers(path: Path) -> None:
    keep_conflist(path, CONTENT)
    install(path, MESH)
    path.write_bytes(path.read_bytes().replace(b"1450", b"9000"))
    assert keep_conflist(path, CONTENT) == Kept("rewritten", ("istio-cni",))
    assert entries(path) == [*json.loads(CONTENT)["plugins"], MESH]


def test_another_mode_is_no_new_file(path: Path) -> None:
    keep_conflist(path, CONTENT)
    path.chmod(0o600)
    inode = path.stat().st_ino
    assert keep_conflist(path, CONTENT).done == "rewritten"
    assert path.stat().st_ino == inode


def test_configured_plugins_follow_podwires_entry(path: Path) -> None:
    portmap = ChainedPlugin.model_validate({"type": "portmap", "capabilities": {"p": True}})
    content = render_conflist(ConflistSettings(plugins=(portmap,)), [V4], 1450)
    keep_conflist(path, content)
    install(path, MESH)
    assert keep_conflist(path, content).others == ("istio-cni",)
    assert [entry["type"] for entry in entries(path)] == ["podwire", "portmap", "istio-cni"]
    assert entries(path)[1] == {"type": "portmap", "capabilities": {"p": True}}
    assert keep_conflist(path, CONTENT).others == ("istio-cni",)
    assert [entry["type"] for entry in entries(path)] == ["podwire", "istio-cni"]


@pytest.mark.parametrize("last", ["appended", "removed"])
def test_nothing_is_lost_when_both_write_at_once(path: Path, last: str) -> None:
    """Whatever the interleaving: the installer's last write counts, by one more look at most."""
    keep_conflist(path, CONTENT)
    for _ in range(40):
        start = threading.Barrier(2)

        def append() -> None:
            start.wait()  # noqa: B023 - joined below
            for n in range(4):
                install(path, MESH, remove=n % 2 == (0 if last == "appended" else 1))

        installer = threading.Thread(target=append)
        installer.start()
        start.wait()
        for content in (OTHER, CONTENT) * 3:
            keep_conflist(path, content)
        installer.join()
        # It read a file, and wrote it with its change: ours may be the one of before.
        keep_conflist(path, CONTENT)
        expected = [*json.loads(CONTENT)["plugins"], *([MESH] if last == "appended" else [])]
        assert entries(path) == expected
        assert {file.name for file in path.parent.iterdir()} == {path.name}
