"""docs/configuration.md lists every key that the code reads, with its default."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from cni_plugin.config import parse_config
from cni_plugin.plugins.firewall import parse as parse_firewall
from cni_plugin.request import parse_request
from daemon.config.load import parse_settings
from daemon.config.schema import Section, Settings
from daemon.config.yaml import FileFault
from daemon.sources.static import NodesFile
from ipam.config import parse_ipam
from ipam.json_section import Section as JsonSection
from tests import PACKAGES, ROOT
from tests.unit.docs.pages import codes, read, rows, section

PAGE = read("configuration.md")
SETTINGS = {
    row[0].strip("`"): row
    for heading in ("podwired.yaml", "Kubernetes", "etcd")
    for row in rows(section(PAGE, heading))
}
CLUSTER = {"clusterCIDRs": ["10.0.0.0/8"]}
SOURCES: dict[str, Any] = {
    "static": "/etc/podwire/nodes.yaml",
    "kubernetes": CLUSTER,
    "etcd": CLUSTER | {"endpoints": ["https://192.0.2.1:2379"]},
}


def keys_of(model: type[Section], path: str = "") -> Iterator[str]:
    """The keys of a section with their path; those of lists have [] in it."""
    for field in model.model_fields.values():
        key = f"{path}{field.alias}"
        inner = section_in(field.annotation)
        if inner is None or not is_nested(field.annotation):
            yield key
        if inner is not None:
            yield from keys_of(inner, f"{key}{'[]' if '...' in str(field.annotation) else ''}.")


def section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)


def is_nested(annotation: Any) -> bool:
    """Whether the key is a mapping and nothing else, which has no row of its own."""
    return isinstance(annotation, type) and annotation.__name__ in (
        "VxlanSettings",
        "PrefixLengths",
        "JournalSettings",
    )


def test_every_key_of_podwired_yaml_has_a_row() -> None:
    assert set(SETTINGS) == set(keys_of(Settings))


def test_every_key_of_nodes_yaml_has_a_row() -> None:
    listed = {row[0].strip("`") for row in rows(section(PAGE, "nodes.yaml"))}
    assert listed == set(keys_of(NodesFile))


def parse(source: str, values: Mapping[str, object]) -> Settings:
    tree: dict[str, Any] = {"source": {source: SOURCES[source]}, "node": "node-1"}
    for key, value in values.items():
        *path, last = key.split(".")
        inner = tree
        for step in path:
            inner[step] = dict(inner.get(step) or {})
            inner = inner[step]
        inner[last] = value
    return parse_settings(yaml.safe_dump(tree).encode(), "podwired.yaml", {}, "node-1")


@pytest.mark.parametrize("source", SOURCES)
def test_the_defaults_are_the_defaults(source: str) -> None:
    defaults = {
        key: yaml.safe_load(cell.strip("`"))
        for key, (_, _, cell, _) in SETTINGS.items()
        if re.fullmatch("`[^`]*`", cell)
        and (not key.startswith("source.") or key.startswith(f"source.{source}."))
    }
    assert defaults
    assert parse(source, defaults) == parse(source, {})


NUMBERS = {
    key: (int(found[1]), int(found[2]))
    for key, (_, kind, _, _) in SETTINGS.items()
    if (found := re.search(r"(\d+) to (\d+)$", kind))
}


@pytest.mark.parametrize("key", NUMBERS)
def test_the_bounds_are_the_bounds(key: str) -> None:
    least, most = NUMBERS[key]
    source = key.split(".")[1] if key.startswith("source.") else "static"
    for number in (least, most):
        parse(source, {key: number})
    for number in (least - 1, most + 1):
        with pytest.raises(FileFault):
            parse(source, {key: number})


def test_required_keys_are_required() -> None:
    required = {key for key, (_, _, cell, _) in SETTINGS.items() if cell == "required"}
    assert required == {
        "source",
        "source.etcd.endpoints",
        "source.etcd.clusterCIDRs",
        "conflist.plugins[].type",
    }


class Recorder(dict[str, Any]):
    """A JSON object that notes which of its keys are read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


def test_every_key_of_the_cni_configuration_has_a_row() -> None:
    listed = {
        code for row in rows(section(PAGE, "The CNI configuration")) for code in codes(row[0])
    }
    # Those of a feature are read where one of them is there.
    whole = Recorder({"name": "pods", "ingressRate": 0, "sysctl": {}})
    ipam = Recorder({"ranges": [[{"subnet": "10.88.0.0/24"}]]})
    parse_config(whole)
    parse_ipam("pods", ipam, default_data_dir=Path("/data"))
    one = Recorder({"subnet": "10.88.0.0/24"})
    parse_ipam("pods", one, default_data_dir=Path("/data"))
    firewall = Recorder({})
    parse_firewall(JsonSection("", firewall))
    read_keys = whole.read | {f"ipam.{key}" for key in ipam.read | one.read}
    read_keys |= {"firewall"} | {f"firewall.{key}" for key in firewall.read}
    read_keys = (read_keys - {"args"}) | {"args.cni"}
    assert listed - {"capabilities"} == read_keys | {"ipam.type"}


def test_every_key_of_cni_args_is_listed() -> None:
    [row] = [row for row in rows(section(PAGE, "Environment")) if row[0] == "`CNI_ARGS`"]
    keys = [code for code in codes(row[2]) if "=" not in code]
    values = {"IP": "10.88.0.7", "MAC": "02:11:22:33:44:55"}
    args = ";".join(f"{key}={values.get(key, 'x')}" for key in keys)
    call = {"CNI_COMMAND": "STATUS", "CNI_ARGS": args}
    assert set(parse_request(call).args) == set(keys)


def test_every_variable_of_ours_is_listed() -> None:
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    sources += (ROOT / "cni_plugin" / "shim").glob("*.c")
    found = {name for p in sources for name in re.findall(r'"(PODWIRE_[A-Z_]+)"', p.read_text())}
    listed = {code for row in rows(section(PAGE, "Environment")) for code in codes(row[0])}
    assert found == {name for name in listed if name.startswith("PODWIRE_")}
