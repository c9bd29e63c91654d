"""The node's CNI configuration, kept in its place as the plan wants it."""

from __future__ import annotations

from daemon.config.schema import Settings
from daemon.filefaults import explain
from daemon.journal import Action
from daemon.model import Desired
from daemon.routing.conflist import ForeignConflist, keep_conflist, render_conflist
from daemon.routing.reporter import Teller


class ConflistKeeper:
    """fault: why the file is not as it should be, empty where it is."""

    def __init__(self, settings: Settings, teller: Teller) -> None:
        self.fault = ""
        self._settings, self._teller = settings, teller
        self._kept = b""

    def keep(self, desired: Desired) -> str:
        """Write the file where it differs; a fault that was not there before."""
        wanted, before = self._settings.conflist, self.fault
        if wanted is None:
            return ""
        prefixes, mtu = desired.pod_cidrs, desired.pod_mtu
        content = render_conflist(wanted, prefixes, mtu, self._settings.data_dir)
        try:
            kept = keep_conflist(wanted.path, content)
        except ForeignConflist as error:
            self.fault = str(error)
        except OSError as error:
            what = "the CNI configuration"
            self.fault = explain(what, wanted.path, error, "conflist.path")
        else:
            self.fault = ""
            if kept != "same":
                self._tell("added" if kept == "new" else "changed", desired)
                if content == self._kept:  # so others had changed it
                    self._teller.counts.heal(("file", wanted.path), f"file {wanted.path}")
            self._kept = content
        return self.fault if self.fault != before else ""

    def _tell(self, action: Action, desired: Desired) -> None:
        assert self._settings.conflist is not None  # noqa: S101
        after = f"{' '.join(map(str, desired.pod_cidrs))} mtu {desired.pod_mtu}"
        name = f"file {self._settings.conflist.path}"
        self._teller.write(action, name, "this node is ready", after=after)
