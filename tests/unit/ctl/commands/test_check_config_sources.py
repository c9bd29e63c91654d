"""check-config and cleanup of a node whose cluster is an engine's, not a file's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ctl.__main__ import main

KUBECONFIG = """\
apiVersion: v1
clusters: [{name: c, cluster: {server: "https://192.0.2.1:6443"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: very-secret}}]
current-context: c
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    path = tmp_path / "podwired.yaml"
    path.write_text(
        f"node: node-1\nsource:\n  kubernetes:\n    clusterCIDRs: [10.244.0.0/16]\n"
        f"    kubeconfig: {tmp_path}/kubeconfig\ndataDir: {tmp_path}/data\n"
    )
    return path


def check(config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(["check-config", str(config)])
    out, err = capsys.readouterr()
    return status, out + err


def test_what_is_right_is_summed_up(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = check(config, capsys)
    assert status == 0, text
    assert f"Kubernetes, namespace podwire, by {config.parent}/kubeconfig" in text
    assert "pod CIDRs in   10.244.0.0/16" in text
    assert "this node      node-1" in text


def test_a_pods_account_is_not_looked_for_elsewhere(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if "kubeconfig" not in line))
    status, text = check(config, capsys)
    assert status == 0, text
    assert "by the pod's service account" in text


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "is empty"),
        ("users: very-secret", "has no `current-context`"),
        ("{", "is no configuration"),
    ],
)
def test_a_kubeconfig_that_is_none_is_named_without_its_content(
    config: Path, capsys: pytest.CaptureFixture[str], content: str, fault: str
) -> None:
    (config.parent / "kubeconfig").write_text(content)
    status, text = check(config, capsys)
    assert status == 1
    assert f"{config.parent}/kubeconfig {fault}" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("user", "fault"),
    [
        ("auth-provider: {name: very-secret}", "`auth-provider` in its user 'u', which podwire"),
        ("tokenFile: token", "`tokenFile` {folder}/token, which cannot be read: No such file"),
        (
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./helper}",
            "`exec` that has a command that is not found: {folder}/helper",
        ),
    ],
)
def test_what_a_kubeconfig_has_and_podwire_cannot_do_is_named(
    config: Path, capsys: pytest.CaptureFixture[str], user: str, fault: str
) -> None:
    kubeconfig = KUBECONFIG.replace("token: very-secret", user)
    (config.parent / "kubeconfig").write_text(kubeconfig)
    status, text = check(config, capsys)
    assert status == 1
    assert fault.format(folder=config.parent) in text
    assert "secret" not in text


def test_a_library_that_is_missing_is_named(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = [m for m in sys.modules if m.startswith("daemon.sources.") and "remote" not in m]
    for module in sorted(loaded, reverse=True):  # what a package has before the package
        parent, _, name = module.rpartition(".")
        monkeypatch.setattr(sys.modules[parent], name, sys.modules[module])  # to be restored
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    status, text = check(config, capsys)
    assert status == 1
    assert "pip install 'podwire[kubernetes]'" in text
