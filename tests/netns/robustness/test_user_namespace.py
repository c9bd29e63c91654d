"""Rootless runtimes call plugins as root of a user namespace, with a private /var/lib/cni."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.pytest_netns import Node

USER = 100_000
VENV = Path(sys.executable).parent.parent
CONF = {
    "cniVersion": "1.0.0",
    "name": "net",
    "type": "bridge",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]},
}
CALLS = """\
set -e
mount -t tmpfs cni /var/lib/cni
mount -t tmpfs plugins /srv
[ -z "$PRIVATE_RUN" ] || mount -t tmpfs run /run
cd /srv
ln -s /mnt/bin/podwire bridge
ln -s /mnt/bin/podwire host-local
touch pod
unshare --net=/srv/pod true
export CNI_CONTAINERID=c1 CNI_IFNAME=eth0 CNI_NETNS=/srv/pod CNI_PATH=/srv
printf %s "$CONF" | CNI_COMMAND=ADD ./bridge
/mnt/bin/podwire-ipam -o json list | tr -d "\\n" >&2; echo >&2
printf %s "$CONF" | CNI_COMMAND=DEL ./bridge
ls /var/lib/cni/podwire/podwire.db >&2
/mnt/bin/podwire-ipam -o json list | tr -d "\\n" >&2; echo >&2
"""


def call_as_user(node: Node, **env: str) -> tuple[str, list[str]]:
    """The answer of ADD, and the lines of stderr."""
    unprivileged = f"setpriv --reuid={USER} --regid={USER} --clear-groups"
    namespaces = "unshare --user --map-root-user --mount --net"
    inner = f"{unprivileged} {namespaces} sh -c {shlex.quote(CALLS)}"
    folders = "mkdir -p /var/lib/cni && chmod 755 /var/lib /run"
    whole = f"mount --bind {VENV} /mnt && {folders} && exec {inner}"
    given = {"CONF": json.dumps(CONF), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **env}
    done = node.run(["unshare", "--mount", "sh", "-c", whole], env=given, check=False)
    assert done.returncode == 0, done
    return done.stdout, done.stderr.splitlines()


@pytest.mark.parametrize("run", ["1", ""], ids=["private /run", "the host's /run"])
@pytest.mark.parametrize("there", [False, True], ids=["alone", "podwire on the host"])
def test_a_rootless_runtime(node: Node, run: str, there: bool) -> None:
    """What root's podwire has on the machine can be seen, and not be used."""
    if there:
        node.run(["mkdir", "-m", "700", "/var/lib/podwire", "/run/podwire"])
    answer, lines = call_as_user(node, PRIVATE_RUN=run)
    assert json.loads(answer)["ips"][0]["address"] == "10.77.0.2/24"
    assert [line.count('"10.77.0.2"') for line in lines if line.startswith("[")] == [1, 0]
    assert "/var/lib/cni/podwire/podwire.db" in lines
