"""Who asks, and what they may: bearer tokens, roles and their bindings."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from tests.cluster.standin.store import Object, Store

TOKENS = "tokens.stand-in"
NODE_NAME = "authentication.kubernetes.io/node-name"
_ADMIN = "admin"
_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class User:
    """node: the node that its token is bound to, by itself or by way of a pod; else empty."""

    name: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to do. resource: with the subresource, if one is meant."""

    verb: str
    group: str
    resource: str
    space: str = ""
    name: str = ""

    def denial(self, user: User) -> str:
        """What the API says where it is forbidden."""
        plural, _, _ = self.resource.partition("/")
        dotted = f"{plural}.{self.group}" if self.group else plural
        named = f' "{self.name}"' if self.name else ""
        where = f' in the namespace "{self.space}"' if self.space else " at the cluster scope"
        return (
            f'{dotted}{named} is forbidden: User "{user.name}" cannot {self.verb} resource '
            f'"{self.resource}" in API group "{self.group}"{where}'
        )


class Access:
    """Tokens and roles, as they are in the store."""

    def __init__(self, store: Store, admin_token: str) -> None:
        self._store, self._admin_token = store, admin_token

    def issue(self, space: str, account: str, bound: Object) -> str:
        """A token of a service account, bound to a pod or Node if one is named."""
        token = secrets.token_urlsafe(32)
        user = f"system:serviceaccount:{space}:{account}"
        name, uid = bound.get("name", ""), bound.get("uid", "")
        key = "node" if bound.get("kind") == "Node" else "pod"
        spec = {"user": user, "space": space, "pod": "", "node": "", key: name, "uid": uid}
        made = {"apiVersion": "v1", "kind": "Token", "metadata": {}, "spec": spec}
        self._store.put(TOKENS, ("", token), made)
        return token

    def identify(self, token: str) -> User | None:
        """Whose token it is; None where it is nobody's, or its pod is gone."""
        if token == self._admin_token:
            return User(_ADMIN)
        found = self._store.get(TOKENS, ("", token))
        if found is None:
            return None
        spec = found["spec"]
        if not spec["pod"]:
            return User(spec["user"], spec["node"])
        pod = self._store.get("pods", (spec["space"], spec["pod"]))
        if pod is None or pod["metadata"]["uid"] != spec["uid"]:
            return None
        return User(spec["user"], pod["spec"].get("nodeName", ""))

    def allows(self, user: User, wish: Wish) -> bool:
        """Whether a role that is bound to the user says so."""
        return user.name == _ADMIN or any(
            _covers(rule, wish) for rule in self._rules(user, wish.space)
        )

    def _rules(self, user: User, space: str) -> Iterator[Object]:
        for kind in ("clusterrolebindings", "rolebindings"):
            for (where, _), binding in self._store.of(f"{kind}.{_RBAC}").objects.items():
                if where not in ("", space) or not _binds(binding, where, user):
                    continue
                ref = binding["roleRef"]
                plural, place = (
                    ("clusterroles", "") if ref["kind"] == "ClusterRole" else ("roles", where)
                )
                found = self._store.get(f"{plural}.{_RBAC}", (place, ref["name"]))
                yield from (found or {}).get("rules", ())


def _binds(binding: Object, where: str, user: User) -> bool:
    names = (
        f"system:serviceaccount:{s.get('namespace', where)}:{s['name']}"
        for s in binding.get("subjects", ())
        if s["kind"] == "ServiceAccount"
    )
    return user.name in names


def _covers(rule: Object, wish: Wish) -> bool:
    wants = (
        ("verbs", wish.verb),
        ("apiGroups", wish.group),
        ("resources", wish.resource),
    )
    if not all({word, "*"} & set(rule.get(key, ())) for key, word in wants):
        return False
    names = rule.get("resourceNames")
    return not names or wish.name in names
