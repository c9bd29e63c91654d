"""A CNI call as it arrives (SPEC 1.1.0, section 2 "Parameters"): its environment as a checked
Request, its stdin as a JSON object. What the object's keys mean is `config`'s."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cni_plugin.errors import DECODING_FAILURE, INVALID_ENVIRONMENT, CniError

T = TypeVar("T")

STDIN_MAX = 4 << 20  # bytes
_NESTING_MAX = 64
_REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": ("CNI_PATH",),
    "STATUS": (),
    "VERSION": (),
}
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z")
# The specification has no limit; runtimes' names have 64 characters.
NAME_MAX = 1024
NAME_RULE = f"must start with a letter or digit, then letters, digits, _ . -, at most {NAME_MAX}"
_PLAIN_NAME = re.compile(r"[!-.0-9;-~]+\Z")  # ASCII that is visible, but / and :
_IFNAME_MAX = 15  # IFNAMSIZ - 1, linux/if.h
_POD_VALUE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:\-]{0,252}\Z")
_POD_KEYS = ("K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID")
_KNOWN_KEYS = frozenset({"IgnoreUnknown", "IP", "MAC", *_POD_KEYS})
_TRUE, _FALSE = ("1", "true"), ("0", "false")


@dataclass(frozen=True, slots=True)
class Request:
    """One CNI call. args has the known CNI_ARGS only; netns is empty where there is none."""

    command: str
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    netns_override: bool = False

    @property
    def pod(self) -> str:
        """namespace/name of the Kubernetes pod; empty where the runtime sent none."""
        namespace, name = self.args.get("K8S_POD_NAMESPACE", ""), self.args.get("K8S_POD_NAME", "")
        return f"{namespace}/{name}" if name else ""


def parse_request(env: Mapping[str, str], own_link: str = "") -> Request:
    """Check a call's environment. Raises code 4 naming each variable that is missing or wrong.

    own_link: a link's name that only this plugin may be called for.
    """
    command = env.get("CNI_COMMAND", "")
    if command not in _REQUIRED:
        verbs = ", ".join(_REQUIRED)
        raise _wrong("CNI_COMMAND", command, f"must be one of {verbs}")
    missing = [name for name in _REQUIRED[command] if not env.get(name)]
    if missing:
        raise CniError(
            INVALID_ENVIRONMENT, f"{command} needs {', '.join(missing)} in the environment"
        )
    if command == "VERSION":
        return Request(command)
    container_id, ifname = env.get("CNI_CONTAINERID", ""), env.get("CNI_IFNAME", "")
    if container_id and not is_name(container_id):
        raise _wrong("CNI_CONTAINERID", container_id, NAME_RULE)
    if ifname and ifname != own_link and (fault := link_name_fault(ifname)):
        raise _wrong("CNI_IFNAME", ifname, fault)
    return Request(
        command=command,
        container_id=container_id,
        netns=_read(_check_netns, env.get("CNI_NETNS", ""), command, ""),
        ifname=ifname,
        args=_read(_parse_args, env.get("CNI_ARGS", ""), command, {}),
        path=tuple(part for part in env.get("CNI_PATH", "").split(":") if part.startswith("/")),
        netns_override=env.get("CNI_NETNS_OVERRIDE", "").lower() in _TRUE,
    )


def _read(check: Callable[[str], T], value: str, command: str, otherwise: T) -> T:
    """The value, checked. To DEL a wrong one is none: container ID and interface say what goes."""
    try:
        return check(value)
    except CniError:
        if command != "DEL":
            raise
        return otherwise


def _wrong(variable: str, value: str, why: str) -> CniError:
    shown = value if len(value) <= 80 else value[:77] + "..."
    return CniError(INVALID_ENVIRONMENT, f"{variable}={shown!r} is invalid: {why}")


def is_name(value: str) -> bool:
    """Whether it may name a network or a container (SPEC 1.1.0, sections 1 and 2)."""
    return len(value) <= NAME_MAX and NAME.match(value) is not None


def link_name_fault(value: str) -> str:
    """What keeps podwire from making a link of that name; empty where nothing does."""
    # The kernel's own rule, net/core/dev.c dev_valid_name; and no name that a shell, a rule or a
    # path would read as something else.
    if value in (".", "..") or not _PLAIN_NAME.match(value):
        return "must be a plain name without / : or white space"
    if len(value) > _IFNAME_MAX:
        return f"must have at most {_IFNAME_MAX} characters"
    if value in ("lo", "all", "default") or "%" in value:
        return "the kernel keeps this name for itself"
    return ""


def _check_netns(value: str) -> str:
    if value and (not value.startswith("/") or "\0" in value or len(value) > 4096):
        raise _wrong("CNI_NETNS", value, "must be an absolute path to a network namespace")
    return value


def _parse_args(value: str) -> dict[str, str]:
    """CNI_ARGS "K=V;K2=V2" (CONVENTIONS.md); unknown keys need IgnoreUnknown=1."""
    pairs: dict[str, str] = {}
    for item in filter(None, value.split(";")):
        key, separator, text = item.partition("=")
        if not separator or not key:
            raise _wrong("CNI_ARGS", item, "each part must be KEY=VALUE")
        pairs[key] = text
    ignore = pairs.get("IgnoreUnknown", "0").lower()
    if ignore not in (*_TRUE, *_FALSE):
        raise _wrong("CNI_ARGS", f"IgnoreUnknown={ignore}", "must be 1, 0, true or false")
    unknown = sorted(pairs.keys() - _KNOWN_KEYS)
    if unknown and ignore not in _TRUE:
        raise _wrong("CNI_ARGS", ";".join(unknown), "unknown keys need IgnoreUnknown=1")
    for key in _POD_KEYS:
        if pairs.get(key) and not _POD_VALUE.match(pairs[key]):
            raise _wrong("CNI_ARGS", f"{key}={pairs[key]}", "must be a Kubernetes name")
    return {key: text for key, text in pairs.items() if key in _KNOWN_KEYS and text}


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def decode_json(data: bytes) -> Any:
    """A JSON value as others wrote it (RFC 8259). Raises ValueError."""
    if data.startswith(BOM_UTF8):
        raise ValueError("it begins with a byte order mark")
    try:
        return _DECODER.decode(data.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def decode(stdin: bytes) -> dict[str, Any]:
    """stdin as a JSON object. Raises code 6."""
    if not stdin.strip():
        raise CniError(DECODING_FAILURE, "the network configuration on stdin is empty")
    if len(stdin) > STDIN_MAX:
        msg = f"the network configuration on stdin is larger than {STDIN_MAX >> 20} MiB"
        raise CniError(DECODING_FAILURE, msg)
    try:
        value = decode_json(stdin)
    except ValueError as error:
        msg = "the network configuration is not JSON"
        raise CniError(DECODING_FAILURE, msg, str(error)) from error
    if not isinstance(value, dict):
        raise CniError(DECODING_FAILURE, "the network configuration is not a JSON object")
    _check_nesting(value)
    _check_text(stdin, value)
    return canonical(value, ("cniVersion", "name", "ipam", "cni.dev/valid-attachments"))


def canonical(value: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The object with these keys in this spelling, for Go's decoder takes them in any case."""
    by_lower = {name.lower(): name for name in names}
    renamed = {
        by_lower[key.lower()]: item
        for key, item in value.items()
        if key not in names and key.lower() in by_lower
    }
    return {**renamed, **value} if renamed else value


def _check_text(stdin: bytes, value: dict[str, Any]) -> None:
    # Half a character, such as \ud800 alone, is no text: it can be in no path and no answer.
    if b"\\ud" in stdin.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            words = f"{error.object[error.start]!r} is no character"
            msg = "the network configuration is not JSON"
            raise CniError(DECODING_FAILURE, msg, words) from error


def _check_nesting(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(_NESTING_MAX):
        level = [child for parent in level for child in _containers(parent)]
        if not level:
            return
    raise CniError(DECODING_FAILURE, "the network configuration is nested too deeply")


def _containers(parent: Any) -> list[Any]:
    children = parent.values() if isinstance(parent, dict) else parent
    return [child for child in children if isinstance(child, dict | list)]
