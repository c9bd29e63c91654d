"""`source` of podwired.yaml: a cluster's engines, every key, and every way of getting one wrong."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from daemon.config.load import parse_settings
from daemon.config.schema import (
    EtcdSettings,
    KubernetesSettings,
    PrefixLengths,
    Settings,
    SourceSettings,
)
from daemon.config.yaml import FileFault

RANGE = "clusterCIDRs: [10.244.0.0/16]"
ENDPOINT = "endpoints: [https://192.0.2.1:2379]"


def parse(text: str) -> Settings:
    return parse_settings(text.encode(), "podwired.yaml", {}, "host-1")


def parse_source(text: str) -> SourceSettings:
    return parse(f"source: {text}").source


def test_kubernetes_needs_the_ranges_alone() -> None:
    found = parse_source(f"{{kubernetes: {{{RANGE}}}}}")
    assert found.kubernetes == KubernetesSettings(
        cluster_cidrs=(ip_network("10.244.0.0/16"),),
        kubeconfig=None,
        namespace="podwire",
    )
    assert found.kind == "kubernetes"


def test_every_key_of_kubernetes() -> None:
    text = """
  kubernetes:
    clusterCIDRs: [10.244.0.0/16, "fd00:10:244::/48"]
    kubeconfig: /etc/podwire/kubeconfig
    namespace: net-1
    nodeAddresses: [192.0.2.0/24]
"""
    ranges = ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/48")
    assert parse_source(text).kubernetes == KubernetesSettings(
        cluster_cidrs=ranges,
        kubeconfig=Path("/etc/podwire/kubeconfig"),
        namespace="net-1",
        node_addresses=(ip_network("192.0.2.0/24"),),
    )


def test_etcd_needs_endpoints_and_ranges() -> None:
    found = parse_source(f"{{etcd: {{{ENDPOINT}, {RANGE}}}}}")
    wanted = EtcdSettings(
        endpoints=("https://192.0.2.1:2379",),
        cluster_cidrs=(ip_network("10.244.0.0/16"),),
        prefix_length=PrefixLengths(ipv4=24, ipv6=64),
    )
    assert found.etcd == wanted
    assert (wanted.prefix, wanted.lease_seconds, wanted.addresses) == ("/podwire", 86400, ())
    assert found.kind == "etcd"


def test_every_key_of_etcd() -> None:
    text = """
  etcd:
    endpoints: ["https://[fd00::1]:2379", http://etcd-2.example:2379/]
    clusterCIDRs: [10.244.0.0/16, "fd00:10:244::/48"]
    prefixLength: {ipv4: 26}
    addresses: [192.0.2.7, "fd00::7"]
    caFile: /etc/e/ca
    certFile: /etc/e/cert
    keyFile: /etc/e/key
    username: node
    passwordFile: /etc/e/password
    prefix: /net/a
    leaseSeconds: 600
"""
    assert parse_source(text).etcd == EtcdSettings(
        endpoints=("https://[fd00::1]:2379", "http://etcd-2.example:2379"),
        cluster_cidrs=(ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/48")),
        prefix_length=PrefixLengths(ipv4=26, ipv6=64),
        addresses=(ip_address("192.0.2.7"), ip_address("fd00::7")),
        ca_file=Path("/etc/e/ca"),
        cert_file=Path("/etc/e/cert"),
        key_file=Path("/etc/e/key"),
        username="node",
        password_file=Path("/etc/e/password"),
        prefix="/net/a",
        lease_seconds=600,
    )


def test_static_is_a_path() -> None:
    found = parse_source("{static: /x}")
    assert (found.static, found.kind) == (Path("/x"), "static")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{kubernetes: }", "source: needs one of the keys static, kubernetes, etcd"),
        ("{kubernetes: 1}", "source.kubernetes is 1, must be a mapping"),
        (f"{{static: /x, kubernetes: {{{RANGE}}}}}", "source: has static and kubernetes, must"),
        ("{kubernetes: {clusterCidrs: []}}", "source.kubernetes.clusterCidrs: unknown key; did"),
        ("{kubernetes: {clusterCIDRs: []}}", "source.kubernetes.clusterCIDRs is a list, must ho"),
        (
            "{kubernetes: {clusterCIDRs: [10.0.0.0/8, 10.1.0.0/16]}}",
            "source.kubernetes.clusterCIDRs is a list, must not overlap: 10.0.0.0/8 and",
        ),
        (
            "{kubernetes: {clusterCIDRs: [0.0.0.0/0]}}",
            "source.kubernetes.clusterCIDRs[0] is '0.0.0.0/0', must not overlap 0.0.0.0/8",
        ),
        (f"{{kubernetes: {{{RANGE}, namespace: a/b}}}}", "source.kubernetes.namespace is 'a/b'"),
        (f"{{kubernetes: {{{RANGE}, kubeconfig: x}}}}", "source.kubernetes.kubeconfig is 'x', m"),
        (f"{{etcd: {{{RANGE}}}}}", "source.etcd: needs the key endpoints"),
        (f"{{etcd: {{endpoints: [], {RANGE}}}}}", "source.etcd.endpoints is a list, must hold"),
        (
            f"{{etcd: {{{ENDPOINT}, {RANGE}, certFile: /x}}}}",
            "source.etcd: needs both of certFile and keyFile, or none",
        ),
        (
            f"{{etcd: {{{ENDPOINT}, {RANGE}, passwordFile: /x}}}}",
            "source.etcd: needs both of username and passwordFile, or none",
        ),
        (
            f"{{etcd: {{{ENDPOINT}, {RANGE}, prefixLength: {{ipv4: 12}}}}}}",
            "source.etcd: prefixLength.ipv4 is 12, which does not fit into 10.244.0.0/16",
        ),
        (
            f"{{etcd: {{{ENDPOINT}, {RANGE}, prefixLength: {{v4: 12}}}}}}",
            "source.etcd.prefixLength.v4: unknown key; did you mean ipv4?",
        ),
        (
            f"{{etcd: {{{ENDPOINT}, {RANGE}, addresses: [192.0.2.1, 192.0.2.2]}}}}",
            "source.etcd: addresses: one of each family at most",
        ),
        (f"{{etcd: {{{ENDPOINT}, {RANGE}, prefix: ../x}}}}", "source.etcd.prefix is '../x', must"),
        (
            f"{{etcd: {{{ENDPOINT}, {RANGE}, leaseSeconds: 59}}}}",
            "source.etcd.leaseSeconds is 59, must be a whole number from 60 to",
        ),
        (
            f"{{etcd: {{endpoints: ['https://me:hush@192.0.2.1:2379'], {RANGE}}}}}",
            "source.etcd.endpoints[0]: must be a URL like https://192.0.2.1:2379: scheme, host and"
            " port, no user and no password",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(FileFault) as caught:
        parse_source(text)
    assert str(caught.value).startswith(f"podwired.yaml:1: {message}"), caught.value


@pytest.mark.parametrize(
    "url",
    [
        *("192.0.2.1:2379", "https://192.0.2.1", "ftp://x:1", "https://u:p@x:1", "https://x:1/y"),
        *("https://x:0", "https://x:99999", "https://:1", "https://[::1", "https://x:1?a", "//x:1"),
        *("https://a b:1", "https://x:1#f", "https://[fe80::1%25eth0]:1", ""),
    ],
)
def test_an_endpoint_is_scheme_host_and_port(url: str) -> None:
    with pytest.raises(FileFault, match=r"endpoints\[0\](:| is .*,) must be a URL like"):
        parse_source(f"{{etcd: {{endpoints: ['{url}'], {RANGE}}}}}")


@pytest.mark.parametrize("key", ["health", "metrics"])
def test_what_is_not_wanted_is_none(key: str) -> None:
    settings = parse(f"source: {{static: /x}}\n{key}: false\n")
    assert getattr(settings, key) is None
