"""As much of HTTP/1.1 as a scraper and a prober speak (RFC 9112); one request a connection."""

from __future__ import annotations

import re
from dataclasses import dataclass

REQUEST_MAX = 8192
"""Bytes of request line and fields; Prometheus sends some 400."""
# A line may end without CR (RFC 9112, 2.2), and a request sent through a proxy names the server,
# too (3.2.2).
_END, _END_MAX = re.compile(rb"\r?\n\r?\n"), 4
_LINE = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,1400}) HTTP/1\.[0-9]\Z")
_TARGET = re.compile(
    r"(?:https?://[^/?#]{1,300})?(/[^?#]{0,1023})?(?:\?.{0,1023})?\Z", re.IGNORECASE
)
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
PLAIN = "text/plain; charset=utf-8"


class BadRequest(Exception):
    """What was sent is no request that is answered; status says why."""

    def __init__(self, status: int) -> None:
        super().__init__(status, _REASONS[status])
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """path: without the query. accept: the Accept field, empty where there is none."""

    method: str
    path: str
    accept: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    status: int
    body: bytes
    content_type: str = PLAIN


def tell(status: int, text: str) -> Response:
    """An answer of one line."""
    return Response(status, f"{text}\n".encode(errors="backslashreplace"))


def parse(data: bytes) -> Request | None:
    """The request at the beginning of what was received; None while it is not complete.

    Raises BadRequest.
    """
    end = _END.search(data, 0, REQUEST_MAX + _END_MAX)
    if end is None:
        if len(data) > REQUEST_MAX:
            raise BadRequest(431)
        return None
    line, *fields = (part.removesuffix(b"\r") for part in data[: end.start()].split(b"\n"))
    match = _LINE.match(line)
    if match is None:
        raise BadRequest(400)
    method, target = (part.decode("ascii") for part in match.groups())
    path = _path_of(target)
    if method not in ("GET", "HEAD"):
        raise BadRequest(405)
    return Request(method, path, _field(fields, b"accept"))


def _path_of(target: str) -> str:
    found = _TARGET.match(target)
    if found is None or target.startswith("?"):
        raise BadRequest(400)
    return found[1] or "/"


def _field(fields: list[bytes], name: bytes) -> str:
    for field in fields:
        key, colon, value = field.partition(b":")
        if colon and key.lower() == name:
            return value.strip().decode("ascii", errors="replace")
    return ""


def render(response: Response, *, with_body: bool = True) -> bytes:
    """The response as it goes out. with_body: not to HEAD, which is told the length alone."""
    lines = [
        f"HTTP/1.1 {response.status} {_REASONS[response.status]}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *(["Allow: GET, HEAD"] if response.status == 405 else []),
    ]
    head = "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii", errors="replace")
    return head + response.body if with_body else head
