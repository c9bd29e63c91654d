"""What the measurement ran on, and what measuring itself costs."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from tests.bench import spawn
from tests.bench.programs import Programs

TRUE = Path("/bin/true")


def read_facts(programs: Programs, stores: Path) -> dict[str, Any]:
    """The machine, and the versions of all that is measured. stores: where the stores lie."""
    return {
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**6,
        "load": os.getloadavg(),
        "store_file_system": _output("stat", "-f", "-c", "%T", str(stores)),
        "python": platform.python_version(),
        "iptables": _output("iptables", "-V"),
        "podwire": programs.podwire_version,
        "podwire_executable": "compiled" if programs.shim else "script",
        "podwire_daemon": programs.daemon is not None,
        "reference": f"{programs.reference_version} in {programs.reference}",
        "kindnet": str(programs.kindnet) if programs.kindnet else None,
    }


def measure_harness(rounds: int) -> list[float]:
    """Milliseconds that the harness takes to run /bin/true, which does nothing."""
    stderr = os.open(os.devnull, os.O_WRONLY)
    try:
        command = spawn.Command(TRUE, {})
        return [spawn.run(command, stderr).wall * 1e3 for _ in range(rounds)]
    finally:
        os.close(stderr)


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip()
