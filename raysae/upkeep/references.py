"""Which artifacts nobody needs: a question about names alone.

Of an artifact of a kind that is kept, a finished one stays. Whatever is young stays, and what is
named by a run or by the score table. Whatever stays and is unfinished may be worked on at this
moment, so that all that it was made from stays too; what stays and is finished keeps what it was
made from as long as that is finished, so that a person can see where it came from, but for used-up
caches if those may go. The rest is garbage.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

ABANDONED = "abandoned"
UNREFERENCED = "unreferenced"
USED_UP = "used-up"

WHY: Mapping[str, str] = {
    ABANDONED: "unfinished",
    UNREFERENCED: "nothing that is kept was made from it",
    USED_UP: "every SAE that was trained on it is finished",
}
"""Reasons for a person."""


@dataclass(frozen=True)
class Node:
    """What decides whether an artifact stays.

    Attributes:
        name: `<kind>/<id>`.
        finished: Whether it has its `metadata.json`.
        young: Whether any of its files was written lately.
        inputs: Names of those that it was made from.
    """

    name: str
    finished: bool
    young: bool
    inputs: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        """The first part of the name."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class Rules:
    """What stays whatever refers to it.

    Attributes:
        known: Kinds that this code knows; of others everything stays.
        kept: Kinds of which finished ones stay.
        named: Names that a run or the score table needs.
        used_caches: Whether `activations` go when all SAEs that they were for are finished and old.
    """

    known: Collection[str]
    kept: Collection[str]
    named: Collection[str] = ()
    used_caches: bool = False

    def stays(self, node: Node) -> bool:
        """Whether an artifact stays for its own sake."""
        if node.young or node.kind not in self.known or node.name in self.named:
            return True
        return node.finished and node.kind in self.kept

    def keeps(self, node: Node, needed: Node) -> bool:
        """Whether an artifact that stays keeps one that it was made from."""
        if not node.finished:
            return True
        used_up = node.kind == "saes" and needed.kind == "activations" and not node.young
        return needed.finished and not (self.used_caches and used_up)


def garbage(nodes: Sequence[Node], rules: Rules) -> dict[str, str]:
    """Return the artifacts that can go, and why: a key of `WHY`.

    Args:
        nodes: All artifacts of a storage.
        rules: What stays.
    """
    by_name = {node.name: node for node in nodes}
    todo = [node for node in nodes if rules.stays(node)]
    staying = {node.name for node in todo}
    while todo:
        node = todo.pop()
        for name in node.inputs & by_name.keys() - staying:
            if rules.keeps(node, by_name[name]):
                staying.add(name)
                todo.append(by_name[name])
    referenced = {name for node in nodes if node.name in staying for name in node.inputs}
    return {
        node.name: ABANDONED
        if not node.finished
        else USED_UP
        if node.name in referenced
        else UNREFERENCED
        for node in nodes
        if node.name not in staying
    }
