"""What the kernel layer raises."""

from __future__ import annotations

import errno as errno_names
import os


class KernelError(Exception):
    """A kernel operation failed.

    operation: what was tried, as part of a sentence ("create link").
    target: the object it was tried on.
    errno: the kernel's answer; 0 when there is none.
    hint: the kernel's text (netlink extended acknowledgement) or ours.
    """

    def __init__(self, operation: str, target: str, errno: int = 0, hint: str = "") -> None:
        self.operation, self.target, self.errno, self.hint = operation, target, errno, hint
        super().__init__(operation, target, errno, hint)

    def __str__(self) -> str:
        reason = ""
        if self.errno:
            name = errno_names.errorcode.get(self.errno, str(self.errno))
            reason = f": {os.strerror(self.errno)} ({name})"
        hint = f" - {self.hint}" if self.hint else ""
        what = f"{self.operation} {self.target}".rstrip()
        return f"could not {what}{reason}{hint}"


class TooManyObjects(KernelError):
    """There is more of a kind than is read. The socket is not to be used any more."""


class NotANamespace(KernelError):
    """A file that should be a network namespace is something else, or is not there."""


class MissingTool(KernelError):
    """A program that the node must have (nft) is not installed."""
