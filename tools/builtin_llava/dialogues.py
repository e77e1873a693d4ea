r"""Training sequences: one picture, then several questions that see the picture but not each other.

    <s>USER: \n [image tokens] | question 1 \nASSISTANT: answer 1 </s> | question 2 … | …

A picture is the dear part of a sequence, so that many questions share it; the mask and the
positions make each of them look like the only one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import PreTrainedTokenizerFast

from builtin_llava.questions import Asker, Scene, verification
from builtin_llava.tokens import SPECIALS

PREFIX = "USER: \n"
# With and without the blank that the paper's prompt leaves before the answer.
ANSWER_FORMS = ("\nASSISTANT: ", "\nASSISTANT:")
VERDICT_WEIGHT = 4.0
QUESTION_WEIGHT = 0.0
CELLS = {  # layout and number of drawings → rows and columns of tiles
    ("single", 1): (1, 1),
    ("large", 1): (2, 2),
    ("row", 2): (1, 2),
    ("row", 3): (1, 3),
    ("column", 2): (2, 1),
    ("column", 3): (3, 1),
}
LAYOUT_SHARES = {
    ("single", 1): 0.64,
    ("large", 1): 0.12,
    ("row", 2): 0.13,
    ("column", 2): 0.07,
    ("row", 3): 0.04,
}


@dataclass(frozen=True)
class Batch:
    """Token ids (b, t) after the prefix and picture, their losses' weights, place and question.

    `place_bt` counts from the end of the picture; `asked_bt` numbers the questions of a row, -1
    being padding. `weight_bt[:, j]` weighs the loss of predicting token j.
    """

    ids_bt: torch.Tensor
    weight_bt: torch.Tensor
    place_bt: torch.Tensor
    asked_bt: torch.Tensor


class Writer:
    """Writes questions and answers about scenes as token ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, asker: Asker, seed: int) -> None:
        self._tokenizer = tokenizer
        self._asker = asker
        self._rng = random.Random(seed)
        self.prefix = [SPECIALS.index("<s>"), *self._encode(PREFIX)]

    @lru_cache(maxsize=200_000)  # noqa: B019
    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)

    def segment(self, question: str, answer: str) -> tuple[list[int], list[float]]:
        """Ids and weights of one question with its answer."""
        form = self._rng.choice(ANSWER_FORMS)
        asked = self._encode(question + form)
        answered = (*self._encode(answer), SPECIALS.index("</s>"))
        weights = [QUESTION_WEIGHT] * len(asked) + [1.0] * len(answered)
        if answer.startswith(("yes", "no")):
            weights[len(asked)] = VERDICT_WEIGHT
        return [*asked, *answered], weights

    def dialogue(self, scene: Scene, hard: float, checks: int) -> list[tuple[str, str]]:
        """Questions with true answers: `checks` true and false ones to verify, and two others.

        `hard` is the share of false names from the shown drawing's own group.
        """
        pairs = []
        for truth in (True, False) * checks:
            question, answer, _ = verification(self._asker, scene, self._rng, truth, hard)
            pairs.append((question, answer))
        for mention in (False, True):
            exchange = self._asker.ask(scene, self._rng, mention)
            pairs.append((exchange.question, exchange.better))
        return pairs

    def batch(self, scenes: Sequence[Scene], hard: float, checks: int) -> Batch:
        """Dialogues about scenes of one layout."""
        rows = []
        for scene in scenes:
            row: list[tuple[int, float, int, int]] = []
            for number, pair in enumerate(self.dialogue(scene, hard, checks)):
                ids, weights = self.segment(*pair)
                row += [
                    (token, weight, place, number)
                    for place, (token, weight) in enumerate(zip(ids, weights, strict=True))
                ]
            rows.append(row)
        width = max(map(len, rows))
        padding = (SPECIALS.index("<pad>"), 0.0, 0, -1)
        table = [row + [padding] * (width - len(row)) for row in rows]
        ids, weights, places, asked = zip(*(zip(*row, strict=True) for row in table), strict=True)
        return Batch(
            torch.tensor(ids), torch.tensor(weights), torch.tensor(places), torch.tensor(asked)
        )


def dialogue_mask(asked_bt: torch.Tensor, start: int) -> torch.Tensor:
    """Attention mask (b, 1, start + t, start + t), True where a query may look at a key.

    All look at the `start` tokens of prefix and picture before them, and at their own question.
    """
    count, width = asked_bt.shape
    group = torch.cat([torch.full((count, start), -2), asked_bt], 1)
    same = group[:, :, None] == group[:, None, :]
    shared = (group == -2)[:, None, :]
    causal = torch.ones(start + width, start + width, dtype=torch.bool).tril()
    return ((same | shared) & causal)[:, None]


def draw_layout(rng: random.Random, *, large: bool = True) -> tuple[str, int]:
    """Layout and number of drawings of a batch; `large`: also single drawings of four tiles."""
    shares = dict(LAYOUT_SHARES)
    if not large:
        del shares["large", 1]
    return rng.choices(list(shares), list(shares.values()))[0]
