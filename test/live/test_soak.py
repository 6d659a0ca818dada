# What it is: a while of random hands and disasters under load, on servers of its own. SOAK_SECONDS (20), SOAK_SEED (1) and
# SOAK_HANDS (all; names of hands and of shapes of transactions, with commas) set it; scripts/soak runs it for long.
# Who calls it: pytest.
# Never: accepts a lost, invented or disordered event, or a duplicate in a Redis stream.
import os

import pytest

from soak import soak

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
NAMES = [name for name in os.environ.get("SOAK_HANDS", "").split(",") if name] or None


@pytest.mark.parametrize("seed", [SEED])
def test_random_hands_and_disasters_lose_and_invent_nothing(seed):
    outcome = soak(seed, SECONDS, NAMES)
    if outcome.wrong:
        pytest.fail(outcome.text(), pytrace=False)
