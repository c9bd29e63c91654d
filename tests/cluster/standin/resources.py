"""Which resources there are: the built-in ones, and those of custom resource definitions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.cluster.rest import PLACES
from tests.cluster.standin.schema import Schema
from tests.cluster.standin.store import Store

CRDS = "customresourcedefinitions.apiextensions.k8s.io"
_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)"
    r"(?:/namespaces/(?P<space>[^/]+)(?=/[^/]))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?\Z"
)
_PARTS = {"token", "status"}


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of objects. key: how the store calls it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    schema: Schema | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, slots=True)
class Place:
    """What a path means; name and part are empty where it names a collection, or a whole object."""

    resource: Resource
    space: str
    name: str
    part: str


def _built_in() -> dict[tuple[str, str], Resource]:
    made = {}
    for kind, (path, plural, namespaced) in PLACES.items():
        group, _, version = path.removeprefix("/apis/").removeprefix("/api/").rpartition("/")
        if group != "podwire.dev":
            made[group, plural] = Resource(group, version, plural, kind, namespaced)
    return made


BUILT_IN = _built_in()


def find_place(store: Store, path: str) -> Place | None:
    """What a path means; None where there is nothing."""
    match = _PATH.match(path)
    if match is None:
        return None
    group, name, part = match["group"] or "", match["name"] or "", match["sub"] or ""
    resource = BUILT_IN.get((group, match["resource"])) or _custom(store, group, match["resource"])
    if resource is None or resource.version != match["version"] or (part and part not in _PARTS):
        return None
    return Place(resource, match["space"] or "", name, part)


def _custom(store: Store, group: str, plural: str) -> Resource | None:
    found = store.get(CRDS, ("", f"{plural}.{group}"))
    if found is None:
        return None
    spec = found["spec"]
    [version] = [v for v in spec["versions"] if v["storage"]]
    schema = version["schema"]["openAPIV3Schema"]
    kind, namespaced = spec["names"]["kind"], spec["scope"] == "Namespaced"
    return Resource(group, version["name"], plural, kind, namespaced, schema)
