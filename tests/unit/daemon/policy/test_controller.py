"""What the controller reports, without a kernel."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest

from daemon.files import SETTLE_SECONDS
from daemon.journal import MIN_BYTES, Journal
from daemon.log import Log
from daemon.policy.compile import Compiled, LocalPod, compile_rules
from daemon.policy.controller import CLOSED_SECONDS, PolicyController
from daemon.policy.file_source import FileSource
from daemon.policy.model import Facts, Policy, PolicyCounts
from daemon.policy.saved_facts import read_facts
from kernel.netlink.monitor import Monitor


def test_pods_that_stay_closed_are_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", MIN_BYTES)
    made = PolicyController(FileSource(tmp_path), tmp_path / "saved", journal, Log("error"))
    policy = Policy("app", "deny", rules={"ingress": ()})
    facts = Facts({policy.key: policy})
    local = [LocalPod("pw1", ("app", "new"))]
    made._note_faults(facts, compile_rules(facts, local))
    made._note_closed()
    assert made.fault == ""
    made._closed = {key: at - CLOSED_SECONDS for key, at in made._closed.items()}
    made._note_faults(facts, compile_rules(facts, local))
    made._note_closed()
    assert made.fault.startswith("pods app/new are closed")
    made._note_faults(facts, Compiled(compile_rules(facts, []).rules))
    made._note_closed()
    assert made.fault == ""


def test_what_failed_once_is_no_fault_once_it_works(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", MIN_BYTES)
    made = PolicyController(FileSource(tmp_path), tmp_path / "saved", journal, Log("error"))
    made._note("kernel", "policies cannot be enforced: no memory")
    with Monitor() as monitor:
        made._update(monitor)
    assert made.fault == ""


def test_services_of_ipvs_are_a_fault_where_pods_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel lists them; this one may have no IPVS."""
    headings = (
        "IP Virtual Server version 1.2.1 (size=4096)\n"
        "Prot LocalAddress:Port Scheduler Flags\n"
        "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
    )
    service = "TCP  0A600001:01BB rr\n  -> C0000207:192B      Masq    1      0          0\n"
    journal = Journal(tmp_path / "journal", MIN_BYTES)
    made = PolicyController(FileSource(tmp_path), tmp_path / "saved", journal, Log("error"))
    listed = tmp_path / "ip_vs"
    monkeypatch.setattr("kernel.read.IPVS", str(listed))
    for limits, text, found in (
        (True, None, False),
        (True, headings, False),
        (True, headings + service, True),
        (False, headings + service, False),
    ):
        if text:
            listed.write_text(text)
        made.counts = PolicyCounts(selected=int(limits))
        made._note_ipvs()
        assert ("which IPVS translates" in made.fault) is found


def test_policies_are_saved_soon_and_pods_at_little_cost(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", MIN_BYTES)
    folder, saved = tmp_path / "policies", tmp_path / "saved"
    folder.mkdir()
    clock = itertools.count(step=SETTLE_SECONDS)
    source = FileSource(folder, now=lambda: next(clock))
    made = PolicyController(source, saved, journal, Log("error"))
    made._saved._rests_until = time.monotonic() + 1000  # as after a write that took long

    def take(kind: str) -> None:
        thing = {"kind": kind, "metadata": {"namespace": "app", "name": "a"}, "spec": {}}
        (folder / f"{kind}.json").write_text(json.dumps(thing))
        made._take()  # seen, and read when it has not changed for a while
        made._take()

    take("Pod")
    assert made._saved._at > time.monotonic() + 500
    take("NetworkPolicy")
    until = time.monotonic() + 60
    while not saved.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert len(read_facts(saved).policies) == 1
