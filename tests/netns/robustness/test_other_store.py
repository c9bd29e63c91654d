"""DEL, CHECK and GC find an attachment whose store the configuration does not name any more."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.netns.robustness.confs import Conf, ipam, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace

MakePod = Callable[[], Namespace]
OTHER = "/var/lib/other"


def conf_of(**keys: Any) -> Conf:
    return netconf("ptp", (4, 6), ipMasq=True, ipam=ipam(4, 6, **keys))


def rows_of(scene: Scene, folder: str) -> set[str]:
    """Containers that a store knows."""
    sql = "SELECT container_id FROM {} UNION SELECT container_id FROM {}"
    words = ["sqlite3", f"{folder}/podwire.db", sql.format("allocation", "attachment")]
    return set(scene.node.run(words).stdout.split())


CHANGES: dict[str, tuple[Conf, dict[str, str], Conf, dict[str, str]]] = {
    "named at ADD": (conf_of(dataDir=OTHER), {}, conf_of(), {}),
    "named at DEL": (conf_of(), {}, conf_of(dataDir=OTHER), {}),
    "in the environment of ADD": (conf_of(), {"PODWIRE_DATA_DIR": OTHER}, conf_of(), {}),
    "in the environment of DEL": (conf_of(), {}, conf_of(), {"PODWIRE_DATA_DIR": OTHER}),
    "of no use at DEL": (conf_of(dataDir=OTHER), {}, conf_of(dataDir=5), {}),
    "no ipam at DEL": (conf_of(dataDir=OTHER), {}, netconf("ptp", ipam={}), {}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("pod_is_there", [True, False], ids=["pod", "no pod"])
def test_delete(
    scene: Scene,
    make_pod: MakePod,
    change: tuple[Conf, dict[str, str], Conf, dict[str, str]],
    pod_is_there: bool,
) -> None:
    at_add, env, at_delete, env_of_delete = change
    pod = make_pod()
    scene.add(at_add, pod, "c1", env=env)
    if not pod_is_there:
        pod.vanish()
    netns = pod.path if pod_is_there else ""
    answer = scene.call("DEL", at_delete, netns, "c1", env=env_of_delete)
    assert answer.code == 0, answer
    for folder in ("/var/lib/podwire", OTHER):
        if scene.on_files(Path(folder, "podwire.db").exists):
            assert rows_of(scene, folder) == set()
    assert scene.leftovers(*([pod] if pod_is_there else [])) == []


def test_gc_and_check(scene: Scene, make_pod: MakePod) -> None:
    stays, goes = make_pod(), make_pod()
    kept = scene.add(conf_of(dataDir=OTHER), stays, "stays")
    scene.add(conf_of(dataDir=OTHER), goes, "goes")
    here = scene.add(conf_of(), make_pod(), "here")
    assert rows_of(scene, OTHER) == {"stays", "goes"}
    assert not {here.address(4)} & {kept.address(4), "10.77.0.3"}, "it was taken already"
    kept.conf = conf_of()
    answer = scene.check(kept)
    assert answer.code == 0, answer
    answer = scene.gc(conf_of(), [("stays", "eth0"), ("here", "eth0")])
    assert answer.code == 0, answer
    assert rows_of(scene, OTHER) == {"stays"}
    assert rows_of(scene, "/var/lib/podwire") == {"stays", "here"}
    assert scene.links(goes) == {"lo"}
    assert stays.ping("10.77.0.1")
    scene.delete(kept)
    scene.delete(here)
    assert scene.leftovers(stays, goes) == []


def test_the_ipam_plugin_alone(scene: Scene, pod: Namespace) -> None:
    conf = {**conf_of(dataDir=OTHER), "cniVersion": "1.1.0"}
    assert scene.call("ADD", conf, pod, program="podwire-ipam").code == 0
    assert rows_of(scene, OTHER) == {"c1"}
    assert scene.call("DEL", conf_of(), pod, program="podwire-ipam").code == 0
    assert rows_of(scene, OTHER) == set()


@pytest.mark.parametrize("program", ["podwire", "podwire-ipam"])
def test_no_two_stores_give_one_address(scene: Scene, make_pod: MakePod, program: str) -> None:
    """As where pods start with the daemon's dataDir, and while it is away without one."""
    confs = [{**conf_of(**keys), "cniVersion": "1.1.0"} for keys in ({}, {"dataDir": OTHER})]
    names = [f"c{number}" for number in range(6)]
    given = []
    for number, name in enumerate(names):
        answer = scene.call("ADD", confs[number % 2], make_pod(), name, program=program)
        assert answer.code == 0, answer
        given += answer.addresses
    assert len(set(given)) == len(given) == 12
    for name in names:
        assert scene.call("DEL", conf_of(), "", name, program=program).code == 0
    assert rows_of(scene, OTHER) == rows_of(scene, "/var/lib/podwire") == set()
    assert scene.leftovers() == []
