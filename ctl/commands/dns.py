"""`podwirectl dns`: the lookups of a pod's resolver, with real packets from its namespace."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from statistics import median

from ctl.attachments import Attachment, find_pod, read_attachments
from ctl.dns import watched
from ctl.dns.codec import BadName
from ctl.dns.findings import find_faults, find_waste
from ctl.dns.lookup import Burst, Lookup, Sent, burst, look_up
from ctl.dns.resolv_conf import ResolvConf, parse, read_of
from ctl.dns.symptoms import Symptoms, describe_symptoms, read_symptoms
from ctl.dns.watch import watch
from ctl.output import DONE, FAILED, add_output, count, fields, number, print_json, table
from ctl.pod_namespace import find_processes, open_pod_namespace
from daemon.options import Unusable, add_config, files_of
from kernel.model import IPAddress
from kernel.netlink.socket import Netlink
from kernel.netns import Namespace

OUTSIDE = "example.com"
DESCRIPTION = f"""\
Look NAME up as the resolver of POD would, from its network namespace, and show each query: its
answer, its time, and whether it was in vain. Without NAME an outside one, {OUTSIDE}. With --watch
look nothing up, and count the lookups that the pod's programs do, or without POD those of all."""
EPILOG = """\
examples:
  podwirectl dns shop/cart                        what does an outside name cost this pod?
  podwirectl dns shop/cart db.shop.svc.cluster.local
  podwirectl dns shop/cart db --server 10.96.0.10 --search shop.svc.cluster.local --ndots 5
  podwirectl dns shop/cart --burst 1500           does anything limit queries per second?
  podwirectl dns shop/cart --watch 30             what do its own programs ask, and what gets lost?
  podwirectl dns --watch 30                       which pods ask how much, and who loses how much?

The settings are those of /etc/resolv.conf in the root of a process of the pod; options replace
them. Names are tried in glibc's order (musl tries no search list for a name with `ndots` dots).
Real packets are sent, by the pod's addresses, and counted like its own.

POD is whatever `podwirectl pods` takes. With --watch nothing is sent: packets are read at the
node's end of the pod's link, and a query without an answer for 2 seconds counts as lost.

exit codes: 0 the name has addresses, and every query had an answer; 1 it has none, queries were
lost (of those watched more than 2%), or it could not be done; 2 wrong usage
"""
_BURST_MAX = 5000


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    words = "pod, container ID, address, link, ...; with --watch all pods if left out"
    parser.add_argument("pod", metavar="POD", nargs="?", help=words)
    parser.add_argument("name", metavar="NAME", nargs="?", default=OUTSIDE, help="(%(default)s)")
    words = "ask this server; may be repeated"
    parser.add_argument("--server", metavar="ADDRESS", type=ip_address, action="append", help=words)
    words = "try this domain; may be repeated"
    parser.add_argument("--search", metavar="DOMAIN", action="append", help=words)
    parser.add_argument("--ndots", type=int, choices=range(16), metavar="N", help="0 to 15")
    parser.add_argument(
        "--timeout", type=number(0.05, 30), metavar="SECONDS", help="for each answer"
    )
    parser.add_argument("--attempts", type=int, choices=range(1, 6), metavar="N", help="1 to 5")
    words = f"also send N queries (at most {_BURST_MAX}) within a second, and count answers"
    parser.add_argument("--burst", metavar="N", type=count(1, _BURST_MAX), default=0, help=words)
    words = "count the lookups that the pod does in that time"
    parser.add_argument(
        "--watch", metavar="SECONDS", type=number(0.5, 86400), default=0.0, help=words
    )
    add_output(parser)
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Look up, and print what was found; the exit status."""
    if options.watch:
        return _watch(options) if options.pod else _watch_all(options)
    if not options.pod:
        raise Unusable("which pod? POD may be left out with --watch alone")
    with Netlink() as nl:
        pod = _find_pod(nl, options)
        opened = open_pod_namespace(nl, pod)
    with opened as namespace:
        conf, origin = _settings(pod, namespace, options)
        before = read_symptoms(namespace)
        try:
            lookup = look_up(namespace, options.name, conf)
            flood = _flood(namespace, options, conf, lookup)
        except BadName as error:
            raise Unusable(str(error)) from error
        after = read_symptoms(namespace)
    faults = list(find_faults(lookup, conf, flood, pod.name))
    findings = [*find_waste(lookup, conf), *faults]
    findings += describe_symptoms(before, after)
    if options.output == "json":
        print_json(_as_json(pod, conf, lookup, flood, findings, after))
    else:
        print(_render(pod, conf, origin, lookup, flood, findings, after))
    return DONE if lookup.answered and not faults else FAILED


def _watch(options: argparse.Namespace) -> int:
    with Netlink() as nl:
        pod = _find_pod(nl, options)
    if pod.end is None:
        raise Unusable(f"link {pod.host} of {pod.title} is gone from the node: recreate the pod")
    tally, missed = watch([pod.host], options.watch)[pod.host]
    findings = list(watched.find_findings(tally, missed, pod.name))
    if options.output == "json":
        print_json(watched.as_json(pod.title, options.watch, tally, findings))
    else:
        print(watched.render(pod.title, options.watch, tally, findings))
    return FAILED if watched.is_lossy(tally.counts) else DONE


def _watch_all(options: argparse.Namespace) -> int:
    with Netlink() as nl:
        known = read_attachments(nl, files_of(options.config).data_dir).found
    pods = {pod.host: pod for pod in known if pod.end}
    found = watch(list(pods), options.watch)
    busiest = sorted(found, key=lambda link: -found[link].tally.peak)
    rows = [(pods[link].title, found[link].tally) for link in busiest]
    findings = [
        f"{pods[link].title}: {text}"
        for link in busiest
        for text in watched.find_findings(*found[link], pods[link].name)
    ]
    if options.output == "json":
        print_json(watched.all_as_json(options.watch, rows, findings))
    else:
        print(watched.render_all(options.watch, rows, findings))
    lossy = any(watched.is_lossy(tally.counts) for _pod, tally in rows)
    return FAILED if lossy else DONE


def _find_pod(nl: Netlink, options: argparse.Namespace) -> Attachment:
    known = read_attachments(nl, files_of(options.config).data_dir)
    return find_pod(nl, known, options.pod)[0]


def _settings(
    pod: Attachment, namespace: Namespace, options: argparse.Namespace
) -> tuple[ResolvConf, str]:
    """What the lookups are done with, and where that is from."""
    found = read_of(find_processes(namespace))
    text, origin = (
        (found[0], f"/proc/{found[1]}/root/etc/resolv.conf") if found else ("", "options")
    )
    conf = parse(text)
    given = {
        "servers": tuple(options.server or ()),
        "search": tuple(options.search or ()),
        "ndots": options.ndots,
        "timeout": options.timeout,
        "attempts": options.attempts,
    }
    conf = replace(conf, **{key: v for key, v in given.items() if v not in (None, ())})
    if not conf.servers:
        why = "names no server" if found else "cannot be read: no process of the pod is seen here"
        raise Unusable(f"/etc/resolv.conf of {pod.title} {why}: give --server and --search")
    return conf, origin


def _flood(
    namespace: Namespace, options: argparse.Namespace, conf: ResolvConf, lookup: Lookup
) -> Burst | None:
    if not options.burst:
        return None
    name = lookup.answered or options.name
    return burst(namespace, name, conf.servers[0], options.burst, min(conf.timeout, 2.0))


def _as_json(
    pod: Attachment,
    conf: ResolvConf,
    lookup: Lookup,
    flood: Burst | None,
    findings: Sequence[str],
    counters: Symptoms,
) -> dict[str, object]:
    waste = set(lookup.waste)
    return {
        "pod": pod.pod or None,
        "containerID": pod.owner.container_id,
        "name": lookup.name,
        "servers": list(map(str, conf.servers)),
        "search": list(conf.search),
        "ndots": conf.ndots,
        "answeredAs": lookup.answered or None,
        "addresses": list(map(str, lookup.addresses)),
        "queries": [
            {
                "name": sent.name,
                "type": sent.kind,
                "server": sent.server,
                "transport": sent.transport,
                "result": sent.result,
                "seconds": sent.seconds,
                "addresses": list(map(str, sent.addresses)),
                "inVain": sent in waste,
            }
            for sent in lookup.sent
        ],
        "inVain": len(lookup.waste),
        "lost": len(lookup.lost),
        "burst": {"sent": flood.sent, "answered": flood.answered} if flood else None,
        "nodeQueries": counters.dns[0] if counters.dns else None,
        "nodeAnswers": counters.dns[1] if counters.dns else None,
        "podUDP": counters.udp,
        "findings": list(findings),
    }


def _render(
    pod: Attachment,
    conf: ResolvConf,
    origin: str,
    lookup: Lookup,
    flood: Burst | None,
    findings: Sequence[str],
    counters: Symptoms,
) -> str:
    rows = [
        ("pod", pod.title),
        ("servers", ", ".join(map(str, conf.servers))),
        ("search", f"{' '.join(conf.search) or 'none'}, ndots {conf.ndots} ({origin})"),
        ("addresses", _addresses(lookup.addresses)),
        ("queries", f"{len(lookup.sent)}: {len(lookup.waste)} in vain, {len(lookup.lost)} lost"),
    ]
    if flood:
        times = f", median {_time(median(flood.seconds))}" if flood.seconds else ""
        rows.append(("burst", f"{flood.answered} of {flood.sent} had an answer{times}"))
    if counters.dns:
        queries, answers = counters.dns
        rows.append(("node", f"{queries} queries and {answers} answers of all pods so far"))
    rows += [("!", finding) for finding in findings]
    waste = set(lookup.waste)
    header = ("TRIED", "TYPE", "SERVER", "ANSWER", "TIME", "")
    return f"{fields(rows, 11)}\n\n{table(header, (_row(s, s in waste) for s in lookup.sent))}"


def _row(sent: Sent, in_vain: bool) -> tuple[str, ...]:
    answer = _addresses(sent.addresses) if sent.addresses else sent.result
    kind = sent.kind if sent.transport == "udp" else f"{sent.kind} (TCP)"
    time = "" if sent.seconds is None else _time(sent.seconds)
    return sent.name, kind, sent.server, answer, time, "in vain" if in_vain else ""


def _addresses(addresses: Sequence[IPAddress]) -> str:
    return ", ".join(map(str, addresses)) or "none"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f}ms"
