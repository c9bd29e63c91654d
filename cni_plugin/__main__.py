"""Entry points: the executables `podwire` and `podwire-ipam` without a daemon."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path

USAGE = """\
podwire - CNI plugin: wires pods of this node, on a bridge or as routed point-to-point links

A container runtime calls it with CNI_* in the environment and a network configuration on stdin
(CNI specification 0.1.0 to 1.1.0). To try it by hand:

  ip netns add pod
  echo '{"cniVersion": "1.0.0", "name": "net", "type": "podwire", "mode": "ptp",
         "ipam": {"subnet": "10.88.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}' |
  CNI_COMMAND=ADD CNI_CONTAINERID=try1 CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 /opt/cni/bin/podwire

Verbs (CNI_COMMAND): ADD DEL CHECK GC STATUS VERSION
Under the name of a reference plugin (bridge, ptp, host-local, portmap, bandwidth, firewall, tuning,
loopback) it is that plugin.
State: /var/lib/podwire/podwire.db (ipam.dataDir or PODWIRE_DATA_DIR name another folder)
See also: podwire-ipam --help
"""
_CALLER = "CALLER_"


def main() -> int:
    """`podwire`, and the reference plugins' names."""
    return _start(Path(sys.argv[0]), sys.argv[1:])


def ipam_main() -> int:
    """`podwire-ipam`: the IPAM plugin, and without CNI_COMMAND the operator's command."""
    return _start(Path(sys.argv[0]).with_name("podwire-ipam"), sys.argv[1:])


def module_main() -> int:
    """What the shim executes where no daemon runs.

    serve PROGRAM FILE: a CNI call under that name. explain PROGRAM ARGUMENTS: a person's command.
    """
    verb, program, *rest = [*sys.argv[1:], *[""] * max(0, 3 - len(sys.argv))]
    if verb == "serve" and rest:
        return _serve(program, Path(rest[0]), _caller_environment())
    return _start(Path(program or "podwire"), rest)


def _caller_environment() -> dict[str, str]:
    """The environment that the shim was called with, for the plugins that a call delegates to.

    The shim renames what the dynamic loader and Python would obey (PROTOCOL.md).
    """
    return {name.removeprefix(_CALLER): value for name, value in os.environ.items()}


def _start(executable: Path, arguments: list[str]) -> int:
    program = executable.name
    if os.environ.get("CNI_COMMAND"):
        return _serve(program, executable)
    if not arguments and _is_stand_in(program):
        return _introduce(program)
    if "CNI_COMMAND" in os.environ:
        return _serve(program, executable)
    if program == "podwire-ipam":
        from ipam.cli import main as cli

        return cli(arguments)
    if arguments or os.isatty(0):
        return _explain(arguments)
    return _serve(program, executable)


def _is_stand_in(program: str) -> bool:
    from cni_plugin.chained import STAND_INS

    return program in STAND_INS


def _introduce(program: str) -> int:
    """As the reference plugin, which is asked so for its version (cni, pkg/skel/skel.go)."""
    from cni_plugin.versions import REFERENCE, SUPPORTED

    print(f"CNI {program} plugin v{REFERENCE}", file=sys.stderr)
    print(f"CNI protocol versions supported: {', '.join(SUPPORTED)}", file=sys.stderr)
    return 0


def _explain(arguments: list[str]) -> int:
    from cni_plugin.versions import SUPPORTED

    if arguments in (["--version"], ["-V"]):
        from importlib.metadata import version

        print(f"podwire {version('podwire')}, CNI {', '.join(SUPPORTED)}")
        return 0
    if arguments in (["--help"], ["-h"], ["help"]):
        print(USAGE, end="")
        return 0
    print(USAGE, end="", file=sys.stderr)
    return 2


def _serve(program: str, executable: Path, env: Mapping[str, str] = os.environ) -> int:
    from cni_plugin.errors import INVALID_ENVIRONMENT, IO_FAILURE, CniError
    from cni_plugin.handle import handle, refuse
    from cni_plugin.host import DEFAULT_DATA_DIR, Host
    from cni_plugin.request import STDIN_MAX

    host = Host(
        program=program,
        executable=executable,
        data_dir=Path(os.environ.get("PODWIRE_DATA_DIR") or DEFAULT_DATA_DIR),
    )
    try:
        for key, path in (("PODWIRE_DATA_DIR", host.data_dir), ("PODWIRE_STORES", host.index)):
            if not path.is_absolute():
                msg = f"{key}={str(path)!r} must be an absolute path"
                raise CniError(INVALID_ENVIRONMENT, msg)
        reply = handle(env, _read_stdin(STDIN_MAX), host)
    except CniError as error:
        reply = refuse(error)
    except OSError as error:
        reply = refuse(CniError(IO_FAILURE, f"cannot read stdin: {error.strerror or error}"))
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sys.stdout.buffer.write(reply.stdout)
        sys.stdout.buffer.flush()
    except OSError as error:  # as the shim: an answer that is lost is no success
        print(f"podwire: cannot write to stdout: {error.strerror}", file=sys.stderr)
        sys.stdout = None
        return 1
    return reply.status


def _read_stdin(limit: int) -> bytes:
    if sys.stdin is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdin.buffer.read(limit + 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        # One call: its garbage goes with the process, and so does the interpreter, whose orderly
        # end would cost a tenth of the whole. All is closed and written by then.
        gc.disable()
        os._exit(module_main())
    sys.exit(module_main())
