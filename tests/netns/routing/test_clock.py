"""The wall clock jumps by years while a daemon runs: only what is written tells of it."""

import os
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.netns.routing.conftest import Cluster, Member, eventually

YEAR = 365 * 86400

# Every process of a machine has one wall clock, so the daemon's alone is moved, on its way to it:
# by as many seconds as a file says. Its monotonic clocks are the kernel's.
WALL_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long offset(void) {
  long seconds = 0;
  FILE *file = fopen(getenv("OFFSET_FILE"), "re");
  if (file != NULL) {
    if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
    fclose(file);
  }
  return seconds;
}

int clock_gettime(clockid_t id, struct timespec *at) {
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int done = real(id, at);
  if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) at->tv_sec += offset();
  return done;
}

int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at != NULL) *at = now.tv_sec;
  return now.tv_sec;
}
"""


@pytest.fixture(scope="module")
def wall_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that moves the wall clock of whoever loads it."""
    folder = tmp_path_factory.mktemp("clock")
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(WALL_CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def jump(file: Path, seconds: int) -> None:
    """Move the clock; all at once, for a reader must not see half a number."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{seconds}\n")
    fresh.rename(file)


def written_at(member: Member, moment: float) -> object:
    """True where the daemon says by its clock that it is about then."""
    said = float(member.status().get("time", 0))
    return abs(said - moment) < YEAR / 2 or said


def test_jumps_of_the_wall_clock(cluster: Cluster, wall_clock: Path, tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    jump(offset, 0)
    one, two = cluster.prepare(), cluster.join()
    one.environment = {"LD_PRELOAD": str(wall_clock), "OFFSET_FILE": str(offset)}
    one.start()
    cluster.settle()
    lengths = [len(one.history())]
    for number, years in enumerate((10, -20, 0)):
        jump(offset, years * YEAR)
        then = time.time() + years * YEAR
        # What others damage is repaired as fast and as often as ever.
        for _ in range(3):
            one.node.run(["ip", "route", "del", "10.244.2.0/24"])
            eventually(partial(one.has_routes, set(two.cidrs)))
        # The list is taken whatever times its file has.
        prefixes = [two.cidrs[0], f"10.244.{100 + number}.0/24"]
        cluster.write(node_2={"podCIDRs": prefixes})
        os.utime(cluster.file, (then, then))
        eventually(partial(one.has_routes, set(prefixes)))
        eventually(partial(written_at, one, then))
        eventually(one.is_in_sync)
        assert 0 <= one.status()["age"] < 60
        cluster.write()
        eventually(partial(one.has_routes, set(two.cidrs)))
        lengths.append(len(one.history()))
    check_history(one, lengths)
    assert "routing restarts" not in one.log


def check_history(member: Member, lengths: list[int]) -> None:
    """All is listed as it happened, and `--since` goes by what the clock said."""
    records = member.history()
    years = [int(record["time"][:4]) for record in records]
    now = time.gmtime().tm_year
    eras = [set(years[a:b]) for a, b in zip([0, *lengths], lengths, strict=False)]
    near = [{year - 1, year, year + 1} for year in (now, now + 10, now - 20, now)]
    assert all(era and era <= wanted for era, wanted in zip(eras, near, strict=True)), eras
    since = member.history(since="1d")
    assert since == [r for r, year in zip(records, years, strict=True) if year >= now - 1]
    assert 0 < len(since) < len(records)
