"""Nodes of one list, for as long as a context lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.lineup import Lineup
from tests.bench.routing.fleet import Listed, list_node, list_peers, write_listing
from tests.bench.routing.member import Member, Stuck
from tests.bench.world import Host


class Cluster:
    """Real nodes, the first in the list, and peers that are only listed."""

    def __init__(self, hosts: Sequence[Host], listing: Path, absent: int) -> None:
        self.hosts, self.listing = hosts, listing
        self.real = [list_node(n, host.node.address(4)) for n, host in enumerate(hosts)]
        self.absent = list_peers(absent, first=len(hosts))
        self.write([*self.real, *self.absent])

    def write(self, nodes: Sequence[Listed]) -> None:
        """Replace the list."""
        write_listing(self.listing, nodes)

    @property
    def peers(self) -> int:
        """How many nodes each node has beside itself."""
        return len(self.real) + len(self.absent) - 1

    @property
    def entries(self) -> int:
        """How many entries a node's kernel must have: route, neighbour and FDB entry of each."""
        return 3 * self.peers

    def member(
        self,
        place: int,
        program: Sequence[str | Path],
        *,
        masquerade: bool = True,
        **settings: object,
    ) -> Member:
        """The daemon's side of one of the real nodes; nothing is started."""
        host, name = self.hosts[place], self.real[place].name
        return Member(host, name, self.listing, program, masquerade=masquerade, **settings)


@contextmanager
def open_cluster(lineup: Lineup, label: str, real: int, absent: int = 0) -> Iterator[Cluster]:
    """Fresh nodes, none with a daemon yet."""
    with ExitStack() as stack:
        hosts = [stack.enter_context(lineup.world.host(label)) for _ in range(real)]
        yield Cluster(hosts, hosts[0].work_dir / "nodes.yaml", absent)


@contextmanager
def running(
    cluster: Cluster, lineup: Lineup, *, places: Sequence[int] = (0,), masquerade: bool = True
) -> Iterator[list[Member]]:
    """Daemons (`podwired run`) on some of the nodes, in sync."""
    program = [find_daemon(lineup)]
    members = [cluster.member(place, program, masquerade=masquerade) for place in places]
    with ExitStack() as stack:
        for member in members:
            stack.callback(member.end)
            member.start()
        for member in members:
            member.wait_in_sync(cluster.entries)
        yield members


def find_daemon(lineup: Lineup) -> Path:
    """podwired. Raises Stuck where none is installed."""
    if lineup.programs.daemon is None:
        raise Stuck("no podwired is installed: nothing routes")
    return lineup.programs.daemon
