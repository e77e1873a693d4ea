"""Which artifacts can go, one at a time: what `raysae.upkeep.references` decides, by recursion."""

from __future__ import annotations

from collections.abc import Sequence

from raysae.upkeep.references import Node, Rules


def stays(node: Node, nodes: Sequence[Node], rules: Rules) -> bool:
    """Whether an artifact stays: for its own sake, or because one that stays needs it."""
    if node.young:
        return True
    if node.kind not in rules.known:
        return True
    if node.name in rules.named:
        return True
    if node.finished and node.kind in rules.kept:
        return True
    for user in nodes:
        if node.name in user.inputs and stays(user, nodes, rules) and needs(user, node, rules):
            return True
    return False


def needs(user: Node, node: Node, rules: Rules) -> bool:
    """Whether an artifact that stays needs one of those that it was made from."""
    if not user.finished:
        return True  # it may be made at this moment
    if not node.finished:
        return False
    if rules.used_caches and user.kind == "saes" and node.kind == "activations":
        return user.young
    return True


def garbage(nodes: Sequence[Node], rules: Rules) -> dict[str, str]:
    """What can go, and why."""
    gone = {}
    for node in nodes:
        if stays(node, nodes, rules):
            continue
        if not node.finished:
            gone[node.name] = "abandoned"
        elif any(node.name in n.inputs and stays(n, nodes, rules) for n in nodes):
            gone[node.name] = "used-up"
        else:
            gone[node.name] = "unreferenced"
    return gone
