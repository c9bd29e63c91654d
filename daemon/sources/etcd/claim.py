"""What a node writes to have its subnets: one transaction, none if another was faster. Pure."""

from __future__ import annotations

from collections.abc import Container

from daemon.model import Node
from daemon.sources.etcd.cluster_view import Holder, Picture
from daemon.sources.etcd.keys import FAMILIES, Keys, LengthKey, NodeKey, SubnetKey
from daemon.sources.etcd.subnet_pool import Pool
from daemon.sources.etcd.transaction import Transaction
from daemon.sources.etcd.values import Pair, encode_holder, encode_length, encode_record, shorten
from daemon.sources.remote import SourceError
from kernel.model import IPNetwork


def plan_claim(
    keys: Keys, picture: Picture, node: Node, lease: int, machine: str = ""
) -> Transaction:
    """What is missing for the node to be as it should be; no operations where nothing is.

    machine: as in `encode_record`. A subnet without lease was put down by hand: it stays as it is.
    """
    todo = Transaction()
    for subnet in node.pod_cidrs:
        key, holder = keys.write(SubnetKey(subnet)), picture.holders.get(subnet)
        if holder is None:
            todo.expect_absent(key)
        elif holder.foreign or holder.lease not in (0, lease):
            todo.expect_unchanged(Pair(key, b"", modified=holder.modified))
        else:
            continue
        todo.put(key, encode_holder(node.name), lease)
    _plan_record(todo, keys, picture, Pair(b"", encode_record(node, machine), lease=lease))
    for subnet, holder in picture.holders.items():
        # What the node held, and should not by now.
        if holder.name == node.name and holder.lease and subnet not in node.pod_cidrs:
            _plan_return(todo, keys, subnet, holder)
    if todo.operations:
        _plan_lengths(todo, keys, picture, node)
    return todo


def check_lengths(keys: Keys, picture: Picture, pools: tuple[Pool, ...]) -> None:
    """Raises SourceError where this node would lease subnets of another length than the others.

    Two nodes could then lease subnets that overlap, in the same moment, by different keys.
    """
    for pool in pools:
        pair = picture.lengths.get(pool.version)
        if pair is not None and pair.value != encode_length(pool.length):
            key, family = keys.write(LengthKey(pool.version)).decode(), FAMILIES[pool.version]
            raise SourceError(
                f"source.etcd.prefixLength.{family} is {pool.length} here, and for the whole"
                f" cluster {shorten(pair.value)}: so says the key {key} (delete it to change that)"
            )


def plan_withdrawal(
    keys: Keys, picture: Picture, name: str, leases: Container[int], record: Pair | None
) -> tuple[Transaction, list[IPNetwork]]:
    """What a node gives back that leaves for good, and the subnets among it.

    leases: on which its subnets are, and nobody else's of that name. record: its own, if any.
    """
    todo, subnets = Transaction(), []
    for subnet, holder in picture.holders.items():
        own = holder.name == name and not holder.foreign
        if own and holder.lease and holder.lease in leases:
            _plan_return(todo, keys, subnet, holder)
            subnets.append(subnet)
    if record is not None:
        todo.expect_unchanged(record)
        todo.delete(record.key)
    return todo, subnets


def _plan_record(todo: Transaction, keys: Keys, picture: Picture, wanted: Pair) -> None:
    record, key = picture.own_record, keys.write(NodeKey(picture.me))
    if record is None:
        todo.expect_absent(key)
    elif (record.value, record.lease) != (wanted.value, wanted.lease):
        todo.expect_unchanged(record)
    else:
        return
    todo.put(key, wanted.value, wanted.lease)


def _plan_return(todo: Transaction, keys: Keys, subnet: IPNetwork, holder: Holder) -> None:
    key = keys.write(SubnetKey(subnet))
    todo.expect_unchanged(Pair(key, b"", modified=holder.modified))
    todo.delete(key)


def _plan_lengths(todo: Transaction, keys: Keys, picture: Picture, node: Node) -> None:
    """The lengths must still be what they were when the subnets were chosen."""
    for version, length in {s.version: s.prefixlen for s in node.pod_cidrs}.items():
        key, value = keys.write(LengthKey(version)), encode_length(length)
        if version in picture.lengths:
            todo.expect_value(key, value)
        else:
            todo.expect_absent(key)
            todo.put(key, value)
