"""Limits: from configuration to token buckets and the device for what a pod sends."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_plugin.names import parse_alias
from cni_plugin.plugins.bandwidth import Bandwidth, Limit, parse_native, plan_limits
from ipam.errors import ConfigError
from ipam.json_section import Section
from ipam.transaction import Owner
from kernel.model import Link, Redirect, Space, TokenBucket

OWNER = Owner("net", "container1", "eth0")
HOST = Link("pw0", mtu=1450)
IFB = "bwp6417464194be"
"""bwp and the beginning of `printf netcontainer1 | sha512sum`."""

BOTH = {"ingressRate": 8000, "ingressBurst": 1600, "egressRate": 16000, "egressBurst": 800}
PARSED = Bandwidth(Limit(1000, 200), Limit(2000, 100))


def parsed(limits: dict[str, Any] | None, **own: Any) -> Bandwidth | None:
    runtime = {"runtimeConfig": {"bandwidth": limits}}
    return parse_native(Section("", {**runtime, **own}))


def planned(rate: int, burst: int) -> TokenBucket:
    """The bucket for these, in bits a second and bits."""
    conf = parsed({"ingressRate": rate, "ingressBurst": burst})
    assert conf
    [bucket] = plan_limits(conf, OWNER, HOST).buckets
    return bucket


def test_capability_and_keys_of_its_own() -> None:
    assert parsed(BOTH) == PARSED
    assert parsed(None, **BOTH) == PARSED
    assert parsed({key.upper(): value for key, value in BOTH.items()}) == PARSED
    assert parsed({"ingressRate": 8000, "ingressBurst": 1600}) == Bandwidth(
        ingress=Limit(1000, 200)
    )
    assert parsed({**BOTH, "unshapedSubnets": ["10.0.0.0/8"]}) == PARSED


@pytest.mark.parametrize("own", [{"ingressRate": 0}, {"egressburst": None}, {"egressRate": 0}])
def test_a_key_of_its_own_stands_for_all(own: dict[str, Any]) -> None:
    """As in the reference, whose decoder makes one object of all four."""
    assert parsed(BOTH, **own) is None


@pytest.mark.parametrize("limits", [None, {}, dict.fromkeys(BOTH, 0), dict.fromkeys(BOTH)])
def test_none(limits: dict[str, Any] | None) -> None:
    assert parsed(limits) is None


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no burst": ({"ingressRate": 8}, "ingressBurst is 0, must be more than 0, as ingressRate is"),
    "no rate": ({"egressBurst": 8}, "egressRate is 0, must be more than 0, as egressBurst is"),
    "one is wrong": ({**BOTH, "egressRate": 0}, "egressRate is 0"),
    "negative": ({**BOTH, "egressRate": -1}, "egressRate is -1, must be between 0 and 1844674"),
    "too large": ({**BOTH, "egressRate": 2**64}, "egressRate is 18446744073709551616"),
    "fraction": ({**BOTH, "egressRate": 1e6}, "egressRate is 1000000.0, must be a whole number"),
    "text": ({**BOTH, "ingressBurst": "8"}, "ingressBurst is '8', must be a whole number"),
    "4 GB": ({**BOTH, "ingressBurst": 8 * (2**32 - 1)}, "ingressBurst is 34359738360, must be"),
    "under a byte a second": ({**BOTH, "ingressRate": 7}, "ingressRate is 7, must be at least 8"),
    "under a byte": ({**BOTH, "ingressBurst": 7}, "ingressBurst is 7, must be at least"),
    "under a microsecond": ({**BOTH, "egressRate": 10**10}, "egressBurst is 800, must be at least"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("where", ["runtimeConfig.bandwidth.", ""])
def test_errors_name_key_and_value(name: str, where: str) -> None:
    limits, words = WRONG[name]
    with pytest.raises(ConfigError) as error:
        parsed(limits if where else None, **({} if where else limits))
    assert str(error.value).startswith(where + words)


def test_what_a_pod_receives_and_sends() -> None:
    assert plan_limits(Bandwidth(Limit(10**6, 10**5)), OWNER, HOST) == Space(
        buckets=(TokenBucket("pw0", 10**6, 1562500, 125000),)
    )
    made = plan_limits(PARSED, OWNER, HOST)
    [ifb] = made.links
    assert (ifb.name, ifb.kind, ifb.mtu, ifb.up) == (IFB, "ifb", 1450, True)
    mark = parse_alias(ifb.alias)
    assert mark
    assert mark.owner == OWNER
    assert [bucket.link for bucket in made.buckets] == ["pw0", IFB]
    assert made.redirects == (Redirect("pw0", IFB),)
    assert plan_limits(PARSED, OWNER, HOST, "02:00:00:00:00:01").links[0].mac == "02:00:00:00:00:01"


# A kilobit to 10 gigabits a second; 2**31 - 1 is the burst that container runtimes ask for.
RATES = st.integers(1000, 10**10)
BURSTS = st.one_of(st.just(2**31 - 1), st.integers(8 * 1500, 8 * (2**32 - 1) - 1))


@given(RATES, BURSTS)
def test_the_bucket_holds_the_burst(rate: int, burst: int) -> None:
    """Within a microsecond and a tick of it, but for the kernel's longest time."""
    bucket = planned(rate, burst)
    assert bucket.rate == rate // 8
    seconds = Fraction(burst // 8, rate // 8)
    longest = Fraction((2**32 - 1) * 64, 10**9)
    held = Fraction(bucket.buffer * 64, 10**9)
    error = seconds - held
    assert bucket.buffer == 2**32 - 1 or 0 <= error < Fraction(11, 10**7)
    assert held <= longest
    assert held == longest or seconds < longest


@given(RATES, BURSTS)
def test_what_may_wait_is_the_burst_and_what_goes_in_25_milliseconds(rate: int, burst: int) -> None:
    waiting = Fraction(rate // 8, 40) + burst // 8
    assert planned(rate, burst).limit == min(int(waiting), 2**32 - 1)


@given(st.integers(1, 2**66), st.integers(1, 2**66))
def test_any_numbers_make_numbers_that_the_kernel_takes(rate: int, burst: int) -> None:
    try:
        bucket = planned(rate, burst)
    except ConfigError:
        return
    assert 0 < bucket.rate < 2**61
    assert 0 < bucket.buffer < 2**32
    assert 0 < bucket.limit < 2**32
    # max_size of tbf_change (net/sched/sch_tbf.c), of which 0 is refused.
    assert min(bucket.buffer * 64, 2**32 - 1) * bucket.rate >= 10**9
