"""The places of a group: who wins them, who loses them."""

import numpy as np

from raysae.scoring.rank_table import RankTable

KEYS = np.arange(10)


def offer(table: RankTable, group: list[int], value: list[float], row: list[int]) -> None:
    rows = np.array(row)
    ranked = table.rank(np.array(group), np.array(value, dtype=np.float32), KEYS[rows], rows, KEYS)
    table.write(ranked)


def test_higher_values_push_out_lower_ones_and_equal_values_go_by_key() -> None:
    table = RankTable(3, 2)
    offer(table, [2, 2, 0], [1.0, 2.0, 5.0], [3, 4, 5])
    assert table.floor_g().tolist() == [-np.inf, -np.inf, 1.0]
    offer(table, [2, 2], [1.0, 0.5], [1, 0])
    assert table.row_gk.tolist() == [[5, -1], [-1, -1], [4, 1]]
    assert [column.tolist() for column in table.entries()] == [[0, 2, 2], [5, 2, 1], [5, 4, 1]]
    assert table.live_rows().tolist() == [1, 4, 5]


def test_ranking_writes_nothing() -> None:
    table = RankTable(1, 2)
    table.rank(np.array([0]), np.ones(1, np.float32), np.array([7]), np.array([0]), KEYS)
    assert len(table.live_rows()) == 0


def test_renumber_follows_the_pool() -> None:
    table = RankTable(2, 2)
    offer(table, [0, 1], [1.0, 1.0], [9, 4])
    table.renumber(np.array([9, 4]), 10)
    assert table.row_gk.tolist() == [[0, -1], [1, -1]]
