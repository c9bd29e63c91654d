"""`podwirectl completion`: completion of podwire's commands in a shell."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping

from ctl.completion import Verb, describe_verb, render_bash, render_fish, render_zsh, verbs_of
from ctl.output import DONE
from daemon.options import add_config, files_of

DESCRIPTION = """\
Print a script that lets bash, zsh or fish complete podwire's commands, options, pods and peers."""
EPILOG = """\
examples:
  source <(podwirectl completion bash)                in this shell
  podwirectl completion bash >/usr/share/bash-completion/completions/podwirectl
  source <(podwirectl completion zsh)                 in this zsh, after compinit
  podwirectl completion zsh >/usr/share/zsh/site-functions/_podwirectl
  podwirectl completion fish | source                 in this fish
  podwirectl completion --words pods                  what is completed for POD

packaging/install and the Debian package put the scripts where these shells find them.

exit codes: 0 done; 1 the names cannot be read; 2 wrong usage
"""
_SHELLS = {"bash": render_bash, "zsh": render_zsh, "fish": render_fish}
_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("shell", metavar="SHELL", nargs="?", choices=tuple(_SHELLS), default="bash",
                        help="bash (default), zsh or fish")  # fmt: skip
    words = "print names in place of the script: pods, or peers"
    parser.add_argument("--words", choices=("pods", "peers"), help=words)
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Print the script, or names; the exit status."""
    if options.words:
        names = {"pods": _pods, "peers": _peers}[options.words](options)
        # A shell expands the words that it completes: a name must not have it execute anything.
        print("\n".join(sorted({name for name in names if _PLAIN.fullmatch(name)})))
    else:
        print(_SHELLS[options.shell](_programs()), end="")
    return DONE


def _programs() -> dict[str, Mapping[str, Verb]]:
    from ctl.__main__ import build_parser as build_podwirectl
    from ctl.commands import COMMANDS
    from daemon.__main__ import COMMANDS as DAEMON_COMMANDS
    from daemon.__main__ import build_parser as build_podwired
    from ipam.cli import build_parser as build_podwire_ipam

    return {
        "podwirectl": _verbs(build_podwirectl, COMMANDS),
        "podwired": _verbs(build_podwired, DAEMON_COMMANDS),
        "podwire-ipam": _verbs(lambda _verb: build_podwire_ipam(), [""]),
    }


def _verbs(
    build: Callable[[str], argparse.ArgumentParser],
    names: Iterator[str] | list[str] | dict[str, str],
) -> dict[str, Verb]:
    """build: makes a parser that is complete for one command."""
    found = {"": describe_verb(build(""))}
    for name in names:
        verbs = dict(verbs_of(build(name)))
        chosen = verbs if not name else {name: verbs[name]}
        found |= {each: describe_verb(parser) for each, parser in chosen.items()}
    return found


def _pods(options: argparse.Namespace) -> Iterator[str]:
    from ctl.attachments import read_attachments
    from kernel.netlink.socket import Netlink

    with Netlink() as nl:
        known = read_attachments(nl, files_of(options.config).data_dir)
    return (each.pod or each.owner.container_id for each in known.found)


def _peers(options: argparse.Namespace) -> Iterator[str]:
    from ctl.planning import read_snapshot, require_settings

    settings = require_settings(options.config)
    snapshot, _fault = read_snapshot(settings)
    nodes = snapshot.nodes if snapshot else ()
    return (node.name for node in nodes if node.name != settings.node)
