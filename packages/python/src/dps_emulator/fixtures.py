"""The fixtures, which pytest finds by itself."""

from typing import Iterator, List

import pytest

from . import Emulator


@pytest.fixture(scope="session")
def dps_emulator_arguments() -> List[str]:
    """Flags of `dps emulate`. Define a fixture of this name in conftest.py to give some."""
    return []


@pytest.fixture
def dps_emulator(dps_emulator_arguments: List[str]) -> Iterator[Emulator]:
    """An emulator of its own for the test."""
    with Emulator(*dps_emulator_arguments) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def dps_emulator_session(dps_emulator_arguments: List[str]) -> Iterator[Emulator]:
    """One emulator for all tests. What they do to it stays for those after them."""
    with Emulator(*dps_emulator_arguments) as emulator:
        yield emulator
