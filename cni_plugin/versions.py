"""Versions of the CNI specification and what each one has."""

from __future__ import annotations

from cni_plugin.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, CniError

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST = SUPPORTED[-1]
# A configuration without cniVersion is of the first version (SPEC 0.1.0 had no such key).
DEFAULT = "0.1.0"

REFERENCE = "1.9.1"
"""The release of the reference plugins (containernetworking/plugins) that the stand-ins equal."""

_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def has_version(version: str, least: str) -> bool:
    """Whether a supported version is at least another."""
    return SUPPORTED.index(version) >= SUPPORTED.index(least)


def require_supported(version: object) -> str:
    """The version, if podwire speaks it. Raises code 1, or 6 where it is no version at all."""
    if version is None or version == "":
        return DEFAULT
    if not isinstance(version, str) or not _looks_like_version(version):
        raise CniError(DECODING_FAILURE, f"cniVersion {version!r} is not a version like {LATEST}")
    if version not in SUPPORTED:
        details = (
            f"the configuration has cniVersion {version}; podwire speaks {', '.join(SUPPORTED)}"
        )
        raise CniError(INCOMPATIBLE_VERSION, f"incompatible CNI version {version}", details)
    return version


def require_verb(version: str, command: str) -> None:
    """Raise code 1 where the version has no such verb."""
    since = _SINCE.get(command)
    if since and not has_version(version, since):
        msg = f"CNI version {version} has no {command}: it came with {since}"
        raise CniError(INCOMPATIBLE_VERSION, msg)


def _looks_like_version(version: str) -> bool:
    parts = version.split(".")
    return (
        len(version) <= 20 and len(parts) == 3 and all(p.isascii() and p.isdigit() for p in parts)
    )
