"""Seeded moments at which a test kills something: what, in which stage, after how much of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, auto

from tests.cluster.settings import (
    CHECKPOINT_EVERY,
    SCORERS,
    SHARDS,
    STEPS,
    TUNE_CHECKPOINT_EVERY,
    TUNE_STEPS,
)

LONGEST_DELAY_S = 0.5


class Victim(StrEnum):
    """What is killed: a pool's actor, a reading process, a training rank, a node, a driver."""

    ACTOR = auto()
    READER = auto()
    RANK = auto()
    NODE = auto()
    DRIVER = auto()


POOL = (Victim.ACTOR, Victim.READER, Victim.NODE, Victim.DRIVER)
TRAINING = (Victim.RANK, Victim.NODE, Victim.DRIVER)
"""What can be killed in a stage that runs shards through actors, and in one that trains."""


@dataclass(frozen=True)
class Stage:
    """A stage in which something can be killed.

    Attributes:
        name: Its name.
        marks: How many done marks or checkpoints it writes.
        victims: What it can lose.
    """

    name: str
    marks: int
    victims: Sequence[Victim]


STAGES = (
    Stage("cache", SHARDS, POOL),
    Stage("train", STEPS // CHECKPOINT_EVERY, TRAINING),
    Stage("weights", SHARDS, POOL),
    Stage("score", SHARDS * SCORERS, POOL),
    Stage("select", 1, (Victim.NODE, Victim.DRIVER)),
    Stage("finetune", TUNE_STEPS // TUNE_CHECKPOINT_EVERY, TRAINING),
)
"""All stages of the small run of these tests."""


@dataclass(frozen=True)
class Moment:
    """When something is killed, and what.

    Attributes:
        stage: The stage's name.
        victim: What is killed.
        after: How many of the stage's marks there are then, at least.
        delay_s: How much later.
        pick: Which of several it is: the place among them, from 0 to below 1.
    """

    stage: str
    victim: Victim
    after: int
    delay_s: float
    pick: float


class Moments:
    """A moment for each round of a test, the same ones for the same seed.

    Each stage with each of its victims comes once, in an order of chance, before any comes again.

    Args:
        seed: Of the choice.
        stages: The stages that run.
        victims: What may be killed; a node, say, only where there are several.
    """

    def __init__(
        self, seed: int, stages: Sequence[Stage] = STAGES, victims: Sequence[Victim] = tuple(Victim)
    ) -> None:
        self.seed = seed
        self.pairs = [
            (stage, victim) for stage in stages for victim in stage.victims if victim in victims
        ]

    def at(self, round_number: int) -> Moment:
        """Return the moment of a round, counted from 0."""
        lap, place = divmod(round_number, len(self.pairs))
        order = random.Random(f"{self.seed}-lap-{lap}").sample(self.pairs, len(self.pairs))
        stage, victim = order[place]
        draw = random.Random(f"{self.seed}-round-{round_number}")
        after = draw.randrange(stage.marks)
        return Moment(
            stage=stage.name,
            victim=victim,
            # Readers run ahead of the marks: they may all be done when the first one comes.
            after=0 if victim is Victim.READER else after,
            delay_s=draw.uniform(0, LONGEST_DELAY_S),
            pick=draw.random(),
        )
