"""The support bundle: what a maintainer asks for, and no secret."""

import json
import re
import tarfile
from pathlib import Path

import pytest

from tests.netns.ctl.conftest import Stage

pytestmark = pytest.mark.xdist_group("podwirectl support-bundle")

SECRET = "hunter2hunter2"  # noqa: S105


def members(path: Path) -> dict[str, str]:
    """The texts by their names below the top folder."""
    with tarfile.open(path) as archive:
        assert all(entry.isfile() and entry.mode == 0o600 for entry in archive)
        found = ((entry.name, archive.extractfile(entry)) for entry in archive)
        return {n.partition("/")[2]: f.read().decode() for n, f in found if f is not None}


def test_all_of_a_node_in_one_file(stage: Stage, tmp_path: Path) -> None:
    stage.add("shop/cart")
    nodes, config = tmp_path / "nodes.yaml", tmp_path / "podwired.yaml"
    address = stage.node.address(4)
    nodes.write_text(f"nodes: [{{name: n1, addresses: [{address}], podCIDRs: [10.77.0.0/24]}}]\n")
    policies = f"policy: {{dir: {tmp_path}}}"
    config.write_text(f"node: n1\nsource: {{static: {nodes}}}\n{policies}\n# password: {SECRET}\n")
    labels = {"app": "cart", "auth-token": SECRET}
    pod = {"kind": "Pod", "metadata": {"namespace": "shop", "name": "cart", "labels": labels}}
    known = {"kind": "List", "items": [pod]}
    stage.node.run(["tee", "/var/lib/podwire/policy.json"], stdin=json.dumps(known))
    folder = Path("/etc/cni/net.d")
    target = tmp_path / "case.tar.gz"
    out, err = stage.ctl("support-bundle", target, "--config", config)
    assert out == f"{target}\n"
    assert "collecting about.json" in err
    assert target.stat().st_mode & 0o777 == 0o600
    found = members(target)
    assert "shop/cart" in found["podwirectl/pods.json"]
    assert '"10.77.0.0/24"' in found["podwirectl/plan.json"]
    assert "is missing" in found["podwirectl/diff.json"]
    assert '"findings"' in found["podwirectl/doctor.json"]
    assert "there is no" in found["podwirectl/status.txt"]
    assert "10.77.0.0/24" in found["files/nodes.yaml"]
    assert '"app": "cart", "auth-token": [removed]' in found["files/policy.json"]
    assert "no mistake in 0 policies" in found["podwirectl/policy-lint.txt"]
    assert "podwire-policy" in found["kernel/nft_podwire-policy.txt"]  # that there is none
    assert "podwire.db" in found["listings/var_lib_podwire.txt"]
    assert "net/ipv4/ip_forward = 1" in found["kernel/sysctls.txt"]
    assert re.search("pw[0-9a-f]{11}", found["kernel/ip_details_statistics_link.txt"])
    assert f"address {address}/24 dev eth0" in found["kernel/state.txt"]
    assert re.search("link pw[0-9a-f]{11} .*podwire net=pods", found["kernel/state.txt"])
    assert '"podwire":' in found["about.json"]
    assert f"listings/{str(folder)[1:].replace('/', '_')}.txt" in [*found, *missing(found)]
    assert "files/journal.jsonl" in missing(found)
    assert not any(SECRET in text for text in found.values())
    # A file that is there stays.
    _, err = stage.ctl("support-bundle", target, "--config", config, status=1)
    assert "File exists" in err


def missing(found: dict[str, str]) -> list[str]:
    return [line.partition(":")[0] for line in found["missing.txt"].splitlines()]


def test_into_a_pipe_and_with_a_broken_configuration(stage: Stage, tmp_path: Path) -> None:
    config = tmp_path / "podwired.yaml"
    config.write_text(f"nod: [\npassword: {SECRET}\n")
    argv = [stage.bin_dir / "podwirectl", "support-bundle", "-", "--quiet", "--config", config]
    target = tmp_path / "piped.tar.gz"
    command = f"{' '.join(map(str, argv))} > {target}"
    done = stage.node.run(["sh", "-c", command], check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = members(target)
    assert found["files/podwired.yaml"] == "nod: [\npassword: [removed]\n"
    assert "podwired.yaml:" in found["podwirectl/status.txt"]
