"""A network namespace without tables for each test that asks for a socket."""

from collections.abc import Iterator

import pytest

from kernel.netlink.socket import Netlink
from kernel.nftables.table import open_nft
from tests.unit.cni_plugin.namespaces import elsewhere


@pytest.fixture
def nl() -> Iterator[Netlink]:
    """An nftables socket in a namespace of its own, which the calling thread is in."""
    with elsewhere(), open_nft() as found:
        yield found
