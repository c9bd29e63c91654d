"""What the controller reports, without a kernel."""

from __future__ import annotations

from pathlib import Path

from daemon.journal import MIN_BYTES, Journal
from daemon.log import Log
from daemon.policy.compile import Compiled, LocalPod, compile_rules
from daemon.policy.controller import CLOSED_SECONDS, PolicyController
from daemon.policy.file_source import FileSource
from daemon.policy.model import Facts, Policy
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
