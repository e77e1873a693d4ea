from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.moments import LONGEST_DELAY_S, STAGES, Moments, Stage, Victim

seeds = st.integers()
MARKS = {stage.name: stage.marks for stage in STAGES}
PAIRS = {(stage.name, victim) for stage in STAGES for victim in stage.victims}


@given(seeds, st.integers(0, 10_000))
def test_the_same_seed_and_round_give_the_same_moment(seed, round_number):
    assert Moments(seed).at(round_number) == Moments(seed).at(round_number)


@given(seeds, st.integers(0, 10_000))
def test_a_moment_is_one_that_its_stage_reaches(seed, round_number):
    moment = Moments(seed).at(round_number)
    assert 0 <= moment.after < MARKS[moment.stage]
    assert moment.after == 0 or moment.victim is not Victim.READER
    assert 0 <= moment.delay_s <= LONGEST_DELAY_S
    assert 0 <= moment.pick < 1


@given(seeds, st.integers(0, 10))
def test_every_victim_of_every_stage_comes_once_a_lap(seed, lap):
    moments = Moments(seed)
    found = [moments.at(lap * len(PAIRS) + place) for place in range(len(PAIRS))]
    assert {(moment.stage, moment.victim) for moment in found} == PAIRS


@given(seeds)
def test_all_of_a_stage_is_covered(seed):
    stage = Stage("one", 5, (Victim.ACTOR, Victim.DRIVER))
    moments = Moments(seed, [stage])
    assert {moments.at(number).after for number in range(400)} == set(range(5))


@given(seeds)
def test_only_what_may_be_killed_is(seed):
    moments = Moments(seed, victims=[Victim.ACTOR, Victim.RANK])
    found = [moments.at(number) for number in range(2 * len(moments.pairs))]
    assert {moment.victim for moment in found} == {Victim.ACTOR, Victim.RANK}
    assert "select" not in {moment.stage for moment in found}


@pytest.mark.parametrize("what", ["victim", "after", "delay_s", "pick"])
def test_seeds_differ(what):
    rounds = range(5)
    one, two = ([getattr(Moments(seed).at(i), what) for i in rounds] for seed in (1, 2))
    assert one != two
