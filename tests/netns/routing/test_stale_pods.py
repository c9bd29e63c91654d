"""A node whose pod CIDR changes says which pods keep addresses of the former one."""

from pathlib import Path

from tests.netns.routing.conftest import Cluster, eventually


def test_pods_of_a_former_pod_cidr_are_told_until_they_are_gone(
    cluster: Cluster, podwire_bin: Path
) -> None:
    one = cluster.join(dataDir=str(cluster.file.parent / "data"))
    eventually(one.is_in_sync)
    pod = one.attach(podwire_bin / "podwire")
    assert "pods" not in one.status()["faults"]
    cluster.write(node_1={"podCIDRs": ["10.244.9.0/24"]})
    eventually(lambda: "pods" in one.status()["faults"] or one.log)
    status = one.status()
    assert status["faults"]["pods"].startswith("1 pod has an address of no pod CIDR of this node")
    assert status["inSync"] is False
    assert one.log.count("recreate them") == 1
    cluster.write()
    eventually(one.is_in_sync)
    assert pod.path
