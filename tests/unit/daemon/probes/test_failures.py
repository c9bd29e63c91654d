"""What error queues say: read right where it is right, and never more than a refusal."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.probes.failures import read_failure, tell_send_error
from daemon.probes.inspection import Refusal

OWN, TARGET, ROUTER = "192.0.2.1", "192.0.2.2", "192.0.2.254"


def told(
    code: int, origin: int, kind: int, subkind: int, by: str = TARGET, info: int = 0
) -> Refusal | None:
    error = struct.pack("=IBBBxII", code, origin, kind, subkind, info, 0)
    address = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(by))
    return read_failure([(socket.IPPROTO_IP, 11, error + address)], OWN, TARGET)


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        (told(errno.ECONNREFUSED, 2, 3, 3), "port", "refused"),
        (told(errno.ECONNREFUSED, 2, 3, 3, ROUTER), "forbidden", "firewall"),
        (told(errno.EHOSTUNREACH, 2, 3, 13, ROUTER), "forbidden", "firewall"),
        (told(errno.EHOSTUNREACH, 2, 3, 1, ROUTER), "unreachable", "no route to host"),
        (told(errno.EHOSTUNREACH, 2, 3, 1, OWN), "unreachable", "no answer to ARP"),
        (told(errno.EMSGSIZE, 2, 3, 4, ROUTER, 1400), "size", "too long"),
        (told(errno.EMSGSIZE, 1, 0, 0, OWN, 1400), "size", "too long"),
        (tell_send_error(OSError(errno.EMSGSIZE, "")), "size", "too long"),
        (tell_send_error(OSError(errno.EPERM, "")), "forbidden", "own firewall"),
        (tell_send_error(OSError(errno.ENETUNREACH, "")), "unreachable", "on this node"),
    ],
)  # fmt: skip
def test_words(found: Refusal | None, kind: str, words: str) -> None:
    assert found is not None
    assert (found.kind, words in found.text) == (kind, True), found


def test_who_and_how_much() -> None:
    found = told(errno.EMSGSIZE, 2, 3, 4, ROUTER, 1400)
    assert found is not None
    assert (found.by, found.mtu) == (ROUTER, 1400)


def test_ipv6() -> None:
    error = struct.pack("=IBBBxII", errno.ECONNREFUSED, 3, 1, 4, 0, 0)
    address = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, socket.inet_pton(10, "2001:db8::2"), 0)
    extra = [(socket.IPPROTO_IPV6, 25, error + address)]
    found = read_failure(extra, "2001:db8::1", "2001:db8::2")
    assert found == Refusal("port", "Connection refused", "2001:db8::2")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 41]), st.sampled_from([11, 25, 35]), st.binary(max_size=60)
        ),
        max_size=4,
    )
)
def test_any_bytes_are_a_refusal_or_nothing(extra: list[tuple[int, int, bytes]]) -> None:
    found = read_failure(extra, OWN, TARGET)
    assert found is None or found.text
