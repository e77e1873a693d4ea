from __future__ import annotations

from raysae.interpret.content import SelectionSummary


def test_rows_add_up():
    chosen = SelectionSummary(
        "l0", "highest", corpus_rows=100, rejected=7, kept=40, threshold=1.0, rule="n 40"
    )
    assert chosen.scored == 93
    assert chosen.dropped == 53
