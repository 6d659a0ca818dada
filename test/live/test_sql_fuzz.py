# What it is: ten seconds of the fuzzer of what SQL reaches, the same statements each time; FUZZ_SQL_SECONDS (10) and
# FUZZ_SQL_SEED (1) set it. scripts/fuzz-sql runs it for long.
# Who calls it: pytest.
# Never: accepts a crash, an internal error, or that delivery does not continue afterwards.
import os

import pytest

from sql_fuzz import fuzz

SECONDS = float(os.environ.get("FUZZ_SQL_SECONDS", "10"))
SEED = int(os.environ.get("FUZZ_SQL_SEED", "1"))


def test_whatever_sql_says_nothing_crashes_and_delivery_goes_on():
    world = fuzz(SEED, SECONDS)
    assert world.count > 100
    if world.wrong:
        pytest.fail(world.text(), pytrace=False)
