"""Changes of objects: create, update, patches, server-side apply, delete."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.cluster.standin import fields
from tests.cluster.standin.access import Access, User
from tests.cluster.standin.resources import Place
from tests.cluster.standin.schema import faults, prune, undeclared
from tests.cluster.standin.store import Key, Object, Store
from tests.cluster.standin.watching import status

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")
_POLICIES = "validatingadmissionpolicies.admissionregistration.k8s.io"
_MERGES = {"application/merge-patch+json", "application/strategic-merge-patch+json"}
_APPLIES = {"application/apply-patch+yaml"}


class Failure(Exception):
    """An answer that is no success. body: its Status."""

    def __init__(self, code: int, reason: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.code, self.body = code, status(code, reason, message, **details)


class Writer:
    """Changes, each by somebody who is allowed to. Its methods raise Failure."""

    def __init__(self, store: Store, access: Access) -> None:
        self._store, self._access = store, access

    def create(self, user: User, place: Place, body: bytes, query: Mapping[str, str]) -> Object:
        """A new object, or what a subresource makes."""
        made = _load(body)
        if place.part == "token":
            return self._issue(place, made)
        name = made.get("metadata", {}).get("name", "")
        if self._store.get(place.resource.key, self._key(place, name)):
            raise Failure(409, "AlreadyExists", f'{place.resource.key} "{name}" already exists')
        return self._keep(user, place, name, None, fields.update(None, made, _manager(query)))

    def update(self, user: User, place: Place, body: bytes, query: Mapping[str, str]) -> Object:
        """An object in the place of the old one."""
        old, made = self.find(place), _load(body)
        self._check_version(place, old, made)
        made["metadata"].setdefault("managedFields", old["metadata"]["managedFields"])
        made = {**made, "metadata": {**old["metadata"], **made["metadata"]}}
        return self._keep(user, place, place.name, old, _updated(old, made, query))

    def patch(
        self, user: User, place: Place, body: bytes, query: Mapping[str, str], kind: str
    ) -> Object:
        """A merge patch, or a server-side apply."""
        if kind in _APPLIES:
            return self._apply(user, place, _load(body), query)
        if kind not in _MERGES:
            raise Failure(415, "UnsupportedMediaType", f"{kind} is not supported here")
        old, patch = self.find(place), _load(body)
        self._check_version(place, old, patch)
        made = _updated(old, _merge(old, patch), query)
        return self._keep(user, place, place.name, old, made)

    def _apply(self, user: User, place: Place, config: Object, query: Mapping[str, str]) -> Object:
        manager = query.get("fieldManager", "")
        if not manager:
            raise Failure(
                422, "Invalid", "fieldManager: Required value: is required for apply patch"
            )
        name = config.get("metadata", {}).get("name", place.name)
        if name != place.name:
            raise Failure(400, "BadRequest", f"the name {name} is not the one of the URL")
        old = self._store.get(place.resource.key, self._key(place, place.name))
        for path in undeclared(config, self._prune(place, config)):
            what = f"failed to create typed patch object ({place.space}/{place.name})"
            message = f"{what}: {path}: field not declared in schema"
            raise Failure(500, "", message)
        force = query.get("force") == "true"
        try:
            made = fields.apply(old, self._prune(place, config), manager, force=force)
        except fields.Conflicts as error:
            raise _conflict(place, error) from error
        return self._keep(user, place, place.name, old, made)

    def delete(self, user: User, place: Place, body: bytes) -> Object:
        """Remove an object; its last state."""
        old = self.find(place)
        self._admit(user, place, place.name)
        wanted = (_load(body) if body else {}).get("preconditions", {})
        for field, value in wanted.items():
            if old["metadata"][field] != value:
                raise Failure(409, "Conflict", f"the {field} is {old['metadata'][field]}")
        return self._store.remove(place.resource.key, self._key(place, place.name))

    def delete_all(self, place: Place) -> Object:
        """Remove all objects of a collection."""
        for key, _ in [*self._store.select(place.resource.key, place.space, "")]:
            self._store.remove(place.resource.key, key)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def find(self, place: Place) -> Object:
        """The object of a place."""
        found = self._store.get(place.resource.key, self._key(place, place.name))
        if found is None:
            details = {"name": place.name, "kind": place.resource.plural}
            message = f'{place.resource.key} "{place.name}" not found'
            raise Failure(404, "NotFound", message, **details)
        return found

    def _key(self, place: Place, name: str) -> Key:
        return place.space, name

    def _prune(self, place: Place, made: Object) -> Object:
        if place.resource.schema is None:
            return made
        kept = {key: made[key] for key in ("apiVersion", "kind", "metadata") if key in made}
        return {**prune(place.resource.schema, made), **kept}

    def _keep(
        self, user: User, place: Place, name: str, old: Object | None, made: Object
    ) -> Object:
        made = self._prune(place, made)
        if not _NAME.match(name):
            raise Failure(422, "Invalid", f"metadata.name: Invalid value: {name!r}")
        self._admit(user, place, name)
        wrong = [*faults(place.resource.schema or {}, made)]
        if wrong:
            raise Failure(422, "Invalid", f'{place.resource.kind} "{name}" is invalid: {wrong}')
        _check_node(place, old, made)
        return self._store.put(place.resource.key, self._key(place, name), made)

    def _admit(self, user: User, place: Place, name: str) -> None:
        """What the policy of packaging/kubernetes says, where it is installed: CEL is not read."""
        for policy in self._store.of(_POLICIES).objects.values():
            [rule] = policy["spec"]["matchConstraints"]["resourceRules"]
            [condition] = policy["spec"]["matchConditions"]
            concerns = place.resource.plural in rule["resources"]
            if concerns and f'"{user.name}"' in condition["expression"] and name != user.node:
                called = policy["metadata"]["name"]
                denied = f"ValidatingAdmissionPolicy '{called}' with binding '{called}' denied"
                message = f'{place.resource.key} "{name}" is forbidden: {denied} request'
                raise Failure(403, "Forbidden", message)

    def _check_version(self, place: Place, old: Object, made: Object) -> None:
        wanted = made.get("metadata", {}).get("resourceVersion")
        if wanted and wanted != old["metadata"]["resourceVersion"]:
            message = (
                f'Operation cannot be fulfilled on {place.resource.key} "{place.name}": the object '
                "has been modified; please apply your changes to the latest version and try again"
            )
            raise Failure(409, "Conflict", message)

    def _issue(self, place: Place, request: Object) -> Object:
        self.find(place)
        bound = request.get("spec", {}).get("boundObjectRef") or {}
        token = self._access.issue(place.space, place.name, bound)
        return {**request, "status": {"token": token, "expirationTimestamp": None}}


def _conflict(place: Place, error: fields.Conflicts) -> Failure:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager}"',
            "field": "".join(f".{key}" for key in path),
        }
        for path, manager in error.causes
    ]
    what = "1 conflict" if len(causes) == 1 else f"{len(causes)} conflicts"
    first = f"{causes[0]['message']}: {causes[0]['field']}"
    return Failure(409, "Conflict", f"Apply failed with {what}: {first}", causes=causes)


def _check_node(place: Place, old: Object | None, made: Object) -> None:
    """A node's pod CIDRs are set once (apiserver, validation.go, ValidateNodeUpdate)."""
    if place.resource.kind != "Node" or old is None:
        return
    before = old.get("spec", {}).get("podCIDRs")
    if before and made.get("spec", {}).get("podCIDRs") != before:
        message = "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from empty"
        raise Failure(422, "Invalid", message)


def _updated(old: Object, made: Object, query: Mapping[str, str]) -> Object:
    return fields.update(old, made, _manager(query))


def _manager(query: Mapping[str, str]) -> str:
    return query.get("fieldManager", "podwire-tests")


def _merge(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    made = copy.deepcopy(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merge(made.get(key), value)
    return made


def _load(body: bytes) -> Object:
    try:
        made = json.loads(body)
    except ValueError:
        try:
            made = yaml.safe_load(body)
        except yaml.YAMLError as error:
            raise Failure(400, "BadRequest", f"cannot be read: {error}") from error
    if not isinstance(made, dict):
        raise Failure(400, "BadRequest", "the body is no object")
    return made
