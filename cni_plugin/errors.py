"""CNI errors (SPEC 1.1.0, section 5 "Error") and podwire's own codes from 100."""

from __future__ import annotations

from ipam.errors import ADDRESS_TAKEN as ADDRESS_TAKEN
from ipam.errors import INVALID_CONFIG as INVALID_CONFIG
from ipam.errors import INVALID_ENVIRONMENT as INVALID_ENVIRONMENT
from ipam.errors import IO_FAILURE as IO_FAILURE
from ipam.errors import RANGE_EXHAUSTED as RANGE_EXHAUSTED
from ipam.errors import TRY_AGAIN as TRY_AGAIN

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
DECODING_FAILURE = 6
NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51

KERNEL_REFUSED = 101
CHECK_FAILED = 102
ALREADY_ATTACHED = 103
DELEGATE_FAILED = 104
PORT_TAKEN = 106
INTERNAL = 199

CODES = (
    *(INCOMPATIBLE_VERSION, UNSUPPORTED_FIELD, UNKNOWN_CONTAINER, INVALID_ENVIRONMENT),
    *(IO_FAILURE, DECODING_FAILURE, INVALID_CONFIG, TRY_AGAIN, NOT_AVAILABLE),
    *(LIMITED_CONNECTIVITY, RANGE_EXHAUSTED, KERNEL_REFUSED, CHECK_FAILED, ALREADY_ATTACHED),
    *(DELEGATE_FAILED, ADDRESS_TAKEN, PORT_TAKEN, INTERNAL),
)
"""All of them, in order."""


class CniError(Exception):
    """The error object of the answer: code, one line for people, details."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(code, msg, details)
        self.code, self.msg, self.details = code, msg, details

    def __str__(self) -> str:
        return f"{self.msg}: {self.details}" if self.details else self.msg
