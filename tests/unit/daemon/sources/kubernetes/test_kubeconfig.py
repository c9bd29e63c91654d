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
from daemon.sources.kubernetes.kubeconfig import Access, read_access
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
        read_access(KubernetesSettings(cluster_cidrs=RANGES, kubeconfig=path))
    assert TOKEN not in str(caught.value)


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"kubeconfig /.*none does not exist"):
        read_access(KubernetesSettings(cluster_cidrs=RANGES, kubeconfig=tmp_path / "none"))


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
        ({"users": None}, "has no user 'u', which its context 'x' names"),
        ({"users": {"u": TOKEN}}, "has no user 'u', which its context 'x' names"),
        ({"users": [{"name": "u", "token": TOKEN}]}, "has no mapping `user` in its user 'u'"),
        ({"users": [{"name": "u", "user": {"token": [TOKEN]}}]}, "has a `token` that is no text"),
        (
            {"clusters": [{"name": "c", "cluster": {"server": "x", "certificate-authority": 5}}]},
            "has a `certificate-authority` that is no text",
        ),
        (
            {
                "clusters": [
                    {"name": "c", "cluster": {"server": "x", "insecure-skip-tls-verify": "no"}}
                ]
            },
            "`insecure-skip-tls-verify` that is neither",
        ),
        ({"clusters": []}, "has no cluster 'c', which its context 'x' names"),
        ({"clusters": [{"name": "c", "cluster": {}}]}, "has no `server` in its cluster"),
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
        read_access(KubernetesSettings(cluster_cidrs=RANGES, kubeconfig=path))
    assert str(path) in str(caught.value)
    assert TOKEN not in str(caught.value)


def read(folder: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> Access:
    """A kubeconfig in that folder, of that user."""
    path = folder / "kubeconfig"
    made = {"server": "https://192.0.2.1", **(cluster or {})}
    change = {
        "users": [{"name": "u", "user": user}],
        "clusters": [{"name": "c", "cluster": made}],
    }
    path.write_text(yaml.safe_dump({**WHOLE, **change}))
    return read_access(KubernetesSettings(cluster_cidrs=RANGES, kubeconfig=path))


def test_entries_of_others_may_be_broken(tmp_path: Path) -> None:
    others = {
        "clusters": [*WHOLE["clusters"], {"name": "other"}, 5],
        "contexts": [{"name": "other", "context": None}, *WHOLE["contexts"]],
        "users": [{"name": "v", "user": {"token": [TOKEN], "auth-provider": 5}}, *WHOLE["users"]],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump({**WHOLE, **others}))
    found = read_access(KubernetesSettings(cluster_cidrs=RANGES, kubeconfig=path))
    assert (found.cluster.server, found.user.token) == ("https://192.0.2.1", TOKEN)


def test_relative_paths_are_from_the_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "token").write_text(TOKEN)
    found = read(tmp_path, {"tokenFile": "token"}, {"certificate-authority": "pki/ca.crt"})
    assert found.user.token_file == str(tmp_path / "token")
    assert found.cluster.ca_file == str(tmp_path / "pki/ca.crt")
    found = read(tmp_path, {"client-certificate": "a.crt", "client-key": "/etc/a.key"})
    assert found.user.certificate_file == str(tmp_path / "a.crt")
    assert found.user.key_file == "/etc/a.key"


def test_data_counts_where_a_file_is_named_too(tmp_path: Path) -> None:
    found = read(
        tmp_path, {}, {"certificate-authority": "ca.crt", "certificate-authority-data": "YQ=="}
    )
    assert found.cluster.ca_file == ""
    assert found.cluster.ca_data == "YQ=="


def test_name_and_proxy_of_the_cluster(tmp_path: Path) -> None:
    found = read(
        tmp_path, {}, {"tls-server-name": "kubernetes", "proxy-url": "http://192.0.2.9:3128"}
    )
    assert (found.server_name, found.proxy) == ("kubernetes", "http://192.0.2.9:3128")


@pytest.mark.parametrize(
    ("user", "cluster", "words"),
    [
        ({"auth-provider": {"name": "gcp"}}, {}, "`auth-provider` in its user 'u'"),
        ({"as": "admin", "token": TOKEN}, {}, "`as` in its user 'u', which podwire does not"),
        ({"as-groups": ["g"]}, {}, "`as-groups` in its user 'u'"),
        ({"tokenFile": "none"}, {}, "`tokenFile` /"),
        ({"exec": 5}, {}, "`exec` that is no mapping"),
        ({}, {"proxy-url": f"socks5://u:{TOKEN}@192.0.2.9:1080"}, "`proxy-url` of another kind"),
        (
            {},
            {"insecure-skip-tls-verify": True, "certificate-authority-data": "YQ=="},
            "both `insecure-skip-tls-verify` and a certificate authority",
        ),
    ],
)
def test_what_podwire_cannot_do_is_refused_by_name(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], words: str
) -> None:
    with pytest.raises(SourceError, match=re.escape(words)) as caught:
        read(tmp_path, user, cluster)
    assert TOKEN not in str(caught.value)


def test_what_has_no_value_is_not_there(tmp_path: Path) -> None:
    found = read(tmp_path, {"token": TOKEN, "as": "", "exec": None}, {"proxy-url": ""})
    assert (found.user.token, found.proxy) == (TOKEN, None)


def test_a_kubeconfig_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    os.mkfifo(path)
    with pytest.raises(SourceError, match="is no regular file"):
        read_access(KubernetesSettings(cluster_cidrs=RANGES, kubeconfig=path))


def test_outside_of_a_pod_a_kubeconfig_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SourceError, match=r"needs the key kubeconfig: .* this is no pod"):
        read_access(KubernetesSettings(cluster_cidrs=RANGES))
