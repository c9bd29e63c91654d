"""docs/operations.md names every back end, action of the journal and file of the daemon."""

from __future__ import annotations

from cni_plugin.host import DEFAULT_DATA_DIR, DEFAULT_SOCKET
from daemon.config import DATA_FILES, DEFAULT_CONFIG, DEFAULT_CONFLIST
from daemon.journal import ACTIONS
from daemon.routing.backends import BACKENDS
from ipam.files import Files
from tests.unit.docs.pages import codes, read, rows, section

PAGE = read("operations.md")


def test_every_back_end_has_a_row() -> None:
    listed = [codes(row[0])[0] for row in rows(section(PAGE, "Back ends and MTU"))]
    assert listed == list(BACKENDS)


def test_every_action_of_the_journal_is_explained() -> None:
    assert set(ACTIONS) <= set(codes(section(PAGE, "Commands")))


def test_every_file_has_a_row() -> None:
    listed = {code for row in rows(section(PAGE, "Files")) for code in codes(row[0])}
    kept = [DEFAULT_DATA_DIR / name for name in DATA_FILES]
    files = [DEFAULT_CONFIG, DEFAULT_CONFLIST, DEFAULT_SOCKET, Files(DEFAULT_DATA_DIR).database]
    assert {str(path) for path in [*files, *kept]} <= listed
