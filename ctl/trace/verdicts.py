"""What became of a packet at each hop, and where it ended; pure."""

from __future__ import annotations

from collections.abc import Sequence

from ctl.trace.hop import Hop, Verdict
from ctl.trace.probe import Observed


def judge(
    way: Sequence[Hop], answer: Hop | None, seen: Observed | None, unsent: str = ""
) -> Verdict:
    """Give each hop its verdict; where packets end, and why.

    answer: what came back, None where nothing was sent. unsent: why no packet could be sent.
    """
    if seen is None or answer is None:
        why = f"no packet was sent: {unsent}" if unsent else "nothing was sent"
        return Verdict(None, f"{_judge_unsent(way)}; {why}")
    # The first hop where nothing arrived.
    silent = (number for number, hop in enumerate(way) if hop.sent == 0)
    end = None if seen.is_reached else next(silent, None)
    for number, hop in enumerate(way):
        is_before = end is None or number < end
        hop.verdict = "passed" if is_before else "dropped" if number == end else "not reached"
        if is_before and hop.sent is None:
            hop.verdict = "passed" if seen.is_reached else "unknown"
    if seen.is_reached:
        for hop in way:
            hop.fault = ""
        return Verdict(True, f"reached: {seen.result} after {(seen.seconds or 0) * 1000:.1f} ms")
    missed = f" ({seen.missed} frames came too fast to be counted)" if seen.missed else ""
    if end is not None:
        hop = way[end]
        before = next((each.fault for each in reversed(way[:end]) if each.fault), "")
        # What keeps neighbours from being resolved is often at the other end of the link.
        around = way[: end + 2]
        after = around[-1].fault
        hints = "; ".join(each.hint for each in around if each.hint)
        why = hop.fault or before or after or hints or "nothing that can be read says why"
        return Verdict(False, f"packets end at hop {end + 1}, {hop.where}: {why}{missed}")
    text, is_located = _describe_loss(way, answer)
    return Verdict(False, f"{text}{missed}", is_located)


def _describe_loss(way: Sequence[Hop], answer: Hop) -> tuple[str, bool]:
    """Packets passed all that this node knows of, and no answer came to the sender.

    Where they end, and whether that is known.
    """
    counted = [hop for hop in way if hop.sent is not None]
    last = counted[-1] if counted else way[-1]
    left = f"packets left by {last.where} ({last.what})"
    wrong = next(((n, hop) for n, hop in enumerate(way, 1) if hop.fault), None)
    if wrong:
        return f"hop {wrong[0]}, {wrong[1].where}: {wrong[1].fault}; {left}", True
    if answer.fault:
        return f"{left}; {answer.fault}", True
    back = next((hop for hop in counted if hop.answers), None)
    if back:
        hints = "".join(f": {hop.hint}" for hop in way[: way.index(back) + 1] if hop.hint)
        return f"{left}; the answer came as far as {back.where}, and no further{hints}", True
    elsewhere = next((hop.advice for hop in way if hop.advice), "")
    return f"{left}; nothing came back{f': {elsewhere}' if elsewhere else ''}", False


def _judge_unsent(hops: Sequence[Hop]) -> str:
    for number, hop in enumerate(hops):
        hop.verdict = "dropped" if hop.fault else "passed"
        if hop.fault:
            for later in hops[number + 1 :]:
                later.verdict = "not reached"
            return f"packets would end at hop {number + 1}, {hop.where}: {hop.fault}"
    return "nothing on this node is in the way, as far as it can be looked up"
