"""`podwire-ipam` as an operator's command: show the store, and repair it."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import (
    SUPPRESS,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections.abc import Sequence
from pathlib import Path

from ipam import DEFAULT_DATA_DIR, HOST_LOCAL_DATA_DIR, KINDNET_DATA_DIR
from ipam.boot import render_duration
from ipam.errors import AddressTaken, IpamError, StoreDamaged
from ipam.host_local_files import Imported, export, import_directory, withdraw
from ipam.json_section import parse_address
from ipam.ranges import IPAddress
from ipam.store import Allocation, Purged, Store, Transaction, open_store
from ipam.table import render_table

_DONE, _FAILED, _NOT_FOUND, _NOT_DONE = 0, 1, 3, 4
_LONG_ID, _SHOWN_OF_ID = 20, 13  # characters

EPILOG = """\
examples:
  podwire-ipam list                               every allocated address
  podwire-ipam list -o json                       the same, for programs
  podwire-ipam show 10.88.0.7                     which container has an address
  podwire-ipam show 3f1c9a                        the addresses of a container (start of its ID)
  podwire-ipam release 10.88.0.7                  free a leaked address, after asking
  podwire-ipam import-host-local /var/lib/cni/networks/podnet
                                                  take over from the reference host-local
  podwire-ipam export-host-local /var/lib/cni/networks/podnet
                                                  hand over to it

exit codes:
  0  done
  1  failed: the database cannot be used, or an import conflicts
  2  wrong usage
  3  no such address or container
  4  not done: declined, no terminal to ask on, or the address is in several networks
"""


HINT_DAMAGED = """\
Nothing was changed, and running pods keep their network. Let any pod of the node start or stop:
the CNI call rebuilds the database from the pods' links and from what can still be read, and keeps
the damaged one beside it as podwire.db.damaged-TIME. Do not delete it: that would lose the rest."""


def main(argv: Sequence[str]) -> int:
    """Run one command (`argv` without the program's name); returns the exit code."""
    args = build_parser().parse_args(argv)
    if sys.stdout is None:
        print("podwire-ipam: stdout is closed: there is no place for the answer", file=sys.stderr)
        return 1
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except IpamError as error:
        print(f"podwire-ipam: {error}", file=sys.stderr)
        if isinstance(error, StoreDamaged):
            print(HINT_DAMAGED, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain again at exit.
        sys.stdout = None
        return 1
    except OSError as error:
        hint = " (are you root?)" if isinstance(error, PermissionError) else ""
        where = f"{error.filename}: " if error.filename else ""
        print(f"podwire-ipam: {where}{error.strerror or error}{hint}", file=sys.stderr)
        sys.stdout = None
        return 1
    except (KeyboardInterrupt, EOFError):
        print("\npodwire-ipam: nothing was changed", file=sys.stderr)
        return _NOT_DONE
    return code


def build_parser() -> ArgumentParser:
    """The parser of the command line."""
    parser = ArgumentParser(
        prog="podwire-ipam",
        description="Show podwire's addresses, and repair them.",
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    _add_common(parser, os.environ.get("PODWIRE_DATA_DIR") or DEFAULT_DATA_DIR, "text")
    _add_commands(parser)
    return parser


def _add_common(parser: ArgumentParser, data_dir: str, output: str) -> None:
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        default=data_dir,
        help=f"folder of podwire.db (default: $PODWIRE_DATA_DIR, or {DEFAULT_DATA_DIR})",
    )
    parser.add_argument(
        "-o", "--output", choices=("text", "json"), default=output, help="for people or programs"
    )


def _add_commands(parser: ArgumentParser) -> None:
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, run: object) -> ArgumentParser:
        subparser = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:])
        _add_common(subparser, SUPPRESS, SUPPRESS)
        subparser.add_argument("--network", metavar="NAME", help="this network alone")
        subparser.set_defaults(run=run)
        return subparser

    add("list", "list every allocated address", _list_allocations)
    show = add("show", "show the container of an address, or the addresses of a container", _show)
    show.add_argument("what", metavar="ADDRESS-OR-CONTAINER", help="start of the ID is enough")
    release = add("release", "free an address by hand; asks first", _release)
    release.add_argument("address", metavar="ADDRESS", type=_address)
    release.add_argument("--yes", action="store_true", help="do not ask")
    take = add(
        "import-host-local",
        "take over the addresses that the reference plugin host-local gave out",
        _import_host_local,
    )
    take.add_argument("directory", metavar="DIR", help="its folder of one network")
    give = add(
        "export-host-local",
        "reserve the allocated addresses with the reference plugin host-local",
        _export_host_local,
    )
    give.add_argument("directory", metavar="DIR", help="its folder of one network")


def _address(text: str) -> IPAddress:
    address = _as_address(text)
    if address is None:
        raise ArgumentTypeError(f"{text!r} is not an IP address")
    return address


def _open(args: Namespace, *, create: bool = False) -> Store:
    """Open the store, and report whether that freed addresses of an earlier boot."""
    store = open_store(Path(args.data_dir).absolute(), create=create)
    if store.purged != Purged():
        _report(
            f"the machine was rebooted: freed {store.purged.allocations} addresses and"
            f" {store.purged.attachments} records of the earlier boot"
        )
    return store


def _report(text: str) -> None:
    print(f"podwire-ipam: {text}", file=sys.stderr)


def _list_allocations(args: Namespace) -> int:
    """`list`: every allocated address."""
    with _open(args) as store, store.read() as tx:
        allocations = tx.allocations(args.network)
        if args.output == "json":
            _print_json([_as_json(tx, allocation) for allocation in allocations])
        elif not allocations:
            print("no address is allocated")
        else:
            header = ("NETWORK", "ADDRESS", "CONTAINER", "INTERFACE", "AGE")
            print(render_table(header, [_row(allocation) for allocation in allocations]))
    return _DONE


def _row(allocation: Allocation) -> tuple[str, ...]:
    owner, age = allocation.owner, time.time() - allocation.created_at
    container = owner.container_id  # of a long one the first characters, which commands take, too
    container = container if len(container) <= _LONG_ID else container[:_SHOWN_OF_ID]
    return owner.network, str(allocation.address), container, owner.ifname, render_duration(age)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


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


def _show(args: Namespace) -> int:
    """`show`: everything about an address, or about a container."""
    with _open(args) as store, store.read() as tx:
        found = _matching(tx, args.what, args.network)
        if not found:
            _report(f"{args.what} is neither an allocated address nor a container that has one")
            return _NOT_FOUND
        if args.output == "json":
            _print_json([_as_json(tx, allocation) for allocation in found])
        else:
            print("\n\n".join(_render_details(tx, allocation) for allocation in found))
    return _DONE


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
        ("Since:", f"{_timestamp(allocation.created_at)} ({render_duration(age)})"),
        (
            "Attached:",
            "no: podwire has no record of this attachment"
            if tx.attachment(owner) is None
            else "yes: podwire attached it, and has not deleted it",
        ),
    )
    return "\n".join(f"{name:<12}{value}" for name, value in rows)


def _release(args: Namespace) -> int:
    """`release`: free an address by hand, after asking."""
    address: IPAddress = args.address
    with _open(args) as store:
        with store.read() as tx:
            found = _matching(tx, str(address), args.network)
            question = "\n\n".join(_render_details(tx, allocation) for allocation in found)
        if not found:
            where = f" in network {args.network}" if args.network else ""
            _report(f"{address} is not allocated{where}")
            return _NOT_FOUND
        if len(found) > 1:
            names = ", ".join(allocation.owner.network for allocation in found)
            _report(f"{address} is allocated in several networks ({names}): name one (--network)")
            return _NOT_DONE
        print(question)
        if not args.yes and not _confirmed(address):
            return _NOT_DONE
        _free(store, found[0])
    for folder in dict.fromkeys((HOST_LOCAL_DATA_DIR, KINDNET_DATA_DIR, args.data_dir)):
        for file in withdraw(folder, address, found[0].owner.container_id):
            print(f"removed host-local's reservation {file}")
    print(f"released {address}")
    return _DONE


def _confirmed(address: IPAddress) -> bool:
    """Ask on the terminal; without one, refuse."""
    if not sys.stdin.isatty():
        _report("nothing was released: no terminal to ask on; use --yes to release without asking")
        return False
    print("\nA pod that still uses this address will clash with the next one that gets it.")
    answer = input(f"Release {address}? [y/N] ")
    if answer.strip().lower() in ("y", "yes"):
        return True
    _report("nothing was released")
    return False


def _free(store: Store, shown: Allocation) -> None:
    """Free the address, if its owner is still the one that was shown."""
    with store.transaction() as tx:
        # What is raised takes the release back.
        if tx.release_address(shown.owner.network, shown.address) != shown.owner:
            raise AddressTaken(f"{shown.address} changed hands meanwhile; nothing was released")


def _import_host_local(args: Namespace) -> int:
    """`import-host-local`: take over the reservations of the reference plugin."""
    with _open(args, create=True) as store:
        imported = import_directory(store, Path(args.directory), args.network)
    if args.output == "json":
        _print_json(_import_as_json(imported))
    else:
        print(_render_import(imported))
    if imported.taken or imported.known:
        return _DONE
    _report(f"{args.directory} has no reservation: it must be the folder of one network")
    return _FAILED


def _export_host_local(args: Namespace) -> int:
    """`export-host-local`: let the reference plugin know which addresses are allocated."""
    with _open(args) as store:
        written, known = export(store, Path(args.directory), args.network)
    if args.output == "json":
        _print_json({"written": written, "known": known})
    else:
        print(f"wrote {written} reservations, {known} were there already")
    return _DONE


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
