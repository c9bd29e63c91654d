"""What a person writes as the destination of a trace."""

import pytest

from ctl.attachments import Attachments
from ctl.trace.ends import check_port, find_source
from daemon.options import Unusable
from kernel.netlink.socket import Netlink


@pytest.mark.parametrize(("port", "protocol"), [(80, "icmp"), (0, "tcp"), (0, "udp")])
def test_ports_that_make_no_sense(port: int, protocol: str) -> None:
    with pytest.raises(Unusable):
        check_port(port, protocol)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("outside", ["203.0.113.1", "3fff::1"]),
        ("outside:198.51.100.7", ["198.51.100.7"]),
        ("outside:fd00::1", ["fd00::1"]),
        ("outside:[fd00::1]", ["fd00::1"]),
    ],
)
def test_clients_beyond_the_node(text: str, addresses: list[str]) -> None:
    with Netlink() as nl:
        found = find_source(nl, Attachments(()), text)
    assert found.is_outside
    assert list(map(str, found.addresses)) == addresses
