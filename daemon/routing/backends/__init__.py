"""Back ends: how the pods of another node are reached. The one registry of them.

A new back end is a class behind `base.Backend`, a line here, and its name in `config.schema`.
"""

from __future__ import annotations

from collections.abc import Mapping

from daemon.config.schema import Backend as BackendName
from daemon.config.schema import Settings
from daemon.routing.backends.base import Backend
from daemon.routing.backends.host_gw import HostGatewayBackend
from daemon.routing.backends.hybrid import HybridBackend
from daemon.routing.backends.none import NoBackend
from daemon.routing.backends.vxlan import VxlanBackend

BACKENDS: Mapping[BackendName, type[Backend]] = {
    "vxlan": VxlanBackend,
    "host-gw": HostGatewayBackend,
    "hybrid": HybridBackend,
    "none": NoBackend,
}


def backend_of(settings: Settings) -> Backend:
    """The back end that the settings name."""
    return BACKENDS[settings.backend](settings)
