"""Where an attachment's addresses come from: `call.ipam`, chosen once for each call.

podwire's own IPAM works in-process and in the transaction that records the attachment; another
plugin is executed (SPEC 1.1.0, section 4); a network may have no addresses at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cni_plugin.config import LEASING, NetConf, remember
from cni_plugin.delegation import Delegate, find_program, require_program
from cni_plugin.errors import INVALID_CONFIG, NOT_AVAILABLE, CniError
from cni_plugin.host import Call, Host
from cni_plugin.request import Request
from cni_plugin.result import IPConfig, Result, render_dns
from cni_plugin.shape import shape_of
from cni_plugin.store_access import adopt_from_other_stores
from ipam import HOST_LOCAL_DATA_DIR, KINDNET_DATA_DIR
from ipam.errors import AddressTaken, RangeExhausted
from ipam.transaction import Owner, Transaction

if TYPE_CHECKING:
    from ipam.allocator import Assigned
    from ipam.config import IpamConf
    from kernel.model import IPAddress, IPInterface
    from kernel.nftables.masquerade import AddressRange

# The names under which podwire is an IPAM plugin.
IPAM_PROGRAMS = frozenset({"podwire-ipam", "host-local"})
_OWN_TYPES = frozenset({"podwire", "podwire-ipam"})
# Started or named so, podwire's IPAM is the reference plugin's stand-in.
_STAND_IN = "host-local"
_PASSED_MAX = 4096
"""Addresses that one ADD passes over because others have them."""

Allocate = Callable[[Transaction], Result]
"""Gives an attachment its addresses, in the transaction that records it."""


class Ipam:
    """What gives attachments their addresses; itself that of a network without addresses.

    plugin: the name of the executable, empty for podwire's own IPAM and for none. What podwire's
    own IPAM gave is released with the attachment's record, so it has no verb to `run`.
    leases: whether it sends by the pod's link, which must be there and up before.
    """

    plugin = ""
    leases = False

    def data_dir(self, call: Call) -> Path:
        """The folder of the store."""
        return call.host.data_dir

    def validate(self, call: Call) -> None:
        """Refuse a wrong configuration before anything is made. Raises code 7 or 4."""

    def add(self, call: Call, undo: ExitStack) -> Allocate:
        """Begin an allocation. undo: takes what gives it back."""
        return lambda _tx: Result()

    def gateways(self, call: Call) -> tuple[IPInterface, ...]:
        """The gateways of all ranges, with the prefix lengths of their subnets."""
        return ()

    def ranges(self, call: Call) -> tuple[AddressRange, ...]:
        """The ranges that pods of the network have their addresses of; none where not known."""
        return ()

    def lost(self, tx: Transaction, owner: Owner, addresses: Iterable[IPAddress]) -> list[str]:
        """Addresses of an attachment that are not allocated to it, each as a sentence."""
        return []

    def run(self, verb: str, call: Call, owner: Owner | None = None) -> None:
        """Execute a verb of another plugin. Raises its error. owner: other than the call's."""

    def require_space(self, call: Call, tx: Transaction) -> None:
        """Raise code 50 where a range set has no free address."""


class OwnIpam(Ipam):
    """podwire's own IPAM."""

    def data_dir(self, call: Call) -> Path:
        """ipam.dataDir, as far as it is one: DEL must not fail for a wrong one."""
        named = call.conf.ipam.get("dataDir")
        if isinstance(named, str) and named.startswith("/") and "\0" not in named:
            return Path(named)
        return call.host.data_dir

    def validate(self, call: Call) -> None:
        """Parse the configuration."""
        self.read_conf(call)

    def add(self, call: Call, undo: ExitStack) -> Allocate:
        """All of it is done in the transaction, which undoes it too."""
        return partial(self.allocate, self.read_conf(call), call)

    def allocate(self, conf: IpamConf, call: Call, tx: Transaction) -> Result:
        """One address of each range set, none that `host-local` has reserved, that another store of
        the node has given, or that a pod of another network or the node has. Raises IpamError."""
        if _is_routed(call):
            _refuse_taken(conf.gateways, call, tx)
        passed: set[IPAddress] = set()
        while True:
            assigned = self._allocate(conf, call, tx)
            addresses = [each.address.ip for each in assigned]
            if adopt_from_other_stores(call, tx, addresses):
                continue
            rivals = _rivals(call, tx, addresses)
            if not rivals:
                return _to_result(conf, assigned)
            _refuse_again(rivals, conf.requested, passed)
            for address in rivals:
                tx.put_off(call.owner.network, address)
            passed |= rivals.keys()

    def _allocate(self, conf: IpamConf, call: Call, tx: Transaction) -> tuple[Assigned, ...]:
        from ipam.allocator import allocate  # no other verb's

        owner = call.owner
        assigned = allocate(tx, conf, owner)
        places = [f"{f}/{conf.network}" for f in (HOST_LOCAL_DATA_DIR, str(conf.data_dir))]
        if call.conf.ipam_type != _STAND_IN:  # which knows of no other network
            places += _networks_of(HOST_LOCAL_DATA_DIR, KINDNET_DATA_DIR)
        # Pods of the plugins that podwire replaces go on running, in networks of another name.
        while place := _reserved_in(places, assigned):
            from ipam.host_local_files import adopt

            adopt(tx, Path(place), owner)
            places = [each for each in places if each != place]
            assigned = allocate(tx, conf, owner)
        return assigned

    def gateways(self, call: Call) -> tuple[IPInterface, ...]:
        """Those of the configuration. Raises code 7 or 4."""
        return self.read_conf(call).gateways

    def ranges(self, call: Call) -> tuple[AddressRange, ...]:
        """Those of the configuration. Raises code 7 or 4."""
        return self.read_conf(call).ranges

    def lost(self, tx: Transaction, owner: Owner, addresses: Iterable[IPAddress]) -> list[str]:
        """Those that the store does not have as the owner's."""
        allocated = set(tx.addresses(owner))
        text = "allocation of {} is lost: another pod may be given it"
        return [text.format(ip) for ip in addresses if ip not in allocated]

    def require_space(self, call: Call, tx: Transaction) -> None:
        """Counts what is allocated; raises code 50."""
        from ipam.allocator import free_space

        for number, space in enumerate(free_space(tx, self.read_conf(call))):
            if space.allocated >= space.size:
                name = call.conf.name
                msg = f"range set {number} of network {name} is full: {space.allocated} allocated"
                raise CniError(NOT_AVAILABLE, msg, "see `podwire-ipam list`")

    def read_conf(self, call: Call) -> IpamConf:
        """The checked `ipam` section. Raises code 7 or 4."""
        # A file may be another one by now, and a requested address is one pod's.
        if call.request.args.get("IP") or any(k.lower() == "resolvconf" for k in call.conf.ipam):
            return _parse_ipam(call)
        key = ("ipam", call.host.data_dir)
        cached = call.parsed.derived.get(key)
        if cached is None:
            cached = call.parsed.derived[key] = _parsed_ipam(call)
        return cast("IpamConf", cached)


def _is_routed(call: Call) -> bool:
    """Whether the node is the gateway of the network's pods, as far as that is known."""
    if call.host.program in IPAM_PROGRAMS:
        return False
    shape = shape_of(call.conf, call.host.program)
    return shape.mode == "ptp" or shape.gateway


def _refuse_taken(gateways: Iterable[IPInterface], call: Call, tx: Transaction) -> None:
    """Raise AddressTaken for a gateway that a pod has since another was configured."""
    for gateway in gateways:
        owner = tx.owner_of(call.owner.network, gateway.ip)
        if owner:
            msg = f"gateway {gateway.ip} is the address of {owner}"
            raise AddressTaken(msg, "delete that pod first, or name another gateway")


def _rivals(call: Call, tx: Transaction, addresses: Sequence[IPAddress]) -> dict[IPAddress, str]:
    """Those of the addresses that are not to be had, and who has each.

    That is pods of other networks, if packets to both go one way: after a network was renamed its
    pods are of two names. Other networks may have one subnet each for itself, on bridges without a
    gateway. Or it is the node: its pods may have a gateway of an earlier configuration.
    """
    if call.host.program in IPAM_PROGRAMS:  # the main plugin's bridge is not known
        return {}
    holders = tx.holders_elsewhere(call.owner.network, addresses)
    found = {
        address: f"that of {owner} on network {owner.network}: the networks share a subnet"
        for address, owner, record in holders
        if _meets(call, record)
    }
    if _is_routed(call):
        from kernel.netlink.socket import open_netlink  # an IPAM plugin needs none
        from kernel.paths import local_addresses

        with open_netlink() as nl:
            found |= dict.fromkeys(local_addresses(nl, addresses), "this node's own")
    return found


def _meets(call: Call, text: str) -> bool:
    """Whether an attachment, by its record, is on the call's bridge, or the node routes to both."""
    from cni_plugin.attachment import read_record  # few addresses have two holders

    record, shape = read_record(text), shape_of(call.conf, call.host.program)
    if record is None:
        return False
    bridge = record.plan.bridge
    if shape.mode == "bridge" and bridge and bridge.name == call.conf.bridge:
        return True
    routed = bridge.gateways if bridge else record.plan.node.routes
    return bool(routed) and _is_routed(call)


def _refuse_again(
    rivals: Mapping[IPAddress, str],
    requested: Container[IPAddress],
    passed: Collection[IPAddress],
) -> None:
    """Raise AddressTaken for a requested address, RangeExhausted for one that was passed before, or
    where too many were."""
    for address, whose in rivals.items():
        if address in requested:
            raise AddressTaken(f"requested address {address} is {whose}")
        if address in passed or len(passed) > _PASSED_MAX:
            raise RangeExhausted(f"no address is free: {address} is {whose}")


def _reserved_in(places: Iterable[str], assigned: Iterable[Assigned]) -> str:
    """The first of these networks' folders that has one of the addresses; empty for none."""
    names = [str(each.address.ip) for each in assigned]
    return next((p for p in places if any(os.path.lexists(f"{p}/{n}") for n in names)), "")


def _networks_of(*folders: str) -> list[str]:
    """The folders of all networks that are in these."""
    found = []
    for folder in folders:
        with suppress(OSError):
            found += [f"{folder}/{name}" for name in os.listdir(folder)]
    return found


class DelegatedIpam(Ipam):
    """Another IPAM plugin, executed."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.leases = plugin in LEASING

    def validate(self, call: Call) -> None:
        """Find the executable."""
        require_program(self.plugin, call.request)

    def add(self, call: Call, undo: ExitStack) -> Allocate:
        """Executed before the store is locked."""
        delegate = self._delegate(call)
        result = delegate.add()
        undo.callback(delegate.undo)
        return lambda _tx: result

    def run(self, verb: str, call: Call, owner: Owner | None = None) -> None:
        """Execute it; for another owner in that one's name, whose namespace is gone."""
        changes = {}
        if owner:
            changes = {"CNI_CONTAINERID": owner.container_id, "CNI_IFNAME": owner.ifname}
            changes["CNI_NETNS"] = ""
        self._delegate(call).run(verb, **changes)

    def _delegate(self, call: Call) -> Delegate:
        return Delegate(self.plugin, require_program(self.plugin, call.request), call)


_NONE, _OWN = Ipam(), OwnIpam()


def choose_ipam(request: Request, conf: NetConf, host: Host) -> Ipam:
    """The IPAM of a call's configuration.

    `host-local` is podwire's where CNI_PATH has podwire or a copy of it under that name, or
    nothing at all.
    """
    kind = conf.ipam_type
    if host.program in IPAM_PROGRAMS or kind in _OWN_TYPES:
        return _OWN
    if not kind:
        return _OWN if conf.uses_ipam else _NONE
    if kind == _STAND_IN:
        program = find_program(kind, request)
        if program is None or _is_podwire(program, host.executable):
            return _OWN
    return DelegatedIpam(kind)


def ipam_of_record(plugin: str) -> Ipam:
    """The IPAM that gave an attachment its addresses. plugin: as its record has it."""
    return DelegatedIpam(plugin) if plugin else _OWN


def _is_podwire(program: Path, executable: Path | None) -> bool:
    if executable is None:
        return False
    own = os.path.realpath(executable)
    folder = os.path.dirname(own)
    if os.path.realpath(program) in (own, f"{folder}/podwire", f"{folder}/podwire-ipam"):
        return True
    try:
        states = _state_of(own), _state_of(program)
        return states[0] == states[1] or _have_one_content(own, program, states)
    except OSError:
        return False


def _state_of(path: str | Path) -> tuple[int, int, int, int]:
    """Which file it is, its size, and when it was written."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(16)
def _have_one_content(own: str, program: Path, states: tuple[tuple[int, ...], ...]) -> bool:
    """Whether one is a copy of the other. states: of both, so that a new file is read again."""
    (_, _, size, _), (_, _, other_size, _) = states
    return size == other_size and Path(own).read_bytes() == program.read_bytes()


_cache: dict[str, IpamConf] = {}


def _parsed_ipam(call: Call) -> IpamConf:
    """What an earlier call with the same `ipam` section parsed, or parsed now.

    A pod with ports of its own has a configuration of its own, yet the network's addresses.
    """
    conf, runtime = call.conf, call.conf.runtime_config
    asked = runtime.ips, runtime.ip_ranges, conf.args_ips
    key = repr((conf.name, conf.ipam, asked, str(call.host.data_dir), call.version))
    found = _cache.get(key)
    if found is not None:
        return found
    found = _parse_ipam(call)
    remember(_cache, key, found)
    return found


def _parse_ipam(call: Call) -> IpamConf:
    from ipam.config import parse_ipam

    # Other calls wait for the transaction that needs these.
    import_module("ipam.allocator")
    if _is_routed(call):
        import_module("kernel.paths")
    conf = call.conf
    if not conf.uses_ipam:
        raise CniError(INVALID_CONFIG, f"network {conf.name} has no ipam: say at least ipam.subnet")
    return parse_ipam(
        conf.name,
        conf.ipam,
        runtime_config={"ips": conf.runtime_config.ips, "ipRanges": conf.runtime_config.ip_ranges},
        cni_args=call.request.args,
        args={"ips": conf.args_ips},
        default_data_dir=call.host.data_dir,
        cni_version=call.version,
    )


def _to_result(conf: IpamConf, assigned: tuple[Assigned, ...]) -> Result:
    """What podwire's IPAM gave, as an IPAM plugin's result."""
    return Result(
        ips=tuple(IPConfig(a.address, a.gateway) for a in assigned),
        routes=conf.routes,
        dns=render_dns(conf.dns) if conf.dns else {},
    )
