"""Options, fixtures and the rules by which tests are chosen."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from . import suite as suites
from .network import Network, Pod, network
from .shortfalls import short_id
from .stub import Stub
from .suite import Suite

ANY = "any"  # for tests that plugins of each kind must pass
_MARKER = "cni_needs(*traits): what the plugin or its configuration must have for the test"
_SUITE = pytest.StashKey[Suite]()
_COLLECTED = pytest.StashKey[frozenset[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cni", "CNI conformance")
    group.addoption("--cni-plugin", metavar="PATH", help="the executable under test")
    group.addoption("--cni-conf", metavar="FILE", help="its configuration (or a list with it)")
    group.addoption("--cni-path", metavar="DIRS", help="more folders for CNI_PATH, by colons")
    group.addoption(
        "--cni-env",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a variable that the plugin needs; @TMPDIR@ is a fresh folder of the test",
    )
    group.addoption(
        "--cni-known-shortfalls",
        metavar="FILE",
        help="tests that must fail, one a line: ID and the reason",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not _asked_for(config):
        return  # found on the way through a larger project's tests: see pytest_ignore_collect
    config.addinivalue_line("markers", _MARKER)
    option = config.option
    if option.cni_plugin is None:
        raise pytest.UsageError("--cni-plugin PATH is missing: which plugin shall be judged?")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        config.stash[_SUITE] = suites.prepare(
            option.cni_plugin,
            option.cni_conf,
            option.cni_path,
            option.cni_env,
            option.cni_known_shortfalls,
        )
    except suites.SetupError as error:
        raise pytest.UsageError(str(error)) from error


def _asked_for(config: pytest.Config) -> bool:
    """Whether the command line names this folder or something in it."""
    paths = (Path(arg.partition("::")[0]).resolve() for arg in config.args)
    return any(path.is_relative_to(Path(__file__).parent.resolve()) for path in paths)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # so that the fixtures remove their namespaces


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Without --cni-plugin there is nothing to judge."""
    return None if _SUITE in config.stash else True


def pytest_report_header(config: pytest.Config) -> list[str]:
    return config.stash[_SUITE].header() if _SUITE in config.stash else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name in metafunc.fixturenames:
        versions = metafunc.config.stash[_SUITE].versions(name)
        if versions is not None:
            nothing = pytest.param(None, marks=pytest.mark.cni_needs("such a version"))
            metafunc.parametrize(name, versions or [nothing])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _SUITE not in config.stash:
        return
    suite = config.stash[_SUITE]
    config.stash[_COLLECTED] = frozenset(short_id(item.nodeid) for item in items)
    idle = [item for item in items if suites.absent_traits(_needs(item), suite)]
    items[:] = [item for item in items if item not in idle]
    config.hook.pytest_deselected(items=idle)
    for item in items:
        _expect_failure(item, suite)


def _needs(item: pytest.Item) -> list[str]:
    """What a test needs of the plugin; one that names no kind of plugin needs a main one."""
    needs = [trait for mark in item.iter_markers("cni_needs") for trait in mark.args]
    kinds = [trait for trait in needs if trait in ("main", "chained", ANY)]
    return [trait for trait in needs if trait != ANY] + ([] if kinds else ["main"])


def _expect_failure(item: pytest.Item, suite: Suite) -> None:
    for shortfall in suite.shortfalls:
        if shortfall.covers(short_id(item.nodeid)):
            reason = f"known shortfall: {shortfall.reason}"
            item.add_marker(pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    expected = terminalreporter.stats.get("xfailed", [])
    if expected and _SUITE in terminalreporter.config.stash:
        terminalreporter.section("known shortfalls of this plugin")
        for report in expected:
            reason = report.wasxfail.removeprefix("known shortfall: ")
            terminalreporter.line(f"{short_id(report.nodeid)}  {reason}")


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> Suite:
    return request.config.stash[_SUITE]


@pytest.fixture(scope="session")
def collected(request: pytest.FixtureRequest) -> frozenset[str]:
    """Short IDs of all collected tests, those that are not applicable too."""
    return request.config.stash[_COLLECTED]


@pytest.fixture
def net(suite: Suite, tmp_path: Path) -> Iterator[Network]:
    """A fresh node with the network under test, at the newest declared version."""
    with network(suite.plugin, suite.cni_path, suite.conf, suite.newest, tmp_path) as made:
        yield made


@pytest.fixture
def pod(net: Network) -> Pod:
    """A container on the node of *net*."""
    return net.pod()


@pytest.fixture
def stub(net: Network, tmp_path: Path) -> Stub:
    """A recording IPAM plugin; put its folder in front of CNI_PATH to have it found."""
    made = Stub(tmp_path / "stub")
    made.install()
    made.hands_out(net.version, "10.88.0.7/24", "10.88.0.1")
    return made
