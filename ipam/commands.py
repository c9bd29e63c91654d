"""What the commands of `podwire-ipam` do; each returns the exit code."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from ipam.clock import render_duration
from ipam.errors import AddressTaken
from ipam.import_host_local import Imported, import_directory
from ipam.json_section import parse_address
from ipam.ranges import IPAddress
from ipam.store import Purged, Store, open_store
from ipam.tables import render_table, shorten_id
from ipam.transaction import Allocation, Owner, Transaction

DONE, FAILED, NOT_FOUND, NOT_DONE = 0, 1, 3, 4


def _open(args: Namespace, *, create: bool = False) -> Store:
    """Open the store, and say so if that freed what an earlier boot held."""
    store = open_store(Path(args.data_dir).absolute(), create=create)
    if store.purged != Purged():
        _tell(
            f"the machine was rebooted: freed {store.purged.allocations} addresses and"
            f" {store.purged.attachments} records of the earlier boot"
        )
    return store


def _tell(text: str) -> None:
    print(f"podwire-ipam: {text}", file=sys.stderr)


def list_allocations(args: Namespace) -> int:
    """`list`: every address that is held."""
    with _open(args) as store, store.read() as tx:
        allocations = tx.allocations(args.network)
        if args.output == "json":
            _print_json(tx, allocations)
        elif not allocations:
            print("no address is held")
        else:
            print(_render_list(allocations))
    return DONE


def _render_list(allocations: Iterable[Allocation]) -> str:
    header = ("NETWORK", "ADDRESS", "CONTAINER", "INTERFACE", "AGE")
    return render_table(header, [_row(allocation) for allocation in allocations])


def _row(allocation: Allocation) -> tuple[str, ...]:
    owner, age = allocation.owner, time.time() - allocation.created_at
    container = shorten_id(owner.container_id)
    return owner.network, str(allocation.address), container, owner.ifname, render_duration(age)


def _print_json(tx: Transaction, allocations: Iterable[Allocation]) -> None:
    print(json.dumps([_as_json(tx, allocation) for allocation in allocations], indent=2))


def _as_json(tx: Transaction, allocation: Allocation) -> dict[str, object]:
    owner = allocation.owner
    return {
        "network": owner.network,
        "address": str(allocation.address),
        "containerID": owner.container_id,
        "ifname": owner.ifname,
        "createdAt": _timestamp(allocation.created_at),
        "bootID": allocation.boot_id,
        "attached": tx.attachment(owner) is not None,
    }


def _timestamp(seconds: float) -> str:
    """RFC 3339, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def show(args: Namespace) -> int:
    """`show`: everything about an address, or about a container."""
    with _open(args) as store, store.read() as tx:
        found = _matching(tx, args.what, args.network)
        if not found:
            _tell(f"{args.what} is neither an address that is held nor a container that holds one")
            return NOT_FOUND
        if args.output == "json":
            _print_json(tx, found)
        else:
            print("\n\n".join(_render_details(tx, allocation) for allocation in found))
    return DONE


def _matching(tx: Transaction, what: str, network: str | None) -> list[Allocation]:
    """Allocations of an address, or of containers whose ID starts with the text."""
    address = _as_address(what)
    return [
        allocation
        for allocation in tx.allocations(network)
        if allocation.address == address
        or (address is None and allocation.owner.container_id.startswith(what))
    ]


def _as_address(text: str) -> IPAddress | None:
    try:
        return parse_address(text)
    except ValueError:
        return None


def _render_details(tx: Transaction, allocation: Allocation) -> str:
    owner, age = allocation.owner, time.time() - allocation.created_at
    rows = (
        ("Address:", str(allocation.address)),
        ("Network:", owner.network),
        ("Container:", owner.container_id),
        ("Interface:", owner.ifname),
        ("Held since:", f"{_timestamp(allocation.created_at)} ({render_duration(age)})"),
        ("Attached:", _render_attached(tx, owner)),
    )
    return "\n".join(f"{name:<12}{value}" for name, value in rows)


def _render_attached(tx: Transaction, owner: Owner) -> str:
    if tx.attachment(owner) is None:
        return "no: podwire has no record of this attachment"
    return "yes: podwire attached it, and has not deleted it"


def release(args: Namespace) -> int:
    """`release`: free an address by hand, after asking."""
    address = parse_address(args.address)
    with _open(args) as store:
        with store.read() as tx:
            found = _matching(tx, str(address), args.network)
            question = "\n\n".join(_render_details(tx, allocation) for allocation in found)
        if not found:
            _tell(f"{address} is not held{f' in network {args.network}' if args.network else ''}")
            return NOT_FOUND
        if len(found) > 1:
            networks = ", ".join(allocation.owner.network for allocation in found)
            _tell(f"{address} is held in several networks ({networks}): name one with --network")
            return NOT_DONE
        print(question)
        if not args.yes and not _confirmed(address):
            return NOT_DONE
        _free(store, found[0])
    print(f"released {address}")
    return DONE


def _confirmed(address: IPAddress) -> bool:
    """Ask on the terminal; without one, refuse."""
    if not sys.stdin.isatty():
        _tell("nothing was released: no terminal to ask on; say --yes if you mean it")
        return False
    print("\nA pod that still uses this address will clash with the next one that gets it.")
    answer = input(f"Release {address}? [y/N] ")
    if answer.strip().lower() in ("y", "yes"):
        return True
    _tell("nothing was released")
    return False


def _free(store: Store, shown: Allocation) -> None:
    """Free the address, if who holds it is still who was shown."""
    with store.transaction() as tx:
        holder = tx.owner_of(shown.owner.network, shown.address)
        if holder != shown.owner:
            raise AddressTaken(f"{shown.address} changed hands meanwhile; nothing was released")
        tx.release_address(shown.owner.network, shown.address)


def import_host_local(args: Namespace) -> int:
    """`import-host-local`: take over the reservations of the reference plugin."""
    with _open(args, create=True) as store:
        imported = import_directory(store, Path(args.directory), args.network)
    if args.output == "json":
        print(json.dumps(_import_as_json(imported), indent=2))
    else:
        print(_render_import(imported))
    nothing = not imported.taken and not imported.known
    if nothing:
        _tell(f"{args.directory} has no reservation: it must be the folder of one network")
    return FAILED if nothing else DONE


def _import_as_json(imported: Imported) -> dict[str, object]:
    return {
        "network": imported.network,
        "taken": [
            {
                "address": str(r.address),
                "containerID": r.owner.container_id,
                "ifname": r.owner.ifname,
                "note": r.note,
            }
            for r in imported.taken
        ],
        "known": [str(r.address) for r in imported.known],
        "skipped": [{"path": str(s.path), "reason": s.reason} for s in imported.skipped],
    }


def _render_import(imported: Imported) -> str:
    lines = [
        f"network {imported.network}: took over {len(imported.taken)} addresses,"
        f" {len(imported.known)} were known already, skipped {len(imported.skipped)} files"
    ]
    lines += [f"  {r.address}: {r.note}" for r in imported.taken if r.note]
    lines += [f"  skipped {s.path}: {s.reason}" for s in imported.skipped]
    return "\n".join(lines)
