"""A store in a folder of its own, with a clock that is set by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipam.store import Store
from tests.unit.ipam.helpers import HandClock, open_at


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(data_dir: Path, clock: HandClock) -> Iterator[Store]:
    with open_at(data_dir, clock) as opened:
        yield opened
