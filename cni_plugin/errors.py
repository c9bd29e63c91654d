"""CNI errors (SPEC 1.1.0, section 5 "Error") and podwire's own codes from 100."""

from __future__ import annotations

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
TRY_AGAIN = 11
NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51

RANGE_EXHAUSTED = 100
KERNEL_REFUSED = 101
CHECK_FAILED = 102
ALREADY_ATTACHED = 103
DELEGATE_FAILED = 104
INTERNAL = 199


class CniError(Exception):
    """An error that the runtime is told: code, one line for people, details."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(code, msg, details)
        self.code, self.msg, self.details = code, msg, details

    def __str__(self) -> str:
        return f"{self.msg}: {self.details}" if self.details else self.msg
