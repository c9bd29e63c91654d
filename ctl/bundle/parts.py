"""What is in a support bundle: each part by its name in it, collected by itself."""

from __future__ import annotations

import json
import os
import platform
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from daemon.config import DEFAULT_CONFIG
from daemon.files import open_regular
from daemon.journal import previous_file
from daemon.options import NodeFiles, podwirectl
from daemon.policy.saved_facts import saved_path
from daemon.routing.host_state import read_host_state
from kernel.describe import name_of, state_of
from kernel.errors import KernelError
from kernel.netlink.socket import Netlink
from kernel.nftables.policy import TABLE as POLICY_TABLE
from kernel.pairs import read_pairs
from kernel.programs import find_program
from kernel.routes import read_entries

PART_MAX = 4 << 20
"""Bytes of a part that are kept: of logs and journals the last ones, else the first."""
_TIMEOUT = 60  # seconds
_LOG_LINES = "20000"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_PASSED = ("PODWIRE_NODE", "PODWIRE_SOCKET", "PODWIRE_DATA_DIR", "PODWIRE_STORES")
_SYSCTLS = ("net/ipv4", "net/ipv6", "net/netfilter", "net/bridge", "net/core")
_SETTINGS = frozenset({
    "ip_forward", "forwarding", "rp_filter", "accept_local", "arp_ignore", "arp_announce",
    "arp_filter", "proxy_arp", "send_redirects", "disable_ipv6", "accept_ra", "accept_dad",
    "route_localnet", "addr_gen_mode", "gc_thresh1", "gc_thresh2", "gc_thresh3", "max_size",
    "nf_conntrack_max", "nf_conntrack_count", "nf_conntrack_buckets", "nf_conntrack_checksum",
    "bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables",
    "ip_local_port_range", "ip_local_reserved_ports", "netdev_max_backlog", "rmem_max",
})  # fmt: skip
_PROC = ("net/snmp", "net/snmp6", "net/netstat", "net/softnet_stat", "net/stat/nf_conntrack",
         "version", "uptime", "loadavg", "meminfo")  # fmt: skip
_COMMANDS: Sequence[tuple[str, ...]] = (
    ("status", "-o", "json"),
    ("status",),
    ("doctor", "-o", "json"),
    ("doctor",),
    ("pods", "-o", "json"),
    ("peers", "-o", "json"),
    ("diff", "-o", "json"),
    ("plan", "-o", "json"),
    ("policy", "lint"),
)
_PROGRAMS: Sequence[tuple[str, ...]] = (
    ("ip", "-details", "-statistics", "link", "show"),
    ("ip", "address", "show"),
    ("ip", "rule", "show"),
    ("ip", "-6", "rule", "show"),
    ("ip", "route", "show", "table", "all"),
    ("ip", "-6", "route", "show", "table", "all"),
    ("ip", "nexthop", "show"),
    ("ip", "neighbour", "show"),
    ("ip", "netns", "list"),
    ("bridge", "-details", "link", "show"),
    ("bridge", "fdb", "show"),
    ("bridge", "vlan", "show"),
    ("tc", "-statistics", "qdisc", "show"),
    ("nft", "list", "ruleset"),
    ("iptables-legacy-save", "-c"),
    ("ip6tables-legacy-save", "-c"),
    ("iptables-nft-save", "-c"),
    ("ip6tables-nft-save", "-c"),
    ("ss", "--summary"),
    ("ss", "--udp", "--listening", "--numeric"),
    ("journalctl", "--unit", "podwired", "--lines", _LOG_LINES, "--no-pager", "--quiet"),
    ("systemctl", "show", "podwired", "--property",
     "ActiveState,SubState,ExecMainStartTimestamp,NRestarts,MemoryCurrent,Result"),
)  # fmt: skip

Part = tuple[str, Callable[[], bytes]]
"""A name in the archive, and what collects the content. Raises OSError."""


def parts_of(files: NodeFiles, config: Path | None, static: Path | None) -> Iterator[Part]:
    """All parts. config: the daemon's configuration; static: the list of nodes, if that is a file.

    Left out: kubeconfig files, tokens, certificates, environments, other plugins' configurations.
    """
    config = config or DEFAULT_CONFIG
    yield "about.json", _about
    for words in _COMMANDS:
        name = "-".join(word.strip("-") for word in words if word != "-o")
        suffix = ".json" if words[-1] == "json" else ".txt"
        argv = podwirectl(words)
        argv += ["--config", str(config)] if config.exists() else []
        yield f"podwirectl/{name.removesuffix('-json')}{suffix}", partial(run, argv)
    for path in (config, static, files.conflist):
        if path is not None:
            yield f"files/{path.name}", partial(read_file, path)
    for path in (files.journal, previous_file(files.journal)):
        yield f"files/{path.name}", partial(read_file, path, last=True)
    for path in (files.status, saved_path(files.data_dir)):
        yield f"files/{path.name}", partial(read_file, path)
    for folder in (files.conflist.parent, files.data_dir, files.status.parent):
        name = str(folder).strip("/").replace("/", "_")
        yield f"listings/{name}.txt", partial(list_folder, folder)
    yield "kernel/state.txt", read_state
    yield "kernel/sysctls.txt", read_sysctls
    for name in _PROC:
        yield f"kernel/{name.replace('/', '_')}.txt", partial(read_file, Path("/proc", name))
    for words in _PROGRAMS:
        program = find_program(words[0])
        if program:
            name = "_".join(word.strip("-") for word in words[:4])
            is_log = words[0] == "journalctl"
            yield f"kernel/{name}.txt", partial(run, [program, *words[1:]], last=is_log)
    if program := find_program("nft"):  # of a long ruleset the end is left out
        argv = [program, "list", "table", "inet", POLICY_TABLE]
        yield f"kernel/nft_{POLICY_TABLE}.txt", partial(run, argv)


def _about() -> bytes:
    from importlib.metadata import PackageNotFoundError, version

    packages = ("podwire", "pyroute2", "pydantic", "PyYAML", "filelock", "prometheus-client")
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    about = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": platform.node(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "system": _release(),
        "versions": versions,
    }
    return json.dumps(about, indent=1).encode()


def _release() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def run(argv: Sequence[str], *, last: bool = False) -> bytes:
    """What a program prints, and how it ended. last: keep the end of it. Raises OSError.

    Of the environment it has the variables of podwire's alone.
    """
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_ENVIRONMENT | passed,
                timeout=_TIMEOUT,
                check=False,
            )
            ending = f"[exit status {done.returncode}]\n" if done.returncode else ""
        except subprocess.TimeoutExpired:
            ending = f"[it did not end within {_TIMEOUT} seconds]\n"
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - PART_MAX) if last else 0)
        return output.read(PART_MAX) + ending.encode()


def read_file(path: Path, *, last: bool = False) -> bytes:
    """The beginning of a regular file, or the end of it. Raises OSError."""
    with open_regular(path) as file:
        if last:
            file.seek(max(0, file.seek(0, os.SEEK_END) - PART_MAX))
        return file.read(PART_MAX)


def list_folder(folder: Path) -> bytes:
    """Names, sizes, modes and times; no contents. Raises OSError."""
    lines = []
    for entry in sorted(folder.iterdir()):
        found = entry.lstat()
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.st_mtime))
        target = f" -> {os.readlink(entry)}" if entry.is_symlink() else ""
        mode, size = stat.filemode(found.st_mode), found.st_size
        lines.append(f"{mode} {found.st_uid:>5} {size:>10} {moment} {entry.name}{target}")
    return "\n".join([f"{folder}:", *lines, ""]).encode(errors="surrogateescape")


def read_state() -> bytes:
    """Links, addresses, routes, rules, neighbours and FDB entries as podwire reads them.

    A container may have no program that does. Raises OSError.
    """
    lines: list[str] = []
    try:
        with Netlink() as nl:
            host = read_host_state(nl)
            devices = [link.name for link in host.links if link.kind == "vxlan"] or [""]
            entries = [e for name in devices for e in read_entries(nl, name).values()]
            counters = {end.link.name: end.counters for end in read_pairs(nl)}
    except KernelError as error:
        raise OSError(str(error)) from error
    for link in host.links:
        lines.append(f"{name_of(link)} {link} {counters.get(link.name, '')}")
    for noun in (*host.addresses, *host.routes, *entries):
        lines.append(f"{name_of(noun)} {state_of(noun)}")
    return "\n".join([*lines, *(f"rule {rule}" for rule in host.rules), ""]).encode()


def read_sysctls() -> bytes:
    """The settings that matter to forwarding, of all links."""
    lines = []
    for top in _SYSCTLS:
        for folder, _folders, names in os.walk(f"/proc/sys/{top}"):
            for name in sorted(_SETTINGS.intersection(names)):
                path = f"{folder}/{name}"
                try:
                    lines.append(f"{path[10:]} = {Path(path).read_text().strip()}")
                except OSError as error:
                    lines.append(f"{path[10:]}: {error.strerror}")
    return "\n".join([*sorted(lines), ""]).encode()
