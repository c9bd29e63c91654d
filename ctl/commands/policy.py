"""`podwirectl policy`: which policies limit a pod, what is wrong with them, who may connect."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ctl.output import DONE, FAILED, add_output, print_json, table, warn
from daemon.log import printable
from daemon.options import Unusable, add_config, settings_of

DESCRIPTION = "Explain network policies, by what this node's daemon knows; no API server is asked."
EPILOG = """\
examples:
  podwirectl policy show app/web                     the rules of a pod, and how often they applied
  podwirectl policy check app/client app/web:80      who lets it through, or not, by which rule
  podwirectl policy check app/web 192.0.2.7:53/udp
  podwirectl policy lint                             mistakes in the policies that this node knows
  podwirectl policy lint policy.yaml                 mistakes in a file, before it is applied
  kubectl get networkpolicies,namespaces,pods -A -o json > all.json
  podwirectl policy lint all.json                    the same with all pods of the cluster

`check` sends no packet. The policies of each pod are enforced on its own node, which alone knows
all of their peers: ask there about pods of other nodes. NAT is over by then: the target of a
Service is one of its pods.

exit codes:
  0  allowed (check); no mistake (lint); done
  1  dropped (check); a mistake (lint); nothing is known of policies
  2  wrong usage
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="show|check|lint")
    show = verbs.add_parser("show", help="the policies that select a pod, and their rules")
    show.add_argument("pod", metavar="POD")
    check = verbs.add_parser("check", help="whether a connection is allowed, and by which rule")
    check.add_argument("source", metavar="SRC", help="a pod or an address")
    check.add_argument("target", metavar="DEST[:PORT][/tcp|udp|sctp]", help="a pod or an address")
    lint = verbs.add_parser("lint", help="likely mistakes in policies")
    lint.add_argument("file", metavar="FILE", nargs="?", type=Path, help="YAML or JSON objects")
    for each in (show, check, lint):
        add_output(each)
        add_config(each)


def run(options: argparse.Namespace) -> int:
    """Run the action; the exit status."""
    actions = {"show": _show, "check": _check, "lint": _lint}
    return actions[options.action](options)


def _show(options: argparse.Namespace) -> int:
    from ctl.policy.ends import find_pod, read_known
    from ctl.policy.explain import describe_limits

    known = read_known(settings_of(options.config))
    pod = find_pod(known.facts, options.pod)
    local = next((each for each in known.local if each.key == pod.key), None)
    found = describe_limits(known, pod, local)
    if options.output == "json":
        head = {"pod": "/".join(pod.key), "addresses": [str(a) for a in pod.addresses]}
        print_json({**head, "local": local is not None, "directions": found})
    else:
        where = "" if local else ", which is on another node: its peers are known there"
        addresses = ", ".join(map(str, pod.addresses)) or "address unknown"
        print(printable(f"pod {'/'.join(pod.key)} ({addresses}){where}"))
        print("\n".join(map(printable, _show_lines(found))))
    return DONE


def _show_lines(found: list[dict[str, Any]]) -> Iterator[str]:
    for each in found:
        if not each["limited"]:
            yield f"{each['direction']}: everything, as no policy selects it"
            continue
        mode = " (monitor mode: nothing is dropped)" if each["monitors"] else ""
        yield f"{each['direction']}: limited by {', '.join(each['policies'])}{mode}"
        yield from (f"  {words}" for words in each["rules"])
        if not each["rules"]:
            yield "  no rule: nothing is let through"
        if each["allowed"] is not None:
            verb = "reported" if each["monitors"] else "dropped"
            yield f"  new connections: {each['allowed']} let through, {each['denied']} {verb}"


def _check(options: argparse.Namespace) -> int:
    from ctl.policy.ends import concerns_node, find_end, read_known
    from ctl.policy.explain import explain
    from ctl.target import parse_target
    from kernel.nftables.policy_rules import PROTOCOLS

    known = read_known(settings_of(options.config))
    numbers = {name: number for number, name in PROTOCOLS.items()}
    asked = parse_target(options.target, numbers)
    protocol = asked.protocol or "tcp"
    target = find_end(known.facts, asked.host)
    source = find_end(known.facts, options.source, target.address.version)
    if source.address.version != target.address.version:
        target = find_end(known.facts, asked.host, source.address.version)
    by_node = partial(concerns_node, known)
    verdicts = explain(known.facts, source, target, numbers[protocol], asked.port, by_node)
    allowed = all(verdict.allowed for verdict in verdicts)
    service = f"{protocol}/{asked.port or 'any port'}"
    if options.output == "json":
        sides = [
            {"direction": v.direction, "end": str(v.end), "allowed": v.allowed, "why": str(v)}
            for v in verdicts
        ]
        print_json({"allowed": allowed, "service": service, "verdicts": sides})
    else:
        word = "allowed" if allowed else "dropped"
        print(printable(f"{source} -> {target} {service}: {word}"))
        rows = [(v.direction, str(v.end), str(v)) for v in verdicts]
        print(table(("DIRECTION", "POD", "VERDICT"), rows))
    return DONE if allowed else FAILED


def _lint(options: argparse.Namespace) -> int:
    from ctl.policy.ends import read_known
    from ctl.policy.lint import OF_FILE, Scope, lint
    from daemon.policy.file_source import read_objects
    from daemon.policy.objects import facts_of

    if options.file:
        try:
            facts = facts_of(read_objects(options.file))
        except OSError as error:
            why = f"{error.filename or options.file} cannot be read: {error.strerror}"
            raise Unusable(why) from error
        except ValueError as error:
            raise Unusable(str(error)) from error
        scope = OF_FILE
    else:
        settings = settings_of(options.config)
        facts = read_known(settings).facts
        is_of_files = bool(settings and settings.policy and settings.policy.dir)
        scope = Scope(pods=False, namespaces=not is_of_files)
    found = lint(facts, scope)
    if options.output == "json":
        print_json(list(map(asdict, found)))
        return FAILED if found else DONE
    for mistake in found:
        print(f"{printable(mistake.policy)}: {printable(mistake.what)}\n  {mistake.do}")
    if not found:
        count = len(facts.policies)
        warn(f"no mistake in {count} {'policy' if count == 1 else 'policies'}")
    return FAILED if found else DONE
