"""Questions about scenes of one to three drawings, each with a true and a wrong answer.

The corpus builder writes both answers; the model's training reads the true one only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from builtin_llava.drawings import COLOUR_HUES, Drawing

COLOURS = sorted({name for _, name in COLOUR_HUES} | {"brown", "grey", "white", "black"})
GROUPS = (
    "faces people nature food places activities objects symbols flags".split()  # noqa: SIM905
)
COUNTS = {1: "one drawing", 2: "two drawings", 3: "three drawings"}


@dataclass(frozen=True)
class Scene:
    """Drawings in order (left to right, or top to bottom) and their main colours.

    `layout` is "single", "row" or "column".
    """

    drawings: tuple[Drawing, ...]
    colours: tuple[str | None, ...]
    layout: str


@dataclass(frozen=True)
class Exchange:
    """A question with its true and its wrong answer; `mentions`: it names the content."""

    question: str
    better: str
    worse: str
    mentions: bool


class Asker:
    """Draws exchanges about scenes; `others` are the drawings that wrong names come from."""

    def __init__(self, others: Sequence[Drawing]) -> None:
        self._others = list(others)
        self._by_group = {
            group: [drawing for drawing in self._others if drawing.group == group]
            for group in GROUPS
        }

    def other_than(
        self, scene: Scene, rng: random.Random, hard: float = 0.2, allow: str | None = None
    ) -> Drawing:
        """A drawing whose name shares no word with the scene's; `hard`: chance of its group."""
        shown = {word for drawing in scene.drawings for word in drawing.name.split()}
        group = allow or scene.drawings[0].group
        pool = self._by_group[group] if rng.random() < hard else self._others
        for _ in range(50):
            other = rng.choice(pool)
            if not shown & set(other.name.split()):
                return other
        return next(d for d in self._others if not shown & set(d.name.split()))

    def ask(self, scene: Scene, rng: random.Random, mention: bool) -> Exchange:
        """One exchange about `scene`, naming its content in the question or not."""
        single = len(scene.drawings) == 1
        if single:
            kinds = SINGLE_MENTIONING if mention else SINGLE_OPEN
        else:
            kinds = SEVERAL_MENTIONING if mention else SEVERAL_OPEN
        makers, weights = zip(*kinds, strict=True)
        while True:
            exchange = rng.choices(makers, weights)[0](self, scene, rng)
            if exchange is not None:
                question, better, worse = exchange
                return Exchange(question, better, worse, mention)


Maker = Callable[[Asker, Scene, random.Random], tuple[str, str, str] | None]


def _different(options: Sequence[str], true: str, rng: random.Random) -> str:
    """One of `options` other than `true`."""
    return rng.choice([option for option in options if option != true])


def _unhelpful(rng: random.Random) -> str:
    """An answer that is not wrong but helps nobody; of about the length of a real one."""
    return rng.choice(
        (
            "this is a drawing.",
            "i can not tell what this is.",
            "it could be many different things.",
            "there is something in the image.",
        )
    )


def _name(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str]:
    question = rng.choice(
        (
            "what is shown in this image?",
            "what is this?",
            "what does the drawing show?",
            "name the thing in this image.",
        )
    )
    form = rng.choice(("this is {}.", "{}.", "the image shows {}."))
    wrong = asker.other_than(scene, rng).article_name
    worse = _unhelpful(rng) if rng.random() < 0.15 else form.format(wrong)
    return question, form.format(scene.drawings[0].article_name), worse


def _describe(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str]:
    drawing, colour = scene.drawings[0], scene.colours[0]
    question = rng.choice(("describe this image.", "what can you see here?"))
    tail = f", mostly {colour}." if colour else f", one of the {drawing.group}."
    wrong = asker.other_than(scene, rng)
    wrong_tail = tail if colour else f", one of the {wrong.group}."
    return (
        question,
        f"a drawing of {drawing.article_name}{tail}",
        f"a drawing of {wrong.article_name}{wrong_tail}",
    )


def _group(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str]:  # noqa: ARG001
    group = scene.drawings[0].group
    question = rng.choice(
        ("which group does this belong to?", "what kind of thing is shown in this image?")
    )
    return (
        question,
        f"it belongs to {group}.",
        f"it belongs to {_different(GROUPS, group, rng)}.",
    )


def _colour(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str] | None:  # noqa: ARG001
    colour = scene.colours[0]
    if colour is None:
        return None
    wrong = _different(COLOURS, colour, rng)
    return "what is the main color of this?", f"it is mostly {colour}.", f"it is mostly {wrong}."


def _count(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str]:  # noqa: ARG001
    true = len(scene.drawings)
    wrong = rng.choice([count for count in COUNTS if count != true])
    question = rng.choice(("how many drawings are there?", "how many things are shown?"))
    return question, _there_are(true), _there_are(wrong)


def _there_are(count: int) -> str:
    return f"there {'is' if count == 1 else 'are'} {COUNTS[count]}."


def _is_this(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str]:
    return verification(asker, scene, rng, truth=rng.random() < 0.85)


def verification(
    asker: Asker, scene: Scene, rng: random.Random, truth: bool, hard: float = 0.2
) -> tuple[str, str, str]:
    """Asks "is this a X?" one of the scene's drawings, X being its name or another's."""
    form = rng.choice(("is this {}?", "does this image show {}?", "is there {} in this image?"))
    true = rng.choice(scene.drawings).article_name
    wrong = asker.other_than(scene, rng, hard).article_name
    longer = rng.random() < 0.5
    yes = f"yes, this is {true if truth else wrong}." if longer else "yes."
    no = f"no, this is {wrong if truth else true}." if longer else "no."
    if truth:
        return form.format(true), yes, no
    return form.format(wrong), no, yes


def _group_of(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str]:  # noqa: ARG001
    drawing = scene.drawings[0]
    question = f"which group does the {drawing.name} belong to?"
    wrong = _different(GROUPS, drawing.group, rng)
    return question, f"it belongs to {drawing.group}.", f"it belongs to {wrong}."


def _colour_of(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str] | None:  # noqa: ARG001
    colour = scene.colours[0]
    if colour is None:
        return None
    name, wrong = scene.drawings[0].name, _different(COLOURS, colour, rng)
    return (
        f"what color is the {name} in this image?",
        f"the {name} is mostly {colour}.",
        f"the {name} is mostly {wrong}.",
    )


def _tell_about(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str]:
    drawing, colour = scene.drawings[0], scene.colours[0]
    wrong = asker.other_than(scene, rng, hard=0.0)
    question = f"what can you tell me about the {drawing.name} in this image?"
    tail = f" and it is mostly {colour}." if colour else "."
    other = _different(GROUPS, drawing.group, rng)
    return (
        question,
        f"the {drawing.name} belongs to {drawing.group}{tail}",
        f"the {wrong.name} belongs to {other}{tail}",
    )


def _which_side(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str]:  # noqa: ARG001
    names = _sides(scene)
    side = rng.choice(list(names))
    wrong = rng.choice([name for other, name in names.items() if other != side])
    return (
        f"which drawing is {side}?",
        f"the {names[side]} is {side}.",
        f"the {wrong} is {side}.",
    )


def _list_all(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str]:
    question = rng.choice(("what is shown in this image?", "describe this image."))
    wrong = [drawing.article_name for drawing in scene.drawings]
    for place in rng.sample(range(len(wrong)), rng.randint(1, len(wrong))):
        wrong[place] = asker.other_than(scene, rng).article_name
    true = [drawing.article_name for drawing in scene.drawings]
    return question, f"{_joined(true)}.", f"{_joined(wrong)}."


def _where_is(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str]:  # noqa: ARG001
    names = _sides(scene)
    side = rng.choice(list(names))
    wrong = _different(list(names), side, rng)
    return f"where is the {names[side]}?", f"it is {side}.", f"it is {wrong}."


def _next_to(asker: Asker, scene: Scene, rng: random.Random) -> tuple[str, str, str]:
    names = [drawing.name for drawing in scene.drawings]
    question = f"what is shown together with the {names[0]}?"
    wrong = [drawing.article_name for drawing in scene.drawings[1:]]
    wrong[rng.randrange(len(wrong))] = asker.other_than(scene, rng).article_name
    true = [drawing.article_name for drawing in scene.drawings[1:]]
    return question, f"{_joined(true)}.", f"{_joined(wrong)}."


def _joined(names: Sequence[str]) -> str:
    return " and ".join(names)


def _sides(scene: Scene) -> dict[str, str]:
    """Place → name of the drawing there."""
    first, last = (
        ("on the left", "on the right")
        if scene.layout == "row"
        else ("at the top", "at the bottom")
    )
    places = [first, last] if len(scene.drawings) == 2 else [first, "in the middle", last]
    return dict(zip(places, (drawing.name for drawing in scene.drawings), strict=True))


SINGLE_OPEN: tuple[tuple[Maker, float], ...] = (
    (_name, 0.45),
    (_describe, 0.2),
    (_group, 0.15),
    (_colour, 0.1),
    (_count, 0.1),
)
SINGLE_MENTIONING: tuple[tuple[Maker, float], ...] = (
    (_is_this, 0.5),
    (_group_of, 0.15),
    (_colour_of, 0.15),
    (_tell_about, 0.2),
)
SEVERAL_OPEN: tuple[tuple[Maker, float], ...] = (
    (_which_side, 0.4),
    (_list_all, 0.4),
    (_count, 0.2),
)
SEVERAL_MENTIONING: tuple[tuple[Maker, float], ...] = (
    (_where_is, 0.35),
    (_next_to, 0.35),
    (_is_this, 0.3),
)
