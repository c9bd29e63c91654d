"""This node's part in the cluster: its record and its subnets, registered in one transaction."""

from __future__ import annotations

import secrets
from collections.abc import Container, Sequence
from contextlib import suppress

from daemon.config.schema import EtcdSettings
from daemon.log import Log, shorten
from daemon.model import Node
from daemon.sources.etcd.cluster_view import EtcdView, Holder
from daemon.sources.etcd.gateway import Gateway
from daemon.sources.etcd.keys import (
    FAMILIES,
    Header,
    Keys,
    KeyValue,
    LengthKey,
    NodeKey,
    Place,
    SubnetKey,
    Transaction,
    encode_holder,
    encode_length,
    encode_record,
    header_of,
    pairs_of,
    parse_machine,
    parse_record,
    read_keys,
)
from daemon.sources.etcd.lease import Lease, LeaseFile
from daemon.sources.etcd.subnet_pool import Candidates, NameTaken, Pool, choose_subnets, make_pool
from daemon.sources.own_address import are_lost, own_addresses
from daemon.sources.remote import SourceError
from kernel.errors import KernelError
from kernel.model import IPAddress, IPNetwork


class Registration:
    """This node in etcd.

    node: as it is registered; None before. lease: what its keys are on.
    """

    def __init__(
        self,
        gateway: Gateway,
        keys: Keys,
        settings: EtcdSettings,
        name: str,
        file: LeaseFile,
        log: Log,
    ) -> None:
        self.node: Node | None = None
        self.lease = Lease(gateway, settings.lease_seconds)
        self._gateway, self._keys, self._settings = gateway, keys, settings
        self._name, self._file, self._log = name, file, log
        self._pools = pools_of(settings)
        self._impostor: str | None = None

    def register(self, view: EtcdView) -> bool:
        """Write this node's keys; False where another node was faster: read, and try again.

        Raises SourceError: nothing was written, unless the answer was lost.
        """
        self._check_name(view)
        check_lengths(self._keys, view, self._pools)
        node, saved = self._choose(view), self._file.load()
        lease = self.lease.hold(saved.lease if saved else 0)
        todo = plan_registration(self._keys, view, node, lease, self._file.machine)
        if not self._commit(todo):
            return False
        if todo.operations:
            subnets = " ".join(map(str, node.pod_cidrs))
            self._log.info(f"leased {subnets}", seconds=self._settings.lease_seconds)
        self._file.save(node.pod_cidrs, lease)
        self.node = node
        return True

    def release_former_name(self) -> bool:
        """Give back what this machine holds by a former name; whether there was any.

        Its subnets are free for a moment, and it wants the same ones again. Raises SourceError.
        """
        saved = self._file.load()
        if saved is None or saved.node == self._name:
            return False
        if saved.lease:
            self.lease.revoke(saved.lease)
        self._file.save(saved.subnets, 0)
        self._log.info(f"gave back what this node held as {saved.node}")
        return True

    def without_subnets(self) -> Node:
        """This node, for as long as it cannot have a subnet. Raises SourceError."""
        return Node(self._name, self._addresses(), ())

    def refresh(self, view: EtcdView) -> Header:
        """Read this node's own keys into the view. Raises SourceError."""
        saved = self._file.load()
        places: list[Place] = [NodeKey(self._name), *map(SubnetKey, saved.subnets if saved else ())]
        places += [LengthKey(pool.version) for pool in self._pools]
        answer = self._gateway.call("/kv/txn", read_keys(map(self._keys.write, places)))
        view.refresh(places, pairs_of(answer))
        return header_of(answer)

    def has_moved(self) -> bool:
        """Whether this node's addresses differ from those that are registered."""
        try:
            return self.node is not None and self._addresses() != self.node.addresses
        except SourceError:  # it has none now
            return False

    def has_lost_address(self) -> bool:
        """Whether an address that is registered is gone, of those that this node found itself."""
        found = self.node.addresses if self.node and not self._settings.addresses else ()
        with suppress(KernelError, OSError):  # the next look may answer
            return bool(found) and are_lost(found)
        return False

    def is_own(self, key: bytes) -> bool:
        """Whether a key is one of this node's."""
        node = self.node
        if node is None:
            return False
        own: list[Place] = [NodeKey(node.name), *map(SubnetKey, node.pod_cidrs)]
        return any(self._keys.write(place) == key for place in own)

    def is_as_written(self, pair: KeyValue) -> bool:
        """Whether one of this node's keys is as this node wrote it."""
        if self.node is None or pair.lease not in (0, self.lease.number):
            return False
        is_record = pair.key == self._keys.write(NodeKey(self._name))
        own = encode_record(self.node, self._file.machine)
        return pair.value == (own if is_record else encode_holder(self._name))

    def withdraw(self, view: EtcdView) -> Sequence[str] | None:
        """Give back all that this machine holds; a description of each.

        None where another client wrote there meanwhile: read, and try again. Raises SourceError.
        """
        saved, record = self._file.load(), self._withdrawable_record(view)
        leases = {saved.lease if saved else 0, record.lease if record else 0}
        todo, subnets = plan_withdrawal(self._keys, view, self._name, leases, record)
        if not self._commit(todo):
            return None
        if saved is not None and saved.lease:
            self.lease.revoke(saved.lease)
        self._file.forget()
        return [f"lease of {subnet} in etcd" for subnet in sorted(map(str, subnets))]

    def _commit(self, todo: Transaction) -> bool:
        """Whether the transaction happened; one without operations needs no request."""
        return not todo.operations or bool(
            self._gateway.call("/kv/txn", todo.body()).get("succeeded")
        )

    def _withdrawable_record(self, view: EtcdView) -> KeyValue | None:
        """This machine's record; another machine's of the same name stays, and is logged."""
        pair = view.own_record
        record = _parse_own(view)
        if pair is None or record is None or not pair.lease or self._is_by_me(pair):
            return pair
        where = " and ".join(map(str, record.addresses))
        self._log.error(f"{self._name} is another machine, {where}: its keys in etcd stay")
        return None

    def _is_by_me(self, pair: KeyValue) -> bool:
        """Whether this machine wrote a record that can be read."""
        return parse_machine(pair.value) == self._file.machine

    def _check_name(self, view: EtcdView) -> None:
        """Raises NameTaken where another machine of this name holds a live lease.

        A record without lease was written by hand. A machine that lost its ID is known by its
        address, but not while its daemon runs: then the record is by another machine.
        """
        pair, record = view.own_record, _parse_own(view)
        if pair is None or record is None or not pair.lease:
            return
        mine, here = self._is_by_me(pair), not set(record.addresses).isdisjoint(self._addresses())
        before = self.node is not None and record.addresses == self.node.addresses
        if mine and (here or before):
            return
        machine = parse_machine(pair.value)
        if (mine or here) and self.node is None and machine != self._impostor:
            return
        self._impostor = machine
        key = self._keys.write(NodeKey(self._name)).decode()
        raise NameTaken(self._name, record.addresses, key)

    def _choose(self, view: EtcdView) -> Node:
        """This node as it is to be registered. Raises NoSubnet."""
        addresses, saved, record = self._addresses(), self._file.load(), _parse_own(view)
        former = saved.subnets if saved else ()
        kept = former if saved and saved.is_of_this_boot else ()
        listed = record.pod_cidrs if record else ()
        candidates = Candidates(self._name, self._pools, kept, (*listed, *former))
        others = (a for node in view.nodes.values() for a in node.addresses)
        taken = (*others, *addresses)
        subnets = choose_subnets(candidates, view.holder_names, taken, secrets.randbelow)
        return Node(self._name, addresses, subnets)

    def _addresses(self) -> tuple[IPAddress, ...]:
        return self._settings.addresses or own_addresses(self._settings.endpoints)


def pools_of(settings: EtcdSettings) -> tuple[Pool, ...]:
    """What nodes lease from: one pool for each family, in the order of the ranges."""
    ranges = settings.cluster_cidrs
    versions = dict.fromkeys(r.version for r in ranges)
    return tuple(
        make_pool((r for r in ranges if r.version == v), settings.prefix_length.of(v))
        for v in versions
    )


def _parse_own(view: EtcdView) -> Node | None:
    """This node by its record in etcd; None where there is none, or no daemon wrote it."""
    pair = view.own_record
    try:
        return parse_record(view.me, pair.value) if pair else None
    except ValueError:
        return None


# -- transactions


def plan_registration(
    keys: Keys, view: EtcdView, node: Node, lease: int, machine: str = ""
) -> Transaction:
    """Writes what the node's keys lack; no operations where nothing is.

    machine: as in `encode_record`. A subnet without lease is an operator's reservation: it stays.
    """
    todo = Transaction()
    for subnet in node.pod_cidrs:
        key, holder = keys.write(SubnetKey(subnet)), view.holders.get(subnet)
        if holder is None:
            todo.expect_absent(key)
        elif holder.foreign or holder.lease not in (0, lease):
            todo.expect_unchanged(key, holder.modified)
        else:
            continue
        todo.put(key, encode_holder(node.name), lease)
    _plan_record(todo, keys, view, encode_record(node, machine), lease)
    for subnet, holder in view.holders.items():
        # What the node held, and should not hold by now.
        if holder.name == node.name and holder.lease and subnet not in node.pod_cidrs:
            _plan_return(todo, keys, subnet, holder)
    if todo.operations:
        _plan_lengths(todo, keys, view, node)
    return todo


def check_lengths(keys: Keys, view: EtcdView, pools: tuple[Pool, ...]) -> None:
    """Raises SourceError where this node would lease subnets of another length than the others.

    Two nodes could then lease subnets that overlap at the same time, by different keys.
    """
    for pool in pools:
        pair = view.lengths.get(pool.version)
        if pair is not None and pair.value != encode_length(pool.length):
            key, family = keys.write(LengthKey(pool.version)).decode(), FAMILIES[pool.version]
            raise SourceError(
                f"source.etcd.prefixLength.{family} is {pool.length} here, and for the whole"
                f" cluster {shorten(pair.value)}, by the key {key} (delete it to change that)"
            )


def plan_withdrawal(
    keys: Keys, view: EtcdView, name: str, leases: Container[int], record: KeyValue | None
) -> tuple[Transaction, list[IPNetwork]]:
    """What a node gives back that leaves for good, and the subnets among it.

    leases: those of its subnets; one on another lease is another machine's of that name. record:
    its own, if any.
    """
    todo, subnets = Transaction(), []
    for subnet, holder in view.holders.items():
        own = holder.name == name and not holder.foreign
        if own and holder.lease and holder.lease in leases:
            _plan_return(todo, keys, subnet, holder)
            subnets.append(subnet)
    if record is not None:
        todo.expect_unchanged(record.key, record.modified)
        todo.delete(record.key)
    return todo, subnets


def _plan_record(todo: Transaction, keys: Keys, view: EtcdView, value: bytes, lease: int) -> None:
    record, key = view.own_record, keys.write(NodeKey(view.me))
    if record is None:
        todo.expect_absent(key)
    elif (record.value, record.lease) != (value, lease):
        todo.expect_unchanged(key, record.modified)
    else:
        return
    todo.put(key, value, lease)


def _plan_return(todo: Transaction, keys: Keys, subnet: IPNetwork, holder: Holder) -> None:
    key = keys.write(SubnetKey(subnet))
    todo.expect_unchanged(key, holder.modified)
    todo.delete(key)


def _plan_lengths(todo: Transaction, keys: Keys, view: EtcdView, node: Node) -> None:
    """The lengths must still be what they were when the subnets were chosen."""
    for version, length in {s.version: s.prefixlen for s in node.pod_cidrs}.items():
        key, value = keys.write(LengthKey(version)), encode_length(length)
        if version in view.lengths:
            todo.expect_value(key, value)
        else:
            todo.expect_absent(key)
            todo.put(key, value)
