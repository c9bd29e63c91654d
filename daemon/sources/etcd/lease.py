"""What this node holds in etcd: its record and its subnets, on one lease."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Sequence

from daemon.config.schema import EtcdSettings
from daemon.log import Log
from daemon.model import Node
from daemon.sources.etcd.choice import NameTaken, Wishes, choose_subnets
from daemon.sources.etcd.claim import check_lengths, plan_claim, plan_withdrawal
from daemon.sources.etcd.cluster_view import Picture
from daemon.sources.etcd.faults import Refused
from daemon.sources.etcd.gateway import Gateway
from daemon.sources.etcd.keys import Keys, LengthKey, NodeKey, Place, SubnetKey
from daemon.sources.etcd.memory import Memory
from daemon.sources.etcd.ownaddress import own_addresses
from daemon.sources.etcd.subnet_pool import Pool, make_pool
from daemon.sources.etcd.transaction import Header, header_of, pairs_of, read_keys
from daemon.sources.etcd.values import (
    Malformed,
    Pair,
    encode_holder,
    encode_record,
    parse_machine,
    parse_record,
)
from daemon.sources.remote import SourceError
from kernel.model import IPAddress, IPNetwork

# google/rpc/code.proto
_NOT_FOUND, _PRECONDITION = 5, 9
_RAISED_TTL = 75
"""Seconds that etcd may make of a shorter time: one and a half of its longest election."""


class LeaseLost(SourceError):
    """The lease has ended, and with it all keys of this node."""

    def __init__(self) -> None:
        super().__init__("the lease of this node has ended")


class Registration:
    """This node's part in the cluster.

    node: what it holds; None before it was claimed. robbed: its lease was gone before its time:
    etcd forgot it, or somebody ended it.
    """

    def __init__(
        self,
        gateway: Gateway,
        keys: Keys,
        settings: EtcdSettings,
        name: str,
        memory: Memory,
        log: Log,
    ) -> None:
        self.node: Node | None = None
        self.robbed = False
        self._gateway, self._keys, self._settings = gateway, keys, settings
        self._name, self._memory, self._log = name, memory, log
        self._pools = pools_of(settings)
        self._lease, self._renewed = 0, -math.inf
        self._rival: str | None = None

    def claim(self, picture: Picture) -> bool:
        """Take what this node is to have; False where another was faster: read, and try again.

        Raises SourceError: nothing was taken, unless the answer was lost.
        """
        self._check_alone(picture)
        check_lengths(self._keys, picture, self._pools)
        node = self._choose(picture)
        lease = self._live_lease() or self._grant()
        todo = plan_claim(self._keys, picture, node, lease, self._memory.machine)
        if todo.operations and not self._gateway.call("/kv/txn", todo.body()).get("succeeded"):
            return False
        if todo.operations:
            subnets = " ".join(map(str, node.pod_cidrs))
            self._log.info(f"leased {subnets}", seconds=self._settings.lease_seconds)
        self._memory.save(node.pod_cidrs, lease)
        self.node = node
        return True

    def give_up_former(self) -> bool:
        """Give back what this machine holds by another name that it had; whether there was any.

        Its subnets are free for a moment, and it wants the same ones again. Raises SourceError.
        """
        held = self._memory.load()
        if held is None or held.node == self._name:
            return False
        if held.lease:
            self._revoke(held.lease)
        self._memory.save(held.subnets, 0)
        self._log.info(f"gave back what this node held as {held.node}")
        return True

    def stand_in(self) -> Node:
        """This node without a subnet, for as long as it cannot have one. Raises SourceError."""
        return Node(self._name, self._addresses(), ())

    def refresh(self, picture: Picture) -> Header:
        """Put this node's keys into the picture as they are now. Raises SourceError."""
        held = self._memory.load()
        places: list[Place] = [NodeKey(self._name), *map(SubnetKey, held.subnets if held else ())]
        places += [LengthKey(pool.version) for pool in self._pools]
        answer = self._gateway.call("/kv/txn", read_keys(map(self._keys.write, places)))
        picture.refresh(places, pairs_of(answer))
        return header_of(answer)

    def renew(self) -> None:
        """Begin the lease's time anew. Raises LeaseLost, SourceError."""
        if self._keep_alive(self._lease) <= 0:
            raise LeaseLost

    def has_moved(self) -> bool:
        """Whether this node has other addresses by now than the others know."""
        try:
            return self.node is not None and self._addresses() != self.node.addresses
        except SourceError:  # it has none now
            return False

    def is_own(self, key: bytes) -> bool:
        """Whether a key is one of this node's."""
        node = self.node
        if node is None:
            return False
        own: list[Place] = [NodeKey(node.name), *map(SubnetKey, node.pod_cidrs)]
        return any(self._keys.write(place) == key for place in own)

    def is_mine(self, key: bytes, value: bytes, lease: int) -> bool:
        """Whether one of this node's keys is as this node wrote it."""
        if self.node is None or lease not in (0, self._lease):
            return False
        is_record = key == self._keys.write(NodeKey(self._name))
        mine = encode_record(self.node, self._memory.machine)
        return value == (mine if is_record else encode_holder(self._name))

    def withdraw(self, picture: Picture) -> Sequence[str] | None:
        """Give back all that this machine holds; that, in words.

        None where somebody wrote there meanwhile: read, and try again. Raises SourceError.
        """
        held, record = self._memory.load(), self._own_record(picture)
        leases = {held.lease if held else 0, record.lease if record else 0}
        todo, subnets = plan_withdrawal(self._keys, picture, self._name, leases, record)
        if todo.operations and not self._gateway.call("/kv/txn", todo.body()).get("succeeded"):
            return None
        if held is not None and held.lease:
            self._revoke(held.lease)
        self._memory.forget()
        return [f"lease of {subnet} in etcd" for subnet in sorted(map(str, subnets))]

    def _own_record(self, picture: Picture) -> Pair | None:
        """This machine's record, to be withdrawn; another machine's of the same name is told."""
        pair = picture.own_record
        record = None if pair is None else _try_record(self._name, pair)
        if pair is None or record is None or not pair.lease or self._is_by_me(pair):
            return pair
        where = " and ".join(map(str, record.addresses))
        self._log.error(f"{self._name} is another machine, {where}: its keys in etcd stay")
        return None

    def _is_by_me(self, pair: Pair) -> bool:
        """Whether this machine wrote a record that can be read."""
        return parse_machine(pair.value) == self._memory.machine

    def _check_alone(self, picture: Picture) -> None:
        """Raises NameTaken where this node's name is another machine's, whose lease lives.

        A record that lies on no lease was written by hand. A machine that forgot which one it is
        is known by its address; who took the name from this daemon while it ran, is not it.
        """
        pair = picture.own_record
        record = None if pair is None else _try_record(self._name, pair)
        if pair is None or record is None or not pair.lease:
            return
        mine, here = self._is_by_me(pair), not set(record.addresses).isdisjoint(self._addresses())
        before = self.node is not None and record.addresses == self.node.addresses
        if mine and (here or before):
            return
        machine = parse_machine(pair.value)
        if (mine or here) and self.node is None and machine != self._rival:
            return
        self._rival = machine
        key = self._keys.write(NodeKey(self._name)).decode()
        raise NameTaken(self._name, record.addresses, key)

    def _choose(self, picture: Picture) -> Node:
        """This node as it is to be. Raises NoSubnet."""
        addresses, held = self._addresses(), self._memory.load()
        had = held.subnets if held else ()
        kept = had if held and held.is_of_this_boot else ()
        wishes = Wishes(self._name, self._pools, kept, (*self._listed(picture), *had))
        others = (a for node in picture.nodes.values() for a in node.addresses)
        taken = (*others, *addresses)
        subnets = choose_subnets(wishes, picture.names, taken, secrets.randbelow)
        return Node(self._name, addresses, subnets)

    def _listed(self, picture: Picture) -> tuple[IPNetwork, ...]:
        """What its record of earlier lists."""
        pair = picture.own_record
        record = None if pair is None else _try_record(self._name, pair)
        return record.pod_cidrs if record else ()

    def _addresses(self) -> tuple[IPAddress, ...]:
        return self._settings.addresses or own_addresses(self._settings.endpoints)

    def _live_lease(self) -> int:
        """The lease of earlier, with its time begun anew; 0 where there is none that will do.

        Only what this node remembers is its lease, whatever lease its keys are on.
        """
        held = self._memory.load()
        lease = self._lease or (held.lease if held else 0)
        self._lease = 0
        if lease:
            asked, seconds = self._settings.lease_seconds, self._keep_alive(lease)
            if asked <= seconds <= max(asked, _RAISED_TTL):
                self._lease = lease
            self.robbed |= seconds <= 0 and time.monotonic() - self._renewed < asked
        return self._lease

    def _grant(self) -> int:
        # By a number of our own: asked twice it is one lease.
        lease = 1 + secrets.randbelow(2**63 - 1)
        body = {"TTL": str(self._settings.lease_seconds), "ID": str(lease)}
        try:
            self._gateway.call("/lease/grant", body)
        except Refused as error:
            if error.code != _PRECONDITION:  # it exists: the first answer was lost
                raise
        self._lease, self._renewed = lease, time.monotonic()
        return lease

    def _keep_alive(self, lease: int) -> int:
        """Begin a lease's time anew: its length in seconds, 0 where there is no such lease."""
        answer = self._gateway.call("/lease/keepalive", {"ID": str(lease)})
        try:
            seconds = int(answer["result"].get("TTL", 0))
            if seconds > 0:
                self._renewed = time.monotonic()
            return seconds
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Malformed("an answer without a lease") from error

    def _revoke(self, lease: int) -> None:
        try:
            self._gateway.call("/lease/revoke", {"ID": str(lease)})
        except Refused as error:
            if error.code != _NOT_FOUND:
                raise


def pools_of(settings: EtcdSettings) -> tuple[Pool, ...]:
    """What nodes lease from: one pool for each family, in the order of the ranges."""
    ranges = settings.cluster_cidrs
    versions = dict.fromkeys(r.version for r in ranges)
    return tuple(
        make_pool((r for r in ranges if r.version == v), settings.prefix_length.of(v))
        for v in versions
    )


def _try_record(name: str, pair: Pair) -> Node | None:
    try:
        return parse_record(name, pair.value)
    except ValueError:  # somebody else wrote it, who is no daemon
        return None
