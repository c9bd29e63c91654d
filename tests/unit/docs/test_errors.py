"""docs/errors.md lists every code of a CNI call."""

from cni_plugin import errors
from tests.unit.docs.pages import read, rows, section


def test_every_code_is_on_the_page() -> None:
    listed = [int(row[0]) for row in rows(section(read("errors.md"), "Codes of CNI calls"))]
    assert listed == list(errors.CODES)


def test_each_code_has_a_meaning_and_advice() -> None:
    for code, meaning, advice in rows(section(read("errors.md"), "Codes of CNI calls")):
        assert meaning, code
        assert advice or int(code) == errors.UNKNOWN_CONTAINER, code
