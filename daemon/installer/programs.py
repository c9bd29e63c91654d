"""The executables that container runtimes find in a directory of CNI plugins.

A runtime that looks finds the file of before or podwire's at any instant.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from daemon.files import explain, make_folder
from daemon.installer.manifest import EXECUTABLE, Manifest, Placed, aside, digest_of


def put_programs(
    manifest: Manifest, folder: Path, sources: Iterable[tuple[str, Path]], *, copy: bool
) -> list[str]:
    """Put executables in a folder, by name and what to link or copy there; what was done.

    copy: where the folder is on a host that has none of podwire's other files. Raises OSError; a
    second run goes on where the first one was interrupted.
    """
    make_folder(folder, 0o755)
    lines: list[str] = []
    for name, source in sources:
        lines += put_file(manifest, folder / name, source, copy=copy)
    return lines


def put_file(
    manifest: Manifest,
    path: Path,
    source: Path,
    *,
    copy: bool,
    mode: int = EXECUTABLE,
) -> list[str]:
    """Put one file in a folder that is there, as `put_programs` does; what was done."""
    desired = digest_of(source.resolve(strict=True)) if copy else f"link:{source}"
    known, found = manifest.files.get(path), digest_of(path)
    mine = known.digests if known else ()
    foreign = bool(found) and found not in mine and found != desired
    set_aside = foreign or bool(known and known.set_aside)
    digests = (*(d for d in mine if d != desired), desired)
    entry = Placed(digests, str(source), copy, set_aside, mode)
    if entry != known:
        manifest.files[path] = entry
        manifest.save()
    lines = []
    if foreign:
        _keep(path)
        lines.append(f"set aside {path} (kept as {aside(path).name})")
    if found != desired:
        _replace(path, source, copy, mode)
        lines.append(str(path))
    if len(entry.digests) > 1:
        manifest.files[path] = replace(entry, digests=(desired,))
        manifest.save()
    return lines


def _keep(path: Path) -> None:
    """Give what is there a second name, in place of an older file of that name."""
    # Of two names of one file rename(2) leaves both.
    if os.path.lexists(aside(path)) and os.path.samestat(os.lstat(path), os.lstat(aside(path))):
        return
    fresh = _fresh(path, "old")
    with suppress(FileNotFoundError):
        fresh.unlink()
    try:
        os.link(path, fresh, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
            raise
        shutil.copy2(path, fresh, follow_symlinks=False)  # a file system without hard links
    os.replace(fresh, aside(path))


def _replace(path: Path, source: Path, copy: bool, mode: int) -> None:
    fresh = _fresh(path, "new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    if copy:
        try:
            shutil.copyfile(source, fresh)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            # Where the disk is full shutil names the source.
            raise OSError(error.errno, error.strerror, str(path)) from error
        os.chmod(fresh, mode)
        with open(fresh, "rb") as file:
            os.fsync(file.fileno())
    else:
        os.symlink(source, fresh)
    os.replace(fresh, path)


def _fresh(path: Path, kind: str) -> Path:
    """The name of a file that is about to be renamed into place."""
    return path.with_name(f".{path.name}.{kind}")


def restore_programs(manifest: Manifest) -> tuple[list[str], dict[Path, str]]:
    """Put back, among podwire's executables, what is missing or was replaced.

    What was done, and why which ones are not in place. What another program put in place of one is
    set aside in turn. No folder is made: a runtime that watches the old one would not see it.
    """
    lines: list[str] = []
    missing: dict[Path, str] = {}
    for path, entry in list(manifest.files.items()):
        if entry.mode != EXECUTABLE:
            continue
        try:
            if _is_installed(entry):
                lines += put_file(manifest, path, Path(entry.source), copy=entry.copied)
            elif digest_of(path) not in entry.digests:
                missing[path] = f"{entry.source} is missing, or of another version: install podwire"
        except FileNotFoundError:
            how = "make it again, and restart what has the old one (CRI-O; podwire in a container)"
            missing[path] = f"the folder {path.parent} was removed: {how}"
        except OSError as error:
            # Of a link that cannot be made the first name is what it leads to.
            where = Path(error.filename2 or error.filename or path)
            missing[path] = explain("the file", where, error)
    return lines, missing


def _is_installed(entry: Placed) -> bool:
    """Whether the installation that a file is of is the one that the manifest tells of."""
    source = Path(entry.source)
    if not source.exists():
        return False
    current = digest_of(source.resolve()) if entry.copied else f"link:{source}"
    return current == entry.digests[-1]


def remove_files(manifest: Manifest) -> list[str]:
    """Remove podwire's files and put back what was in their place; what was done.

    Another's file that has taken the place of one stays. Raises OSError.
    """
    lines = []
    for path, entry in list(manifest.files.items()):
        for kind in ("old", "new"):  # of an installation that was interrupted
            _fresh(path, kind).unlink(missing_ok=True)
        found, kept = digest_of(path), digest_of(aside(path)) if entry.set_aside else ""
        if found and found not in entry.digests:
            lines.append(f"left {path}: it is not podwire's any more")
            if kept == found:  # an installation was interrupted between the two
                aside(path).unlink()
        elif kept:
            os.replace(aside(path), path)
            lines.append(f"put back {path}")
        elif found:
            path.unlink()
            lines.append(f"removed {path}")
        del manifest.files[path]
        manifest.save()
    return lines
