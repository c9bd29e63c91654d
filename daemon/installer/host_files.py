"""Files that keep the host's network managers away from podwire's links and routes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from daemon.files import make_folder
from daemon.installer.manifest import Manifest
from daemon.installer.programs import put_file

_FOLDER = Path(__file__).with_name("drop_ins")
# systemd.network(5), systemd.link(5), networkd.conf(5), NetworkManager.conf(5).
_PLACES = {
    "systemd/network/05-podwire.network": "05-podwire.network",
    "systemd/network/05-podwire.link": "05-podwire.link",
    "systemd/networkd.conf.d/podwire.conf": "networkd.conf",
    "NetworkManager/conf.d/podwire.conf": "NetworkManager.conf",
}


def put_host_files(manifest: Manifest, etc: Path) -> list[str]:
    """Put them below /etc for each manager that has its folder there; what was done.

    They take effect when the manager starts or reloads. Raises OSError.
    """
    lines: list[str] = []
    for path, source in _places(etc):
        # systemd-networkd is no root: a folder that it may not read it ignores.
        make_folder(path.parent, 0o755)
        lines += put_file(manifest, path, source, copy=True, mode=0o644)
    return lines


def _places(etc: Path) -> Iterator[tuple[Path, Path]]:
    for place, name in _PLACES.items():
        if (etc / place.partition("/")[0]).is_dir():
            yield etc / place, _FOLDER / name
