"""The text of a rule that a packet met."""

from __future__ import annotations

import subprocess

import pytest

from kernel.netlink.socket import Netlink
from kernel.nftables.tracer import TraceEvent, read_rule_text

RULES = "table inet t {\nchain c {\nudp dport 8472 drop\n}\n}\n"
HOSTILE = "x y; add table inet owned; list tables #"


def nft(*words: str, script: str | None = None) -> str:
    done = subprocess.run(["nft", *words], input=script, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(autouse=True)
def rules(nl: Netlink) -> None:
    nft("-f", "-", script=RULES)


def event(table: str = "t", chain: str = "c", handle: int = 2) -> TraceEvent:
    return TraceEvent("inet", table, chain, handle, "rule", "drop")


def test_it_is_what_nft_lists() -> None:
    assert read_rule_text(event()) == "udp dport 8472 drop"


def test_of_a_rule_that_is_gone_it_is_empty() -> None:
    assert read_rule_text(event(handle=3)) == ""
    assert read_rule_text(event(chain="other")) == ""


@pytest.mark.parametrize(
    "found",
    [event(table=HOSTILE), event(chain=HOSTILE), event(chain="c\nadd table inet owned")],
    ids=["table", "chain", "line"],
)
def test_names_that_a_pod_chose_are_no_commands(found: TraceEvent) -> None:
    """nft joins its arguments and reads commands; the kernel takes any bytes as a name."""
    before = nft("list", "ruleset")
    assert read_rule_text(found) == ""
    assert nft("list", "ruleset") == before
