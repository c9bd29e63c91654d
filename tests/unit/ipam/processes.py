"""Running `worker` in processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests import ROOT


def command(name: str, data_dir: Path, *args: object) -> list[str]:
    words = (name, data_dir, *args)
    return [sys.executable, "-m", "tests.unit.ipam.worker", *map(str, words)]


def run(name: str, data_dir: Path, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(name, data_dir, *args), cwd=ROOT, capture_output=True, text=True, check=False
    )


def run_in_mount_namespace(name: str, data_dir: Path) -> list[list[str]]:
    """What the worker said, line by line; its mounts go with it."""
    data_dir.mkdir()
    done = subprocess.run(
        ["unshare", "--mount", *command(name, data_dir)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line.split(" ") for line in done.stdout.splitlines()]


@contextmanager
def started(commands: Sequence[list[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes, killed and reaped at the end whatever happens."""
    running: list[subprocess.Popen[str]] = []
    try:
        for words in commands:
            running.append(
                subprocess.Popen(
                    words, cwd=ROOT, text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )
            )  # fmt: skip
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def run_at_once(commands: Sequence[list[str]]) -> list[str]:
    """Start workers, let them go at the same moment; what each said after `ready`."""
    with started(commands) as processes:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate() for process in processes]
        assert [errors for _, errors in outputs] == [""] * len(processes)
        return [output for output, _ in outputs]
