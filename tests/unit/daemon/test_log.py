"""The log: a line for each entry, whatever it is about."""

from __future__ import annotations

import pytest

from daemon.log import Log

HOSTILE = "removed by pid 7 (a)\n<0>root x\x1b[31m\r\u2028)"


@pytest.mark.parametrize("journal", [True, False])
def test_no_text_begins_a_line_of_its_own(capfd: pytest.CaptureFixture[str], journal: bool) -> None:
    log = Log("debug", journal=journal)
    log.error(HOSTILE, name=HOSTILE)
    log.info("next")
    lines = capfd.readouterr().err.split("\n")
    assert len(lines) == 3, lines
    assert r"(a)\n<0>root x\x1b[31m\r\u2028)" in lines[0]
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith("<3>") is journal


def test_a_trace_has_a_line_for_each_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    Log("debug", journal=True).debug("Traceback\n  File x\n<0>root")
    assert capfd.readouterr().err == "<7>Traceback\n<7>  File x\n<7><0>root\n"
