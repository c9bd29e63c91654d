"""Reading all keys of a cluster, as of one revision, page by page."""

from __future__ import annotations

from daemon.sources.etcd.faults import Refused
from daemon.sources.etcd.gateway import Gateway
from daemon.sources.etcd.keys import Keys
from daemon.sources.etcd.transaction import Header, header_of, text_of
from daemon.sources.etcd.values import Malformed, Pair, parse_pair

PAGE = 2_000
"""Keys in an answer: etcd and this daemon hold one page at a time, not the cluster."""
OUT_OF_RANGE = 11
"""gRPC's code for a revision that was compacted (rpctypes, ErrGRPCCompacted)."""


def read_all(gateway: Gateway, keys: Keys) -> tuple[Header, list[Pair]]:
    """All keys, and the revision as of which they are. Raises SourceError."""
    while True:
        try:
            return _read_pages(gateway, keys)
        except Refused as error:
            # It was compacted between two pages.
            if error.code != OUT_OF_RANGE:
                raise


def _read_pages(gateway: Gateway, keys: Keys) -> tuple[Header, list[Pair]]:
    pairs: list[Pair] = []
    header: Header | None = None
    start, more = keys.root, True
    while more:
        body = {"key": text_of(start), "range_end": text_of(keys.end), "limit": str(PAGE)}
        if header is not None:
            body["revision"] = str(header.revision)
        answer = gateway.call("/kv/range", body)
        header = header or header_of(answer)
        entries = answer.get("kvs", [])
        pairs += map(parse_pair, entries)
        more = bool(answer.get("more")) and bool(entries)
        start = pairs[-1].key + b"\0" if pairs else start
    if header is None:  # pragma: no cover - the loop runs once at least
        raise Malformed("no answer")
    return header, pairs
