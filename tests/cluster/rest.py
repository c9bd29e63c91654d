"""A small client of the Kubernetes API for the tests themselves: one request, one answer."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

Object = dict[str, Any]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
TIMEOUT = 30.0

PLACES = {
    "ClusterRole": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles", False),
    "ClusterRoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", False),
    "ConfigMap": ("/api/v1", "configmaps", True),
    "CustomResourceDefinition": (
        *("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", False),
    ),
    "DaemonSet": ("/apis/apps/v1", "daemonsets", True),
    "Namespace": ("/api/v1", "namespaces", False),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies", True),
    "Node": ("/api/v1", "nodes", False),
    "NodeNetwork": ("/apis/podwire.dev/v1", "nodenetworks", True),
    "Pod": ("/api/v1", "pods", True),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles", True),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings", True),
    "ServiceAccount": ("/api/v1", "serviceaccounts", True),
    "ValidatingAdmissionPolicy": (
        *("/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicies", False),
    ),
    "ValidatingAdmissionPolicyBinding": (
        *("/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", False),
    ),
}
"""Where objects of a kind are: the group's path, the resource, whether it is namespaced."""

_Request = tuple[
    str, str, Object | bytes | None, str, Mapping[str, str] | None, Mapping[str, object]
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request got; body: the object, or text that is none."""

    code: int
    body: Any
    headers: Mapping[str, str]
    size: int

    def expect(self, *codes: int) -> Object:
        """The object; AssertionError where the code is another one."""
        assert self.code in codes, f"{self.code}: {self.body}"
        return dict(self.body)


class Refused(Exception):
    """The API is not there."""


class Rest:
    """Requests with one token to one address."""

    def __init__(self, address: tuple[str, int], ca: Path, token: str) -> None:
        self._address, self._token = address, token
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._kept: http.client.HTTPSConnection | None = None

    def close(self) -> None:
        """Let go of the connection that is kept for the next request. Repeatable."""
        if self._kept:
            self._kept.close()
        self._kept = None

    def __del__(self) -> None:
        self.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Object | bytes | None = None,
        *,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
        **query: object,
    ) -> Answer:
        """One request. Raises Refused where nobody answers. Not for two threads at once."""
        request = method, path, body, kind, headers, query
        if self._kept:
            try:
                return self._ask(self._kept, request)
            except (OSError, http.client.HTTPException):
                self.close()  # the server may have closed what was idle
        self._kept = self._connection(TIMEOUT)
        try:
            return self._ask(self._kept, request)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Refused(repr(error)) from error

    def _ask(self, connection: http.client.HTTPSConnection, request: _Request) -> Answer:
        self._send(connection, *request)
        response = connection.getresponse()
        data = response.read()
        return Answer(response.status, _parse(data), dict(response.headers), len(data))

    def watch(self, path: str, *, timeout: float = TIMEOUT, **query: object) -> Iterator[Object]:
        """Events until the server ends the stream; TimeoutError where it says nothing for long."""
        with closing(self._connection(timeout)) as connection:
            self._send(connection, "GET", path, None, "", None, {"watch": 1, **query})
            response = connection.getresponse()
            if response.status != 200:
                yield {"type": "HTTP", "object": _parse(response.read())}
                return
            while line := response.readline():
                yield json.loads(line)

    def _connection(self, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(*self._address, timeout=timeout, context=self._tls)

    def _send(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        body: Object | bytes | None,
        kind: str,
        headers: Mapping[str, str] | None,
        query: Mapping[str, object],
    ) -> None:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        words = {name: value for name, value in query.items() if value is not None}
        url = f"{path}?{urlencode(words)}" if words else path
        said = {"Authorization": f"Bearer {self._token}", "User-Agent": "podwire-tests"}
        if data is not None:
            said["Content-Type"] = kind
        connection.request(method, url, data, {**said, **(headers or {})})

    def apply(self, made: Object, manager: str = "tests", *, force: bool = True) -> Answer:
        """Server-side apply of an object, by its kind and name."""
        how = "true" if force else None
        path = path_of(made)
        return self.ask("PATCH", path, made, kind=APPLY, fieldManager=manager, force=how)


def path_of(made: Object) -> str:
    """Where an object is."""
    meta = made["metadata"]
    return place_of(made["kind"], meta.get("namespace", ""), meta["name"])


def place_of(kind: str, namespace: str = "", name: str = "") -> str:
    """The path of a kind's objects, or of one of them."""
    group, resource, namespaced = PLACES[kind]
    space = f"/namespaces/{namespace}" if namespaced and namespace else ""
    return f"{group}{space}/{resource}" + (f"/{name}" if name else "")


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")
