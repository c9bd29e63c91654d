"""What holds a port to its MAC is found by the port's name."""

from kernel.netlink.socket import Netlink
from kernel.nftables.set_messages import change_elements
from kernel.nftables.spoof_check import PART, spoof_check_elements, spoof_elements_of
from kernel.nftables.table import load


def test_elements_are_found_by_their_port(nl: Netlink) -> None:
    assert spoof_elements_of(nl, "pw1") == ()
    load(PART)
    mine = spoof_check_elements("pw1", "02:00:00:00:00:01")
    change_elements(nl, [*mine, *spoof_check_elements("pw12", "02:00:00:00:00:02")], ())
    assert set(spoof_elements_of(nl, "pw1")) == set(mine)
    assert spoof_elements_of(nl, "pw") == ()
