"""Tables as values: what is rendered, and how a rule is recognised."""

import errno
import re
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import KernelError
from kernel.model import ChainRules
from kernel.netlink.codec import Message, attribute, text
from kernel.netlink.socket import Netlink
from kernel.nftables import dns_counters, firewall, spoof_check
from kernel.nftables.ruleset import ATTACHMENT_SETS, HOST_PORTS, MASQUERADE, PARTS, set_of
from kernel.nftables.table import (
    ABSENT,
    Chain,
    Set,
    Table,
    commit,
    ensure_table,
    header,
    load,
    read_digest,
    remove_tables,
    render,
    run_nft,
    table_changes,
    table_is_present,
)

HOOK = "type nat hook postrouting priority srcnat"
SMALL = Table(
    "inet",
    sets=(Set("inet", "s", ("ifname", "ipv4_addr")), Set("inet", "t", ("ipv4_addr",), True)),
    chains=(Chain("c", HOOK, ("ip saddr @t return", "masquerade")),),
    counters=("queries",),
)


def test_a_table_is_rendered_as_one_script() -> None:
    one, two = SMALL.chains[0].digests
    assert (
        render(SMALL)
        == f"""\
add table inet podwire {{ comment "made by podwire, which rebuilds it when it is removed"; }}
add chain inet podwire c
flush chain inet podwire c
delete chain inet podwire c
table inet podwire {{
  set s {{ type ifname . ipv4_addr; }}
  set t {{ type ipv4_addr; flags interval; }}
  counter queries {{ }}
  chain c {{ {HOOK}; policy accept; }}
}}
add rule inet podwire c ip saddr @t return comment "podwire {one}"
add rule inet podwire c masquerade comment "podwire {two}"
"""
    )


def test_parts_of_a_table_are_put_together() -> None:
    more = Table("inet", (Set("inet", "u", ("ifname",)),), (Chain("d", HOOK, ()),), ("answers",))
    whole = SMALL + more
    assert whole == Table(
        "inet", SMALL.sets + more.sets, SMALL.chains + more.chains, ("queries", "answers")
    )
    assert [chain.chain for chain in whole.rules.values()] == ["c", "d"]
    assert render(whole).count("delete chain") == 2


def test_the_digest_follows_the_rule_and_its_hook() -> None:
    rules = ("accept", "drop")
    one, two = Chain("c", HOOK, rules).digests
    assert one != two
    assert Chain("d", HOOK, rules[::-1]).digests == (two, one)
    assert not {one, two} & set(Chain("c", "type filter hook input priority 0", rules).digests)
    assert all(re.fullmatch("[0-9a-f]{8}", digest) for digest in (one, two))
    [chain] = Table("inet", chains=(Chain("c", HOOK, rules),)).rules.values()
    assert chain == ChainRules("inet", "c", (one, two))


@pytest.mark.parametrize(
    ("fields", "interval", "tree"),
    [(1, True, True), (2, True, False), (1, False, False), (2, False, False)],
)
def test_only_intervals_of_one_field_are_a_tree(fields: int, interval: bool, tree: bool) -> None:
    a_set = Set("inet", "s", ("ipv4_addr",) * fields, interval)
    assert a_set.is_tree == tree
    found = a_set.element(b"a", b"b")
    assert (found.family, found.set_name, found.key, found.key_end) == ("inet", "s", b"a", b"b")
    assert found.tree == tree


def rule(*userdata: bytes) -> Message:
    data = attribute(7, b"".join(userdata)) if userdata else b""
    return Message(
        10 << 8 | 6, 0, header("inet") + attribute(1, b"podwire\0") + attribute(2, b"c\0") + data
    )


def comment(content: bytes, kind: int = 0) -> bytes:
    return bytes((kind, len(content) + 1)) + content + b"\0"


@pytest.mark.parametrize(
    ("userdata", "digest"),
    [
        ([], ""),
        ([comment(b"podwire 0badcafe")], "0badcafe"),
        ([comment(b"by hand")], ""),
        ([comment(b"podwire 0badcafe", kind=1)], ""),
        ([comment(b"other", kind=1), comment(b"podwire 0badcafe")], "0badcafe"),
        ([b"\0"], ""),
        ([b"\0\xff"], ""),
    ],
)
def test_the_digest_of_a_rule_is_in_its_comment(userdata: list[bytes], digest: str) -> None:
    assert read_digest(rule(*userdata)) == ("c", digest)


@given(st.binary(max_size=40))
def test_any_userdata_is_read(data: bytes) -> None:
    assert read_digest(rule(data)) == ("c", "")


def test_header() -> None:
    assert struct.unpack("!BBH", header("inet")) == (1, 0, 0)
    assert struct.unpack("!BBH", header("bridge", 10)) == (7, 0, 10)
    assert header("") == bytes(4)


def test_each_rule_of_podwires_is_recognised() -> None:
    for table in (*PARTS.values(), dns_counters.PART):
        script = render(table)
        for chain in table.rules.values():
            assert len(set(chain.digests)) == len(chain.digests) > 0
            for digest in chain.digests:
                assert f'comment "podwire {digest}"' in script


def test_rules_name_sets_that_are_declared() -> None:
    for table in PARTS.values():
        names = {a_set.name for a_set in table.sets}
        rules = " ".join(rule for chain in table.chains for rule in chain.rules)
        assert set(re.findall(r"@(?!th,|ll,)(\w+)", rules)) == names
        assert {a_set.family for a_set in table.sets} == {table.family}
        for a_set in table.sets:
            assert set_of(a_set.element(b"")) is a_set
    assert [a_set.name for a_set in ATTACHMENT_SETS] == [
        "hairpin4",
        "hairpin6",
        *(f"host_ports{version}" for version in (4, 6)),
        *(f"any_host_ports{version}" for version in (4, 6)),
        "from_loopback4",
        *(f"same_link{version}" for version in (4, 6)),
        *(f"always_masq{version}" for version in (4, 6)),
        *(a_set.name for a_set in spoof_check.SETS),
        *(a_set.name for a_set in firewall.SETS),
    ]
    assert {a_set.name for a_set in dns_counters.PART.sets} == set()


INET = PARTS[MASQUERADE] + PARTS[HOST_PORTS]
RULES = INET.rules["chain", "inet", "postrouting"]
PATH = "inet podwire postrouting"


def nft(command: str) -> str:
    done = subprocess.run(["nft", *command.split()], check=True, capture_output=True, text=True)
    return done.stdout


def handles() -> list[str]:
    return re.findall(r"comment \"podwire \w+\" # handle (\d+)", nft(f"-a list chain {PATH}"))


def test_a_table_is_loaded_once(nl: Netlink) -> None:
    changes = table_changes(nl, INET)
    assert {change.desired for change in changes} == set(INET.rules.values())
    assert {change.observed for change in changes} == {None}
    assert ensure_table(nl, INET) == changes
    assert table_changes(nl, INET) == ensure_table(nl, INET) == ()
    assert nft("list ruleset").count("masquerade") > 0


@pytest.mark.parametrize(
    "damage",
    [
        f"flush chain {PATH}",
        f"delete rule {PATH} handle {{last}}",
        f"delete rule {PATH} handle {{first}}",
        f"replace rule {PATH} handle {{first}} accept",
        f'replace rule {PATH} handle {{first}} accept comment "podwire"',
        f"add rule {PATH} accept",
        f"insert rule {PATH} accept",
        "delete table inet podwire",
        "flush ruleset",
    ],
)
def test_any_other_rule_is_seen_and_repaired(nl: Netlink, damage: str) -> None:
    load(INET)
    before = nft("-s list ruleset")
    first, *_others, last = handles()
    nft(damage.format(first=first, last=last))
    changes = table_changes(nl, INET)
    assert RULES in [change.desired for change in changes]
    assert ensure_table(nl, INET) == changes
    assert nft("-s list ruleset") == before


def test_rules_in_another_order_are_seen(nl: Netlink) -> None:
    chain = INET.chains[0]
    load(Table("inet", INET.sets, (Chain(chain.name, chain.hook, chain.rules[::-1]),)))
    load(Table("inet", (), INET.chains[1:]))
    [change] = table_changes(nl, INET)
    assert change.observed is not None
    assert change.observed.digests == chain.digests[::-1]


def test_elements_and_other_chains_stay(nl: Netlink) -> None:
    load(*PARTS.values())
    nft("add element inet podwire cluster4 { 10.0.0.0/8 }")
    nft("add chain inet podwire other")
    nft(f"flush chain {PATH}")
    ensure_table(nl, INET)
    assert "10.0.0.0/8" in nft("list set inet podwire cluster4")
    assert "chain other" in nft("list ruleset")


def test_tables_go_with_all_that_is_in_them(nl: Netlink) -> None:
    assert not table_is_present(nl, "inet")
    remove_tables(nl)
    load(INET)
    nft("add table inet another")
    assert (table_is_present(nl, "inet"), table_is_present(nl, "bridge")) == (True, False)
    load(PARTS["spoof check (bridge)"])
    assert table_is_present(nl, "bridge")
    remove_tables(nl)
    assert nft("list ruleset") == "table inet another {\n}\n"


def test_what_nft_refuses_is_an_error(nl: Netlink) -> None:
    with pytest.raises(KernelError, match=r"could not load podwire's nftables tables - .*nonsense"):
        run_nft("nonsense\n")


def test_commits_fail_as_a_whole_unless_tolerated(nl: Netlink) -> None:
    message = Message(10 << 8 | 2, 0, header("inet") + text(1, "absent"), "remove table absent")
    assert commit(nl, [message], ABSENT)[1].errno == errno.ENOENT
    with pytest.raises(KernelError, match="remove table absent"):
        commit(nl, [message])
