from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.upkeep.inventory import KINDS
from raysae.upkeep.references import WHY, Node, Rules, garbage
from tests.reference import upkeep as reference

KEPT = ("saes", "subsets", "tuned", "reports")


@st.composite
def storages(draw: st.DrawFn) -> tuple[list[Node], Rules]:
    """Artifacts of any kinds, each made from some before it, and any rules."""
    kinds = (*KINDS, "unknown")
    nodes: list[Node] = []
    for number in range(draw(st.integers(0, 9))):
        before = st.sampled_from([node.name for node in nodes] or ["other/x"])
        nodes.append(
            Node(
                f"{draw(st.sampled_from(kinds))}/{number}",
                draw(st.booleans()),
                draw(st.integers(0, 3)) == 0,
                frozenset(draw(st.lists(before, max_size=3))),
            )
        )
    names = st.sampled_from([node.name for node in nodes] or ["other/x"])
    rules = Rules(
        KINDS,
        draw(st.frozensets(st.sampled_from(KINDS))),
        draw(st.frozensets(names, max_size=2)),
        draw(st.booleans()),
    )
    return draw(st.permutations(nodes)), rules


@given(storages())
def test_as_the_obvious_twin_says(storage: tuple[list[Node], Rules]) -> None:
    found = garbage(*storage)
    assert found == reference.garbage(*storage)
    assert set(found.values()) <= WHY.keys()


@given(storages())
def test_what_a_run_may_need_stays_whatever_the_rules(storage: tuple[list[Node], Rules]) -> None:
    nodes, rules = storage
    gone = garbage(nodes, rules)
    for node in nodes:
        if node.young:
            assert node.name not in gone
            if not node.finished:
                assert not node.inputs & gone.keys()


@given(storages())
def test_collecting_twice_finds_nothing_the_second_time(storage: tuple[list[Node], Rules]) -> None:
    nodes, rules = storage
    gone = garbage(nodes, rules)
    assert garbage([node for node in nodes if node.name not in gone], rules) == {}


def node(name: str, *inputs: str, finished: bool = True, young: bool = False) -> Node:
    return Node(name, finished, young, frozenset(inputs))


CACHE = node("activations/c")


@pytest.mark.parametrize(
    ("sae", "used_caches", "gone"),
    [
        (node("saes/s", "activations/c"), False, {}),
        (node("saes/s", "activations/c"), True, {"activations/c": "used-up"}),
        (node("saes/s", "activations/c", young=True), True, {}),
        (node("saes/s", "activations/c", finished=False, young=True), True, {}),
        (
            node("saes/s", "activations/c", finished=False),
            False,
            {"saes/s": "abandoned", "activations/c": "unreferenced"},
        ),
    ],
)
def test_a_cache_and_its_sae(sae: Node, used_caches: bool, gone: dict[str, str]) -> None:
    assert garbage([CACHE, sae], Rules(KINDS, KEPT, used_caches=used_caches)) == gone


def test_one_young_sae_keeps_the_cache_of_old_ones() -> None:
    saes = [node("saes/1", "activations/c"), node("saes/2", "activations/c", young=True)]
    assert garbage([CACHE, *saes], Rules(KINDS, KEPT, used_caches=True)) == {}


def test_what_a_run_says_it_reads_stays() -> None:
    weights = node("weights/w", "saes/s")
    assert garbage([weights], Rules(KINDS, KEPT)) == {"weights/w": "unreferenced"}
    assert garbage([weights], Rules(KINDS, KEPT, named={"weights/w"})) == {}
