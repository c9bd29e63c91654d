"""A kubeconfig or a service account: what is missing is named, what is secret is not."""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.config.schema import KubernetesSettings
from daemon.sources.kubernetes.kubeconfig import read_config
from daemon.sources.remote import SourceError

TOKEN = "s3cr3t-t0k3n"  # noqa: S105
RANGES = (ip_network("10.244.0.0/16"),)


@pytest.mark.parametrize(
    "text",
    ["", "5", "[]", "{", "clusters: 5", f"users: [{{name: u, user: {{token: [{TOKEN}]}}}}]"],
)
def test_what_is_no_kubeconfig_is_refused_without_its_content(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(SourceError, match="kubeconfig") as caught:
        read_config(KubernetesSettings(cluster_cidrs=RANGES, kubeconfig=path))
    assert TOKEN not in str(caught.value)


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"kubeconfig /.*none does not exist"):
        read_config(KubernetesSettings(cluster_cidrs=RANGES, kubeconfig=tmp_path / "none"))


WHOLE: dict[str, Any] = {
    "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1"}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "users": [{"name": "u", "user": {"token": TOKEN}}],
    "current-context": "x",
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "is empty"),
        ({"users": []}, "has no user 'u', which its context 'x' names"),
        ({"users": None}, "has no list `users`"),
        ({"users": [{"name": "u", "token": TOKEN}]}, "entries with `name` and `user`"),
        ({"clusters": []}, "has no cluster 'c', which its context 'x' names"),
        ({"clusters": [{"name": "c", "cluster": {}}]}, "has no `server` in its cluster 'c'"),
        ({"contexts": []}, "has no context 'x', which is its `current-context`"),
        ({"contexts": [{"name": "x", "context": {}}]}, "has no `cluster` in its context 'x'"),
        ({"current-context": ""}, "has no `current-context`"),
    ],
)
def test_what_a_kubeconfig_lacks_is_named(
    tmp_path: Path, change: dict[str, Any] | None, words: str
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("" if change is None else yaml.safe_dump({**WHOLE, **change}))
    with pytest.raises(SourceError, match=re.escape(words)) as caught:
        read_config(KubernetesSettings(cluster_cidrs=RANGES, kubeconfig=path))
    assert str(path) in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_kubeconfig_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    os.mkfifo(path)
    with pytest.raises(SourceError, match="is no regular file"):
        read_config(KubernetesSettings(cluster_cidrs=RANGES, kubeconfig=path))


def test_outside_of_a_pod_a_kubeconfig_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SourceError, match=r"needs the key kubeconfig: .* this is no pod"):
        read_config(KubernetesSettings(cluster_cidrs=RANGES))
