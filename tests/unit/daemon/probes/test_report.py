"""What the status says of peers."""

from __future__ import annotations

import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from daemon.probes.report import (
    TROUBLES_MAX,
    HealthReport,
    PeerHealth,
    Reason,
    State,
    make_report,
    no_counts,
    parse_report,
)

healths = st.builds(
    PeerHealth,
    name=st.text("abc-123", min_size=1, max_size=8),
    state=st.sampled_from(list(State)),
    reason=st.sampled_from(list(Reason)),
    detail=st.text(max_size=20),
    since=st.floats(0, 2e9),
    rtt=st.none(),
    path_mtu=st.just(0),
)


@given(st.lists(healths, max_size=120), st.text(max_size=10), st.integers(0, 9))
def test_a_report_has_all_that_failed_or_their_number(
    peers: list[PeerHealth], fault: str, dropped: int
) -> None:
    counts = no_counts()
    for health in peers:
        counts[health.state] += 1
    degraded = [h for h in peers if h.state not in (State.PENDING, State.ESTABLISHED)]
    report = make_report(counts, degraded, fault, dropped)
    assert len(report.troubles) <= TROUBLES_MAX
    states = [t.state == "failed" for t in report.troubles]
    assert states == sorted(states, reverse=True)
    assert bool(report.lines) == bool(report.troubles or report.failed or fault)
    judged = sum(bool(h.reason) for h in degraded if h.state is not State.FAILED)
    assert report.failed <= report.unreached <= report.failed + judged
    assert parse_report(json.loads(json.dumps(asdict(report)))) == report


def test_words() -> None:
    failed = [
        PeerHealth(f"node-{n}", State.FAILED, Reason.MTU, "raise it", 5.0, None, 1400)
        for n in range(5)
    ]
    counts = {**no_counts(), State.FAILED: 5, State.ESTABLISHED: 7}
    report = make_report(counts, failed, "", 0)
    assert str(report) == "5 failed, 7 established"
    assert report.lines[0] == "node-0 is not reached (mtu): raise it"
    assert report.lines[-1] == "2 more nodes are not reached"
    assert len(report.lines) == 4
    retrying = PeerHealth("node-9", State.RETRYING, Reason.ONE_WAY, "let it pass", 5.0, None, 0)
    report = make_report({**no_counts(), State.RETRYING: 1}, [retrying], "", 0)
    assert report.lines == ("node-9 does not answer as it should (one-way, retrying): let it pass",)
    assert str(HealthReport()) == ""
    assert str(HealthReport(established=2, dropped=9)) == "2 established, 9 datagrams dropped"
    assert HealthReport(fault="no socket", failed=1).lines[0] == "no socket"
