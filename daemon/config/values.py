"""What the keys of a YAML file take: text, numbers, choices, and podwire's own types.

pydantic checks types and ranges. What is wrong with a value is a ValueError that says what the
value must be; `daemon.config.load` adds file, line and key.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from itertools import combinations
from pathlib import Path
from typing import TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from cni_plugin.config import DEFAULT_BRIDGE
from cni_plugin.request import NAME, NAME_MAX, link_name_fault
from cni_plugin.versions import SUPPORTED
from kernel.model import IPNetwork

T = TypeVar("T")

MTU_MIN, MTU_MAX = 576, 65535  # RFC 791: what every IPv4 host takes
PORT_MAX = 2**16 - 1
PLUGINS_MAX = 16
"""Chained plugins that podwire keeps behind its own: of the configuration, and of others."""
_PATH_MAX, _FILE_NAME_MAX = 4096, 255  # bytes, linux/limits.h
_SOCKET_PATH_MAX = 107  # sun_path, linux/un.h
_POD_LINK = re.compile("pw[0-9a-f]+$")  # cni_plugin.names
_DIGITS_MAX = 20  # more than any number in range has
# A DNS label, as Kubernetes takes it for names of namespaces (validation.go, IsDNS1123Label).
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")
_HOST = re.compile(r"[A-Za-z0-9](?:[-.A-Za-z0-9]{0,252})\Z")
_KEY_PREFIX = re.compile(r"(?:/[A-Za-z0-9._-]+)+\Z")
_TEXT_MAX = 200
# RFC 8259 section 6; of more digits than these no float64 has all.
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,20})?(?:[eE][-+]?[0-9]{1,3})?\Z")
_FAMILIES = {"ipv4": 4, "ipv6": 6}


class Secret(ValueError):
    """A value that may contain a password, and is not shown."""


class Plain(str):
    """Text that stood without quotes: a number or a truth value, where a key asks for one."""

    __slots__ = ()


def text(parse: Callable[[str], object]) -> WrapValidator:
    """Text, quoted or not, that `parse` takes or refuses with a ValueError.

    A value that has its type already is taken as it is.
    """

    def check(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        if isinstance(value, str):
            return parse(str(value))
        try:
            return handler(value)
        except ValidationError as error:
            raise ValueError("must be text") from error

    return WrapValidator(check)


def _refused_as(why: str, convert: Callable[[str], object] = str) -> WrapValidator:
    """What plain text stands for, checked by pydantic; `why` is the error's text."""

    def check(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(convert(value) if isinstance(value, Plain) else value)
        except ValidationError as error:
            raise ValueError(why) from error

    return WrapValidator(check)


def whole(least: int, most: int) -> tuple[object, ...]:
    """A whole number, both ends included."""
    why = f"must be a whole number from {least} to {most}"
    return Field(ge=least, le=most), _refused_as(why, _convert_number)


def _convert_number(digits: str) -> int | str:
    # isdecimal alone takes other scripts' digits.
    known = digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS_MAX
    return int(digits) if known else digits


def boolean() -> WrapValidator:
    """true or false."""
    return _refused_as("must be true or false", _convert_boolean)


def _convert_boolean(word: str) -> bool | str:
    return {"true": True, "false": False}.get(word, word)


def one_of(choices: object) -> WrapValidator:
    """One word of those of a Literal."""
    return _refused_as(f"must be one of {', '.join(get_args(choices))}")


def parse_family(text: str) -> int:
    """The version of a family of addresses. Raises ValueError, as all of the following."""
    if text not in _FAMILIES:
        raise ValueError(f"must be one of {', '.join(_FAMILIES)}")
    return _FAMILIES[text]


def parse_path(text: str) -> Path:
    """An absolute path."""
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


def is_plugin_type(value: object) -> bool:
    """Whether a runtime finds an executable by it: a plain file name."""
    if not isinstance(value, str) or not value.isprintable() or value in ("", ".", ".."):
        return False
    return "/" not in value and len(value.encode()) <= _FILE_NAME_MAX


def parse_plugin_type(text: str) -> str:
    """The type of a chained plugin."""
    if not is_plugin_type(text):
        raise ValueError("must be a plain file name, that of the plugin's executable")
    if text == "podwire":
        raise ValueError("must be another plugin: podwire's own entry is always the first")
    return text


def plain_json(value: object) -> object:
    """What a value of the file is in JSON: text without quotes may be a number or a truth value."""
    if isinstance(value, dict):
        return {str(key): plain_json(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(member) for member in value]
    if not isinstance(value, Plain):
        return value
    if value in ("true", "false"):
        return value == "true"
    if not _JSON_NUMBER.match(value):
        return str(value)
    number = json.loads(value)
    return number if math.isfinite(number) else str(value)


def parse_file_pattern(text: str) -> str:
    """A pattern of file names, as in a shell. Raises ValueError."""
    if not text.isprintable() or "/" in text or not 0 < len(text) <= _FILE_NAME_MAX:
        raise ValueError("must be a pattern of file names, like 00-multus*")
    return text


def parse_link_name(text: str) -> str:
    """A name that the kernel takes for a device, and that podwire gives to no other link."""
    fault = link_name_fault(text)
    if fault:
        raise ValueError(fault)
    if text == DEFAULT_BRIDGE or _POD_LINK.match(text):
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


def parse_namespace(text: str) -> str:
    """The name of a Kubernetes namespace."""
    if not _LABEL.match(text):
        raise ValueError("must be a DNS label: lower-case letters, digits and -, at most 63")
    return text


def parse_endpoint(text: str) -> str:
    """The URL of a server: scheme, host and port alone."""
    why = "must be a URL like https://192.0.2.1:2379: scheme, host and port"
    if "@" in text:
        raise Secret(f"{why}, no user and no password")
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError as error:
        raise ValueError(why) from error
    if url.scheme not in ("http", "https") or not port or not _is_host(host):
        raise ValueError(why)
    shown = f"[{host}]" if ":" in host else host
    if text.lower().rstrip("/") != f"{url.scheme}://{shown}:{port}":
        raise ValueError(why)
    return f"{url.scheme}://{shown}:{port}"


def _is_host(text: str) -> bool:
    if ":" not in text:
        return bool(_HOST.match(text))
    try:
        return IPv6Address(text).scope_id is None
    except ValueError:
        return False


def parse_key_prefix(text: str) -> str:
    """The prefix of the keys in an etcd."""
    if not _KEY_PREFIX.match(text) or len(text) > _TEXT_MAX:
        why = "must be like /podwire: parts of letters, digits, . _ - behind a / each"
        raise ValueError(f"{why}, at most {_TEXT_MAX}")
    return text


def parse_user_name(text: str) -> str:
    """The name of a user of a service."""
    if not text or not text.isprintable() or len(text) > _TEXT_MAX:
        raise ValueError(f"must be printable text of 1 to {_TEXT_MAX} characters")
    return text


def parse_listen(text: str) -> tuple[str, int]:
    """An address and a port to listen on, like 127.0.0.1:9473 or [::1]:9473."""
    why = "must be an address and a port, like 127.0.0.1:9473 or [::1]:9473"
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or not 0 < int(port[:6]) < 1 << 16:
        raise ValueError(why)
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError as error:
        raise ValueError(why) from error
    if (host[0] == "[", host[-1] == "]") != (address.version == 6,) * 2:
        raise ValueError(why)
    return str(address), int(port)


def check_filled(members: tuple[T, ...]) -> tuple[T, ...]:
    """A list that is not empty."""
    if not members:
        raise ValueError("must hold a member at least")
    return members


def check_few(members: tuple[T, ...]) -> tuple[T, ...]:
    """A list of chained plugins, each of which is executed for every pod."""
    if len(members) > PLUGINS_MAX:
        raise ValueError(f"must hold {PLUGINS_MAX} members at most")
    return members


def check_disjoint(prefixes: tuple[IPNetwork, ...]) -> tuple[IPNetwork, ...]:
    """Prefixes of which none overlaps another."""
    for one, other in combinations(prefixes, 2):
        if one.version == other.version and one.overlaps(other):
            raise ValueError(f"must not overlap: {one} and {other}")
    return prefixes
