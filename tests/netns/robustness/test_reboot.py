"""After a reboot nothing of the earlier boot holds an address."""

from collections.abc import Callable

import pytest

from tests.netns.robustness.confs import MODES, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace

EARLIER_BOOT = "00000000-1111-2222-3333-444444444444"
TOLD = "the node was restarted: 4 addresses and 2 attachments of the earlier boot are free again"


def reboot(scene: Scene, *pods: Namespace) -> None:
    """As after a reboot: no pod, no link, no rule; the rows are of another boot."""
    for pod in pods:
        pod.vanish()
    for name in scene.links() - {"lo", "eth0"}:
        scene.node.ns.ip_batch(f"link delete {name}")
    scene.node.ns.run(["nft", "flush ruleset"])
    scene.query("UPDATE meta SET value = ? WHERE key = 'boot_id'", EARLIER_BOOT)
    for table in ("allocation", "attachment", "network", "freed"):
        scene.query(f"UPDATE {table} SET boot_id = ?", EARLIER_BOOT)  # noqa: S608


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "GC", "STATUS"])
def test_rows_of_the_earlier_boot_are_freed(
    scene: Scene, make_pod: Callable[[], Namespace], mode: str, verb: str
) -> None:
    conf = netconf(mode, (4, 6), ipMasq=True)
    pods = [make_pod(), make_pod()]
    for number, pod in enumerate(pods):
        scene.add(conf, pod, f"c{number}")
    reboot(scene, *pods)
    pod = make_pod()
    keys = {"cni.dev/valid-attachments": None} if verb == "GC" else {}
    answer = scene.call(verb, {**conf, **keys}, pod, "new")
    assert answer.code == 0, answer
    assert TOLD in answer.stderr
    attached = 1 if verb == "ADD" else 0
    rows = scene.rows()
    assert len(rows.get("allocation", [])) == 2 * attached
    assert len(rows.get("attachment", [])) == attached
    again = scene.call("STATUS", conf)
    assert "restarted" not in again.stderr
    if attached:
        assert pod.ping("10.77.0.1")
        assert scene.call("DEL", conf, pod, "new").code == 0
    assert scene.leftovers(pod) == []


def test_small_range_serves_again(scene: Scene, make_pod: Callable[[], Namespace]) -> None:
    """Freed in another boot, an address needs no rest in this one."""
    small = {"subnet": "10.77.0.0/30", "restPeriod": 3600}
    conf = netconf("ptp", ipam=small)
    pod = make_pod()
    scene.add(conf, pod, "before")
    reboot(scene, pod)
    assert scene.add(conf, make_pod(), "after").address(4) == "10.77.0.2"
