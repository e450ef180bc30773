"""A download that is killed at random moments goes on, and never ends as something else than the model."""

from __future__ import annotations

from pathlib import Path

from tests.hub.conftest import leftovers
from tests.hub.killing import kill_and_repeat

# What a killed process had asked for and the kernel held for it: the server counts it as sent.
_BLOCK = 300_000


def test_a_killed_download_goes_on(cache: Path) -> None:
    outcome = kill_and_repeat(cache, kills=5, seed=1)
    assert outcome.whole and outcome.kills >= 3
    assert outcome.twice <= outcome.kills * 3 * _BLOCK < outcome.size  # three files at a time
    assert leftovers(cache) == []
