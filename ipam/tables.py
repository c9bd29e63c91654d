"""Text tables for people."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_ID = 20
SHOWN_OF_ID = 13


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned to their widest cell, two spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )
    return "\n".join(lines)


def shorten_id(container_id: str) -> str:
    """The first characters of a long container ID; commands take them in place of the whole."""
    return container_id if len(container_id) <= LONGEST_ID else container_id[:SHOWN_OF_ID]
