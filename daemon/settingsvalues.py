"""What the keys of podwired.yaml take.

pydantic checks types and ranges; these make values of a file's text, and say in podwire's words
what a value must be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from cni_plugin.request import NAME, NAME_MAX, link_name_fault
from cni_plugin.versions import SUPPORTED

MTU_MIN, MTU_MAX = 576, 65535  # RFC 791: what every IPv4 host takes
_PATH_MAX = 4096
_SOCKET_PATH_MAX = 107  # sun_path, linux/un.h
_BRIDGE = "cni0"  # cni_plugin.config: a bridge that is not named otherwise
_POD_LINK = re.compile("pw[0-9a-f]+$")  # cni_plugin.identity
_DIGITS_MAX = 20  # more than any number in range has


class Plain(str):
    """Text that stood without quotes: a number or a truth value, where a key asks for one."""

    __slots__ = ()


def _refused_as(why: str, convert: Callable[[str], object] = str) -> WrapValidator:
    """What plain text stands for, checked by pydantic, refused in our words."""

    def check(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(convert(value) if isinstance(value, Plain) else value)
        except ValidationError as error:
            raise ValueError(why) from error

    return WrapValidator(check)


def whole(least: int, most: int) -> tuple[object, ...]:
    """A whole number, both ends included."""
    words = f"must be a whole number from {least} to {most}"
    return Field(ge=least, le=most), _refused_as(words, _convert_number)


def _convert_number(text: str) -> int | str:
    # isdecimal alone takes other scripts' digits.
    digits = text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX
    return int(text) if digits else text


def boolean() -> WrapValidator:
    """true or false."""
    return _refused_as("must be true or false", _convert_boolean)


def _convert_boolean(text: str) -> bool | str:
    return {"true": True, "false": False}.get(text, text)


def one_of(choices: object) -> WrapValidator:
    """One word of those of a Literal."""
    return _refused_as(f"must be one of {', '.join(get_args(choices))}")


def parsed(parse: Callable[[str], object]) -> BeforeValidator:
    """Text, quoted or not, that `parse` takes or refuses with a ValueError."""

    def check(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError("must be text")
        return parse(value)

    return BeforeValidator(check)


def parse_path(text: str) -> Path:
    """An absolute path. Raises ValueError, as all of the following."""
    if not text.startswith("/") or not text.isprintable() or len(text) > _PATH_MAX:
        raise ValueError("must be an absolute path")
    path = Path(text)
    if path.name in ("", ".."):
        raise ValueError("must be an absolute path that ends in a name")
    return path


def parse_socket(text: str) -> Path:
    """The path of a Unix socket."""
    path = parse_path(text)
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        raise ValueError(f"must have at most {_SOCKET_PATH_MAX} bytes, as every socket's path")
    return path


def parse_conflist_path(text: str) -> Path:
    """The path of a CNI configuration."""
    path = parse_path(text)
    # libcni takes a list of plugins from files of this ending only (libcni/conf.go).
    if path.suffix != ".conflist":
        raise ValueError("must end in .conflist, or no runtime reads it as a list of plugins")
    return path


def parse_link_name(text: str) -> str:
    """A name that the kernel takes for a device, and that podwire gives to no other link."""
    fault = link_name_fault(text)
    if fault:
        raise ValueError(fault)
    if text == _BRIDGE or _POD_LINK.match(text):
        raise ValueError("must not be a name that podwire gives to pods' links and bridges")
    return text


def parse_network_name(text: str) -> str:
    """A CNI network's name."""
    if not NAME.match(text) or len(text) > NAME_MAX:
        why = "must start with a letter or digit, then letters, digits, _ . -"
        raise ValueError(f"{why}, at most {NAME_MAX}")
    return text


def parse_version(text: str) -> str:
    """A version of the CNI specification that podwire speaks."""
    if text not in SUPPORTED:
        raise ValueError(f"must be one of {', '.join(SUPPORTED)}")
    return text


def check_mtu(number: int) -> int:
    """An MTU, or 0."""
    if 0 < number < MTU_MIN:
        raise ValueError(f"must be 0 (that of the uplink) or from {MTU_MIN} to {MTU_MAX}")
    return number
