"""Seeds: every purpose has streams of its own, and what they are does not change unnoticed."""

from __future__ import annotations

import itertools

import pytest

from trpo_fast.seeds import Purpose, derive, derive_reset

STORED = (
    13_458_353_712_311_905_067,
    5_671_155_400_195_096_873,
    18_008_958_315_647_662_280,
)
NUMBERS = (0, 1, 2, 7, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1)


def test_no_two_streams_coincide() -> None:
    arguments = list(itertools.product(NUMBERS, Purpose, NUMBERS, NUMBERS))
    assert len({derive(*given) for given in arguments}) == len(arguments)


def test_every_purpose_has_a_word_of_four_letters() -> None:
    words = [purpose.value for purpose in Purpose]
    assert len(set(words)) == len(words)
    assert all(len(word) == 4 and word.isascii() for word in words)


def test_resets_have_seeds_that_every_simulator_takes() -> None:
    seeds = [derive_reset(0, Purpose.RESETS, env, step) for env in range(40) for step in range(40)]
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == len(seeds)


def test_stored_values() -> None:
    # stored: runs repeat from version to version
    assert derive(0, Purpose.POLICY_WEIGHTS) == STORED[0]
    assert derive(7, Purpose.RESETS, 3, 10_000) == STORED[1]
    assert derive(2**40, Purpose.POLICY_UPDATE, step=5) == STORED[2]


@pytest.mark.parametrize("arguments", [(-1,), (2**64,), (0, -1), (0, 0, -1), (0, 0, 2**64)])
def test_numbers_outside_their_range(arguments: tuple[int, ...]) -> None:
    seed, *rest = arguments
    with pytest.raises(ValueError, match=r"expected an integer in \[0, 2\*\*64\), got"):
        derive(seed, Purpose.RESETS, *rest)
