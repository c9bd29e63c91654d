"""The metric families: names and labels."""

from __future__ import annotations

from daemon.metrics.families import FAMILIES


def test_names_and_labels_follow_the_conventions() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    for family in FAMILIES:
        assert family.name == "podwire" or family.name.startswith("podwire_")
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert not {"pod", "peer", "container", "address", "le", "quantile"} & set(family.labels)
        assert family.help.endswith(".")
