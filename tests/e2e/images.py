"""Images of the tests' own, made by hand: what holds a pod, and what its containers run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile
from pathlib import Path

from tests.cluster.container import TOOL, read_manifest

PAUSE, BUSYBOX = "localhost/pause:e2e", "localhost/busybox:e2e"
IMAGE = read_manifest("DaemonSet", "podwired")["spec"]["template"]["spec"]["containers"][0]["image"]
NEXT_VERSION = "99.0.0"
NEXT = f"{IMAGE.rpartition(':')[0]}:{NEXT_VERSION}"
"""podwire's image, and one of a later version."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_PAUSE = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"


def make_images(folder: Path) -> list[Path]:
    """Archives of both images, in a folder."""
    pause = folder / "pause"
    compiler = ["gcc", "-static", "-O2", "-s", "-x", "c", "-o", str(pause), "-"]
    subprocess.run(compiler, input=_PAUSE.encode(), check=True)
    return [
        _write(folder / "pause.tar", PAUSE, {"pause": pause}, ["/pause"]),
        _write(folder / "busybox.tar", BUSYBOX, {"bin/busybox": Path("/bin/busybox")}, []),
    ]


def make_next(folder: Path) -> Path:
    """An archive of podwire's image in a later version: its number, the shim's bytes."""
    podman = subprocess.run([TOOL, "podman"], capture_output=True, text=True, check=True)
    words = podman.stdout.split()
    lines = [
        f"FROM {IMAGE}",
        "RUN sed -i 's/^Version: .*/Version: " + NEXT_VERSION + "/'"
        " /opt/podwire/venv/lib/python3*/site-packages/podwire-*.dist-info/METADATA"
        f" && printf {NEXT_VERSION} >>/opt/podwire/venv/bin/podwire",
    ]
    (folder / "Containerfile").write_text("\n".join(lines))
    archive = folder / "next.tar"
    build: list[str | Path] = [
        "build",
        "--pull=never",
        "--tag",
        NEXT,
        "--file",
        folder / "Containerfile",
        folder,
    ]
    save: list[str | Path] = ["save", "--format", "oci-archive", "--output", archive, NEXT]
    for command in (build, save):
        done = subprocess.run(
            [*words, *command],
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return archive


def _write(archive: Path, name: str, files: dict[str, Path], entrypoint: list[str]) -> Path:
    """An archive as `docker save` writes it, of one layer."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for target, source in files.items():
            tar.add(source.resolve(), target)
        for link in ("sh", "nc", "httpd", "wget", "ip", "sleep", "cat") if not entrypoint else ():
            entry = tarfile.TarInfo(f"bin/{link}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    listed = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer.getvalue(),
        "manifest.json": json.dumps(listed).encode(),
    }
    with tarfile.open(archive, "w") as tar:
        for part, data in parts.items():
            entry = tarfile.TarInfo(part)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive
