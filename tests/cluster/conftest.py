"""API servers, one of each kind for the session; the fixture `api` is a clean one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.cluster.apiserver import ApiServer, KubeApiServer, StandIn
from tests.cluster.authority import Authority, make_authority
from tests.cluster.follower import Follower
from tests.cluster.impostor import Impostor
from tests.cluster.wire import Wire
from tests.pytest_netns.plugin import Registry

KINDS: dict[str, type[ApiServer]] = {made.kind: made for made in (StandIn, KubeApiServer)}

Servers = Callable[[str], ApiServer]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of an API runs with each kind; those of a kind share one server."""
    if "api_kind" in metafunc.fixturenames:
        group = pytest.mark.xdist_group
        real = pytest.mark.needs(KubeApiServer.kind), group(KubeApiServer.kind)
        kinds = [
            pytest.param(StandIn.kind, marks=group(StandIn.kind)),
            pytest.param(KubeApiServer.kind, marks=real),
        ]
        metafunc.parametrize("api_kind", kinds, scope="session")


@pytest.fixture(scope="session")
def servers(
    netns_registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """Starts the server of a kind when it is first asked for."""
    with ExitStack() as stack:
        made: dict[str, ApiServer] = {}

        def find(kind: str) -> ApiServer:
            if kind not in made:
                ns = netns_registry.make("api")
                stack.callback(ns.remove)
                folder = tmp_path_factory.mktemp(kind)
                made[kind] = server = KINDS[kind](ns, folder)
                stack.callback(server.close)
                server.start()
                server.install()
            return made[kind]

        yield find


@pytest.fixture
def api(servers: Servers, api_kind: str) -> Iterator[ApiServer]:
    """An API server with podwire's definition and rights, and without nodes."""
    server = servers(api_kind)
    server.clear()
    yield server
    if not server.processes:
        server.start()


@pytest.fixture
def wire(api: ApiServer) -> Iterator[Wire]:
    """The way from the daemon under test to the API."""
    with api.wire() as made:
        yield made


class MakeFollower(Protocol):
    def __call__(self, name: str, number: int = ...) -> Follower: ...


@pytest.fixture
def follow(api: ApiServer, wire: Wire, tmp_path: Path) -> Iterator[MakeFollower]:
    """Makes sources of nodes; a number gives the Node, too, with its pod CIDRs."""
    with ExitStack() as stack:

        def make(name: str, number: int = 0) -> Follower:
            if number:
                api.add_node(name, *facts(number))
            ca, folder = api.authority.ca, tmp_path / name
            made = Follower(name, wire.address, ca, folder, lambda: api.issue(name))
            stack.callback(made.stop)
            return made

        yield make


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """What signs an impostor's certificate."""
    return make_authority(tmp_path_factory.mktemp("impostor"))


@pytest.fixture
def impostor(authority: Authority) -> Iterator[Impostor]:
    """A server that answers what a test wants."""
    made = Impostor(authority)
    yield made
    made.close()


@pytest.fixture
def one(impostor: Impostor, authority: Authority, tmp_path: Path) -> Iterator[Follower]:
    """A source that believes it."""
    made = Follower("n1", impostor.address, authority.ca, tmp_path / "n1", lambda: "secret-1")
    yield made
    made.stop()


def facts(number: int) -> tuple[list[str], list[str]]:
    """Pod CIDRs and addresses of a node."""
    cidrs = [f"10.244.{number}.0/24", f"fd00:10:244:{number}::/64"]
    return cidrs, [f"192.0.2.{number}", f"2001:db8:ffff::{number}"]
