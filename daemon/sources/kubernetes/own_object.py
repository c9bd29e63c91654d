"""This node in the cluster: its Node, and the object by which the other daemons learn of it."""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable, Mapping
from typing import Any

from daemon.log import Log
from daemon.model import Node
from daemon.sources.kubernetes.api import Api, ApiError, BadAnswer, node_path
from daemon.sources.kubernetes.cluster_view import Own, Picture
from daemon.sources.kubernetes.objects import (
    API_VERSION,
    PLURAL,
    Authority,
    Unusable,
    is_rendered,
    parse_authority,
    read_succession,
    render,
    version_of,
)
from daemon.sources.kubernetes.succession import Succession, content_of
from daemon.sources.remote import SourceError
from kernel.model import IPNetwork

MANAGER = "podwired"
"""The field manager of server-side apply."""
_NOT_FOUND = 404

Trouble = Callable[[str, str], None]


class Presence:
    """Reads the Node, writes the object; for one thread.

    trouble: takes what is wrong with the one ("node") and the other ("object"), or "" for nothing.
    """

    def __init__(
        self,
        me: str,
        namespace: str,
        ranges: tuple[IPNetwork, ...],
        picture: Picture,
        succession: Succession,
        log: Log,
        trouble: Trouble,
    ) -> None:
        self._me, self._namespace, self._ranges = me, namespace, ranges
        self._picture, self._log, self._trouble = picture, log, trouble
        self._succession = succession
        self._is_plain = self._was_plain = False
        self.authority: Authority | None = None
        self._wanted: dict[str, Any] | None = None
        self._seen: Own | None = None
        self._version = "", 0

    @property
    def is_complete(self) -> bool:
        """Whether the Node has all that podwire needs of it."""
        return self._wanted is not None

    @property
    def must_publish(self) -> bool:
        """Whether the object is known to be another than it should be."""
        return self._wanted is not None and self._seen is not None and not self.is_published

    @property
    def is_published(self) -> bool:
        """Whether the object is known to be what it should be."""
        if self._wanted is None or self._seen is None:
            return False
        return is_rendered(self._seen.thing, self._wanted)

    # -- the Node

    def read(self, api: Api) -> bool:
        """Read the Node; whether it can be used. Raises SourceError where nobody answers."""
        try:
            thing = api.get(node_path(self._me))
            authority = parse_authority(thing, self._ranges)
            if authority.name != self._me:
                raise Unusable(f"the API answers with {authority.name}")
        except ApiError as error:
            hint = "`node` in podwired.yaml must be the Node's name"
            why = str(error)
            if error.status == _NOT_FOUND:
                why, self._wanted = f"the cluster has no Node {self._me}: {hint}", None
            self._trouble("node", why)
            return False
        except Unusable as error:
            self._trouble("node", f"Node {self._me}: {error}")
            return False
        self._take(authority)
        return True

    def _take(self, authority: Authority) -> None:
        why = ": " + "; ".join(authority.left_out) if authority.left_out else ""
        if not authority.addresses:
            why = "has no InternalIP address"
        elif not authority.pod_cidrs:
            hint = "does kube-controller-manager run with --allocate-node-cidrs?"
            why = why or f"has no podCIDRs yet: {hint}"
        self._trouble("node", f"Node {self._me} {why}" if why else "")
        self.authority = authority
        self._wanted = None
        # The definition may be another one by now; a watch from before that shows no token.
        self._is_plain = False
        if authority.addresses:
            self._picture.put_own(authority)
            if authority.pod_cidrs:
                self._wanted = self._render(authority)
        self._picture.set_published(self.is_published)

    def _render(self, authority: Authority, *, again: bool = False) -> dict[str, Any]:
        """What to publish. again: though the same was published before, and did not stay."""
        node, uid, token = authority.node, authority.uid, ""
        if not self._is_plain:
            give = self._succession.renew if again else self._succession.token
            token = give(content_of(node, uid))
        return render(node, uid, self._namespace, token)

    def age(self) -> float | None:
        """Seconds since the Node was made, by this node's clock; None where it is not known."""
        try:
            made = time.strptime(self.authority.created if self.authority else "", _FORM)
        except ValueError:
            return None
        return time.time() - calendar.timegm(made)

    # -- the object

    def path(self) -> str:
        """Where the object is."""
        return f"{objects_path(self._namespace)}/{self._me}"

    def assume(self, node: Node | None) -> bool:
        """An earlier daemon published that; whether it is what is published now."""
        is_same = self.authority is not None and node == self.authority.node
        is_same = is_same and self._succession.is_as_left
        if is_same:
            self._seen = Own(self._wanted)
        self._picture.set_published(self.is_published)
        return is_same

    def hear(self, own: Own) -> None:
        """What the API says of the object."""
        if self._is_plain and (own.is_listed or read_succession(own.thing) is not None):
            self._is_plain = False
            self._renew()
        is_older = self._is_older(own.thing)
        was_right = self.is_published and own.is_readable
        why = self._why_anew(own, is_older)
        if why:
            self._begin_anew(why)
        if own.is_listed or not is_older:
            self._seen, self._version = own, version_of(own.thing)
            self._put_right(own.thing, was_right and not why)
        if self.is_published:  # also where the answer to the writing did not come
            self._trouble("object", "")
        self._picture.set_published(self.is_published)

    def _is_older(self, thing: object) -> bool:
        """Whether it is of before the last change of the same object."""
        (life, generation), (known, last) = version_of(thing), self._version
        return life == known and 0 < generation < last

    def _why_anew(self, own: Own, is_older: bool) -> str:
        """Why others may know tokens that were not given out yet; empty = they do not."""
        if own.is_restored or (own.is_listed and is_older):
            return "the API was restored from a backup"
        if self._succession.is_behind(read_succession(own.thing)):
            return f"{self.path()} is ahead of it, which is of a backup"
        return ""

    def _begin_anew(self, why: str) -> None:
        self._log.warning(f"this node begins another succession: {why}")
        self._succession.abandon()
        if self._wanted is not None and self.authority is not None:
            self._wanted = self._render(self.authority)

    def _put_right(self, thing: object, was_right: bool) -> None:
        if was_right and not self.is_published:
            what = "changed" if thing else "deleted"
            why = f"somebody else {what} the NodeNetwork of this node; it is put right"
            self._log.warning(why, object=self.path())
        if not self.is_published and (was_right or self._is_overwritten(thing)):
            # The token has been seen by now: whoever has it may have written this.
            self._renew()

    def publish(self, api: Api) -> None:
        """Write the object. Raises SourceError."""
        wanted = self._wanted
        if wanted is None:
            return
        try:
            thing = self._apply(api, wanted)
        except SourceError as error:
            self._trouble("object", f"this node is not published: {error}")
            raise
        self._trouble("object", "")
        self._seen, self._version = Own(thing), version_of(thing)
        self._picture.set_published(True)
        self._log.info("this node is published", object=self.path())

    def _apply(self, api: Api, wanted: dict[str, Any]) -> Any:
        """What the API stores. Raises SourceError."""
        try:
            return self._write(api, wanted)
        except ApiError as error:
            # The schema of a definition from before there were tokens has no such field.
            if self._is_plain or "succession" not in str(error):
                raise
        if not self._was_plain:
            how = "apply that of packaging/kubernetes/crd.yaml, then start podwired again"
            self._log.warning(f"the definition of NodeNetworks is an older one: {how}")
        self._was_plain = True
        spec = {key: value for key, value in wanted["spec"].items() if key != "succession"}
        self._is_plain, self._wanted = True, {**wanted, "spec": spec}
        self._succession.abandon()  # else the next daemon takes it for published
        return self._write(api, self._wanted)

    def _write(self, api: Api, wanted: Mapping[str, Any]) -> Any:
        """The object as it stands then. Raises SourceError."""
        why = "the API stores another object than was written"
        why = f"{why}: is the CRD that of packaging/kubernetes/crd.yaml?"
        try:
            thing = api.apply(self.path(), wanted, MANAGER)
        except BadAnswer as error:
            why = str(error)
        else:
            if is_rendered(thing, wanted):
                return thing
        # Applying leaves in place what is somebody else's: without that it is made anew.
        api.delete(self.path())
        self._seen = Own(None)
        again = f"{why}; it is deleted and written again"
        self._log.warning(again, object=self.path())
        raise SourceError(again)

    def _is_overwritten(self, thing: object) -> bool:
        """Whether an object has this node's newest token, and not what it was published with."""
        mine = self._wanted["spec"].get("succession") if self._wanted else None
        return mine is not None and read_succession(thing) == mine

    def _renew(self) -> None:
        if self._wanted is not None and self.authority is not None:
            self._wanted = self._render(self.authority, again=True)


_FORM = "%Y-%m-%dT%H:%M:%SZ"


def objects_path(namespace: str) -> str:
    """Where all objects are."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"
