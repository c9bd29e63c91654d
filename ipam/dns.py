"""DNS settings: the `dns` object of the CNI specification, and resolv.conf(5) files."""

from __future__ import annotations

from dataclasses import dataclass

from ipam.errors import IO_FAILURE, IpamError
from ipam.json_section import Section

LARGEST_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Dns:
    """DNS settings that the result hands to the runtime."""

    nameservers: tuple[str, ...] = ()
    domain: str | None = None
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_dns(section: Section) -> Dns:
    """The `dns` object of a configuration; raises ConfigError."""
    return Dns(
        nameservers=section.texts("nameservers"),
        domain=section.text("domain"),
        search=section.texts("search"),
        options=section.texts("options"),
    )


def read_resolv_conf(path: str) -> Dns:
    """The settings of a resolv.conf file; IpamError with code 5 if it cannot be read."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise IpamError(IO_FAILURE, f"cannot read ipam.resolvConf {path}", str(error)) from error
    if len(content) > LARGEST_FILE:
        raise IpamError(IO_FAILURE, f"ipam.resolvConf {path} is larger than {LARGEST_FILE} bytes")
    return parse_resolv_conf(content.decode("utf-8", "replace"))


def parse_resolv_conf(text: str) -> Dns:
    """The settings of a resolv.conf text, as host-local reads them: repeated lines add up."""
    values: dict[str, list[str]] = {"nameserver": [], "domain": [], "search": [], "options": []}
    for line in text.splitlines():
        keyword, *words = line.split() or [""]
        if keyword in values and words:
            values[keyword] += words if keyword in ("search", "options") else words[:1]
    return Dns(
        nameservers=tuple(values["nameserver"]),
        domain=values["domain"][-1] if values["domain"] else None,
        search=tuple(values["search"]),
        options=tuple(values["options"]),
    )
