"""What is written into iptables' filter, against a small model of iptables-restore."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.iptables import (
    CHAIN,
    Filter,
    is_chain_name,
    parse_filter,
    script_to_accept,
    script_to_withdraw,
)
from kernel.model import IPAddress

ADDRESSES: list[IPAddress] = [ip_address(f"10.0.0.{n}") for n in range(1, 6)]
FOREIGN = (
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -i docker0 -j DROP",
    "-A DOCKER-USER -j RETURN",
)
BUILT_IN = ("INPUT", "FORWARD", "OUTPUT")
EMPTY = Filter(frozenset({*BUILT_IN, "DOCKER-USER"}), FOREIGN)


class Refused(Exception):
    """iptables-restore refuses the whole script."""


def restore(found: Filter, script: list[str]) -> Filter:
    """The filter after a script: chains made and removed, rules inserted, appended, deleted."""
    chains, rules = set(found.chains), list(found.rules)
    for line in script:
        command, chain, *rest = line.split(" ", 2)
        rule = " ".join(["-A", chain, *rest])
        if command == "-N" and chain not in chains:
            chains.add(chain)
        elif command == "-I" and chain in chains:
            rules.insert(0, rule.replace(f"-A {chain} 1 ", f"-A {chain} "))
        elif command == "-A" and chain in chains:
            rules.append(rule)
        elif command == "-D" and rule in rules:
            rules.remove(rule)
        elif command == "-X" and chain in chains and not any(_names(r, chain) for r in rules):
            chains.remove(chain)
        else:
            raise Refused(line)
    return Filter(frozenset(chains), tuple(rules))


def _names(rule: str, chain: str) -> bool:
    return chain in (rule.split(" ")[1], rule.rpartition(" ")[2])


def accept(found: Filter, *addresses: IPAddress, admin: str = "CNI-ADMIN") -> Filter:
    return restore(found, script_to_accept(addresses, admin, found))


def withdraw(found: Filter, *addresses: IPAddress) -> Filter:
    return restore(found, script_to_withdraw(addresses, "CNI-ADMIN", found))


def inside(found: Filter) -> list[str]:
    return [rule.removeprefix(f"-A {CHAIN} ") for rule in found.rules if CHAIN in rule.split()[:2]]


def test_the_rules_of_an_address() -> None:
    found = accept(EMPTY, ADDRESSES[0])
    assert found.rules[-2:] == (
        f"-A {CHAIN} -d 10.0.0.1/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-A {CHAIN} -s 10.0.0.1/32 -j ACCEPT",
    )
    assert inside(found)[0].endswith("-j CNI-ADMIN")
    assert script_to_accept([ADDRESSES[0]], "CNI-ADMIN", found) == []
    (six,) = accept(EMPTY, ip_address("fd00::1")).rules[-1:]
    assert six == f"-A {CHAIN} -s fd00::1/128 -j ACCEPT"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(ADDRESSES)), max_size=12))
def test_what_is_accepted_is_what_was_asked_for(steps: list[tuple[bool, IPAddress]]) -> None:
    """Whatever the order; and after the last address everything is as it was."""
    found, accepted = EMPTY, set[IPAddress]()
    for accepts, address in steps:
        found = (accept if accepts else withdraw)(found, address)
        (accepted.add if accepts else accepted.discard)(address)
        sources = {rule.split()[1] for rule in inside(found) if rule.startswith("-s ")}
        assert sources == {f"{address}/32" for address in accepted}
        assert len(inside(found)) == (1 + 2 * len(accepted) if accepted else 0)
    assert withdraw(found, *ADDRESSES) == EMPTY


def test_rules_of_others_stay() -> None:
    """Those in our chain and in the administrator's, and a chain that others use."""
    others = (
        "-A CNI-ADMIN -s 192.0.2.1/32 -j DROP",
        f"-A {CHAIN} -d 10.0.0.9/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    )
    found = accept(EMPTY, ADDRESSES[0])
    mixed = Filter(found.chains, (*found.rules, *others))
    left = withdraw(mixed, ADDRESSES[0])
    assert set(others) <= set(left.rules)
    assert f'-A FORWARD -m comment --comment "CNI firewall plugin rules" -j {CHAIN}' in left.rules
    alone = Filter(found.chains, (*found.rules, others[0]))
    left = withdraw(alone, ADDRESSES[0])
    assert (CHAIN in left.chains, "CNI-ADMIN" in left.chains) == (False, True)
    assert left.rules == (*FOREIGN, others[0])
    jumped = Filter(found.chains, (*found.rules, f"-A DOCKER-USER -g {CHAIN}"))
    assert CHAIN in withdraw(jumped, ADDRESSES[0]).chains
    idle = Filter(EMPTY.chains | {CHAIN}, FOREIGN)
    assert withdraw(idle, ADDRESSES[0]) == EMPTY


def test_two_chains_of_administrators() -> None:
    found = accept(accept(EMPTY, ADDRESSES[0]), ADDRESSES[1], admin="MINE")
    assert [rule.rpartition(" ")[2] for rule in inside(found)[:2]] == ["MINE", "CNI-ADMIN"]
    assert withdraw(found, *ADDRESSES) == EMPTY


def test_parsing() -> None:
    saved = "# made by\n*filter\n:INPUT ACCEPT [0:0]\n:MINE - [0:0]\n-A INPUT -j MINE\nCOMMIT\n"
    assert parse_filter(saved) == Filter(frozenset({"INPUT", "MINE"}), ("-A INPUT -j MINE",))
    assert parse_filter("") == Filter()


@pytest.mark.parametrize("name", ["CNI-ADMIN", "a", "x" * 28, "MY_CHAIN.1"])
def test_chain_names(name: str) -> None:
    assert is_chain_name(name)


@pytest.mark.parametrize(
    "name", ["", "-A", "x" * 29, "a b", "a\nCOMMIT", 'a"', "!a", "FORWARD", CHAIN, "ACCEPT", "ä"]
)
def test_what_is_no_chain_name(name: str) -> None:
    assert not is_chain_name(name)
