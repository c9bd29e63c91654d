"""Every test may use the namespace fixtures of `tests.pytest_netns`; where several processes run
the tests, the folders of tests are mixed."""

import signal
from collections import Counter

import pytest

pytest_plugins = ("tests.pytest_netns.plugin",)

WAITING_UNTIL = 0.9
"""The part of a run that tests in folders other than `unit` are spread over: those last long, and
what is short fills the end."""

LONG_ID = 200
"""Characters of a parameter that its test's id has at most."""


def pytest_configure() -> None:
    """Let Ctrl-C end what tests start: a shell has programs in the background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A short one: pytest has the test's id in the environment, which limits what it can execute.

    So no program could be started (E2BIG) while a test with an id of 128 kB runs, or what it ends.
    """
    if isinstance(val, str | bytes) and len(val) > LONG_ID:
        return f"{val[:LONG_ID]!a} of {len(val)}"
    return None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a pytest-xdist that spreads a group of tests over processes, without a word."""
    if not hasattr(session.config, "workerinput") or not session.config.getvalue("loadgroup"):
        return
    for item in session.items:
        if item.get_closest_marker("xdist_group") and "@" not in item.nodeid.rpartition("]")[2]:
            raise pytest.UsageError(f"pytest-xdist left {item.nodeid} out of its group")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Spread the tests of each folder over the whole run, each folder's in their own order.

    Those of one folder need the same: a processor, the kernel's one lock for all links, or time.
    One after the other, the folders leave unused what the next one waits for.
    """
    if not hasattr(config, "workerinput"):
        return
    folders = [item.path.parent for item in items]
    sizes, seen = Counter(folders), Counter[object]()
    place = {}
    for item, folder in zip(items, folders, strict=True):
        share = 1.0 if "unit" in folder.parts else WAITING_UNTIL
        place[item] = share * seen[folder] / sizes[folder]
        seen[folder] += 1
    items.sort(key=place.__getitem__)
