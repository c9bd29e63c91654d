"""Network policy: who may connect to this node's pods, and where these may connect to.

`controller` keeps the kernel's rules as the source's objects and the node's pods ask for; `objects`
reads the objects (networking.k8s.io/v1 NetworkPolicy), `compile` makes rules of them. The daemon
enters by this module, which imports the rest only where policies are enforced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from daemon.liveness.watchdog import Watch, unwatched
from kernel.errors import KernelError

if TYPE_CHECKING:
    from daemon.config.schema import Settings
    from daemon.journal import Journal
    from daemon.log import Log
    from daemon.policy.controller import PolicyController
    from daemon.policy.model import PolicySource


def make_controller(
    settings: Settings, journal: Journal, log: Log, watch: Watch = unwatched
) -> PolicyController | None:
    """What keeps the rules; None where policies are not enforced."""
    source = _open_source(settings, log, watch)
    if source is None or settings.policy is None:
        return None
    from daemon.policy.controller import PolicyController
    from daemon.policy.local_pods import bridge_to_come
    from daemon.policy.saved_facts import saved_path

    saved = saved_path(settings.data_dir)
    is_open = settings.policy.unknown_pods == "open"
    bridge = bridge_to_come(settings)
    return PolicyController(source, saved, journal, log, watch, unknown=is_open, bridge=bridge)


def _open_source(settings: Settings, log: Log, watch: Watch) -> PolicySource | None:
    if settings.policy is None:
        return None
    if settings.policy.dir:
        from daemon.policy.file_source import FileSource

        return FileSource(settings.policy.dir)
    if settings.source.kubernetes:
        from daemon.policy.kubernetes_source import KubernetesSource

        return KubernetesSource(settings.source.kubernetes, settings.node, log, watch)
    return None


@contextmanager
def policies_enforced(
    controller: PolicyController | None, log: Log, notify: Callable[[], None]
) -> Iterator[None]:
    """Enforce policies for the duration; rules stay afterwards. None: rules left over are removed.

    notify: called when the controller is not unready any more. It starts threads: no process may
    be forked afterwards.
    """
    if controller is not None:
        with controller.running(notify):
            yield
        return
    from kernel.nftables.policy import remove_policy

    with suppress(KernelError):  # a kernel without nftables has no rules
        if remove_policy():
            log.info("policies are not enforced any more: their rules are removed")
    yield
