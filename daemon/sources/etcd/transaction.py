"""Transactions on keys: what must still be so, and what is then written, all or nothing. Pure.

rpc.proto, TxnRequest, in the JSON of the gateway: numbers that are 0 may be left out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from daemon.sources.etcd.values import Malformed, Pair, parse_pair

Json = Mapping[str, Any]


def text_of(data: bytes) -> str:
    """Bytes as the gateway takes them."""
    return base64.b64encode(data).decode()


@dataclass(slots=True)
class Transaction:
    """Conditions, and operations for the case that all of them hold."""

    conditions: list[Json] = field(default_factory=list)
    operations: list[Json] = field(default_factory=list)

    def expect_absent(self, key: bytes) -> None:
        """The key is not there."""
        self._expect(key, target="CREATE", create_revision="0")

    def expect_unchanged(self, pair: Pair) -> None:
        """The key is as it was read."""
        self._expect(pair.key, target="MOD", mod_revision=str(pair.modified))

    def expect_value(self, key: bytes, value: bytes) -> None:
        """The key has that value."""
        self._expect(key, target="VALUE", value=text_of(value))

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        """Write a key; lease: what it goes with."""
        request = {"key": text_of(key), "value": text_of(value), "lease": str(lease)}
        self.operations.append({"request_put": request})

    def delete(self, key: bytes) -> None:
        """Delete a key."""
        self.operations.append({"request_delete_range": {"key": text_of(key)}})

    def body(self) -> dict[str, Any]:
        """The request."""
        return {"compare": self.conditions, "success": self.operations, "failure": []}

    def _expect(self, key: bytes, **what: str) -> None:
        self.conditions.append({"key": text_of(key), "result": "EQUAL", **what})


def read_keys(keys: Iterable[bytes]) -> dict[str, Any]:
    """The request for some keys, all as of one revision."""
    reads = [{"request_range": {"key": text_of(key)}} for key in keys]
    return {"compare": [], "success": reads, "failure": []}


def pairs_of(answer: Json) -> list[Pair]:
    """The pairs in the answer to `read_keys`. Raises Malformed."""
    try:
        ranges = [r["response_range"] for r in answer.get("responses", ())]
        return [parse_pair(entry) for r in ranges for entry in r.get("kvs", ())]
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed("an answer that cannot be read") from error


@dataclass(frozen=True, slots=True)
class Header:
    """What every answer says of its etcd. cluster: which one. revision: of its newest change."""

    cluster: str
    revision: int

    def follows(self, earlier: Header) -> bool:
        """Whether it is of the same history, and not from before."""
        return self.cluster == earlier.cluster and self.revision >= earlier.revision


def header_of(answer: Json) -> Header:
    """The header of an answer. Raises Malformed."""
    try:
        header = answer["header"]
        return Header(str(int(header["cluster_id"])), int(header.get("revision", 0)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Malformed("an answer without a header") from error
