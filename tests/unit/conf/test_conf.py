"""Every file below conf/ is a configuration that podwire accepts as it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cni_plugin.config import parse_config
from cni_plugin.versions import require_supported
from ipam.config import parse_ipam
from tests import ROOT

CONF = ROOT / "conf"
FILES = sorted(CONF.glob("*.conf*"))


def plugin_configs(path: Path) -> list[dict[str, Any]]:
    raw = json.loads(path.read_text())
    shared = {"cniVersion": raw["cniVersion"], "name": raw["name"]}
    return [{**plugin, **shared} for plugin in raw.get("plugins", [raw])]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_configuration_file_loads(path: Path) -> None:
    for raw in plugin_configs(path):
        conf = parse_config(raw)
        assert require_supported(raw["cniVersion"]) == raw["cniVersion"]
        ipam = parse_ipam(conf.name, conf.ipam, default_data_dir=Path("/var/lib/podwire"))
        assert ipam.range_sets


def test_there_are_configuration_files() -> None:
    assert {path.name for path in FILES} >= {"ptp.conflist", "bridge.conflist", "demonet.conf"}
