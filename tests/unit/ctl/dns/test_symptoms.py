"""Counters that show lost DNS."""

from __future__ import annotations

from ctl.dns.symptoms import Symptoms, describe_symptoms, parse_conntrack, parse_snmp

SNMP = """\
Tcp: RtoAlgorithm RtoMin
Tcp: 1 200
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors
Udp: 10 1 0 20 3
UdpLite: InDatagrams
UdpLite: 0
"""
CONNTRACK = "entries  searched insert_failed drop\n0000000a 0 00000001 0\n0000000a 0 0000000f 2\n"


def test_the_files_of_the_kernel() -> None:
    assert parse_snmp(SNMP)["RcvbufErrors"] == 3
    assert parse_snmp("Udp: InDatagrams\n") == {}
    assert parse_conntrack(CONNTRACK) == {
        "entries": 20,
        "searched": 0,
        "insert_failed": 16,
        "drop": 2,
    }
    assert parse_conntrack("") == {}


def test_only_what_grew_is_a_symptom() -> None:
    before = Symptoms({"RcvbufErrors": 3}, {"insert_failed": 1, "entries": 5}, None)
    after = Symptoms({"RcvbufErrors": 7}, {"insert_failed": 1, "entries": 9}, None)
    assert [text[:24] for text in describe_symptoms(before, after)] == ["4 datagrams that the pod"]
    assert list(describe_symptoms(after, after)) == []
