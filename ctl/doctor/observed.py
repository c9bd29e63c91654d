"""What the checks work with: read once, from kernel, store, journal and the daemon's status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ctl.differences import Difference
from ctl.doctor.probing import NO_PROBE, PodProbe
from ctl.planning import Planned
from ctl.trace.neighbours import UnderlayPath
from daemon.config.schema import Settings
from daemon.journal import Record
from daemon.model import Desired
from daemon.routing.diversions import Diverted
from daemon.status import NodeStatus, Published
from ipam.usage import Usage
from kernel.conntrack import StaleFlow
from kernel.limits import Disk, Level
from kernel.model import Link


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon. published: its last status; why: there is none."""

    published: Published | None = None
    why: str = ""

    @property
    def status(self) -> NodeStatus | None:
        """Its status, while that is current."""
        return self.published.status if self.published and self.published.is_current else None


@dataclass(frozen=True, slots=True)
class Observed:
    """This node at one time; now: in seconds since 1970.

    settings: None without a podwired.yaml, and then there is no plan. sysctls: values by path.
    drops: of packets by rules of others, in sentences. underlay: the paths to peers in trouble, by
    their names. unreadable: why areas could not be read, by their names. attached_since: by pod,
    as differences name it.
    """

    now: float
    settings: Settings | None = None
    planned: Planned | None = None
    daemon: Daemon = Daemon()
    links: Mapping[str, Link] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    drops: tuple[str, ...] = ()
    diverted: tuple[Diverted, ...] = ()
    usage: tuple[Usage, ...] = ()
    levels: tuple[Level, ...] = ()
    disk: Disk | None = None
    stale_flows: tuple[StaleFlow, ...] = ()
    records: tuple[Record, ...] = ()
    probe: PodProbe = NO_PROBE
    underlay: Mapping[str, UnderlayPath] = field(default_factory=dict)
    unreadable: Mapping[str, Exception] = field(default_factory=dict)
    attached_since: Mapping[str, float] = field(default_factory=dict)

    @property
    def node(self) -> str:
        """The node's name."""
        return self.settings.node if self.settings else "this node"

    @property
    def desired(self) -> Desired | None:
        """The plan of the node."""
        return self.planned.desired if self.planned else None
