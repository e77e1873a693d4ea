from __future__ import annotations

from collections.abc import Iterator

import pytest

from raysae.stages import _progress
from raysae.stages._progress import duration, progress_line, sum_counts


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3900, "1 h 5 min"),
        (2 * 86_400 + 3 * 3600 + 61, "2 d 3 h"),
        (86_400, "1 d 0 h"),
    ],
)
def test_durations_have_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_line_tells_rates() -> None:
    total = {"rows": 1200, "rejected": 3, "tokens": 50_000, "bytes": 4e9}
    expected = "1,200 rows, 3 rejected, 50,000 tokens, 25,000 tokens/s"
    assert progress_line(total, 2.0) == f"{expected}, 2.000 GB/s"
    del total["bytes"]
    assert progress_line(total, 2.0) == expected
    assert progress_line({}, 0.0) == "0 rows, 0 rejected, 0 tokens, 0 tokens/s"


def test_counts_are_summed_and_told_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Actors take 100 s to start; then a shard takes 10 s."""
    now = 0.0
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now)

    def shards() -> Iterator[dict[str, float]]:
        nonlocal now
        now = 100.0
        for _ in range(4):
            yield {"rows": 2, "tokens": 50, "bytes": 1e9}
            now += 10

    heard: list[None] = []
    total = sum_counts("cache", 4, shards(), lambda: heard.append(None))
    assert total == {"rows": 8, "tokens": 200, "bytes": 4e9}
    assert len(heard) == 4
    first, second, _, last = capsys.readouterr().out.splitlines()
    expected = "cache: 1/4 shards, 2 rows, 0 rejected, 50 tokens, 0 tokens/s, 0.010 GB/s"
    assert first == f"{expected}, 5 min 0 s left"
    assert second.startswith("cache: 2/4 shards, 4 rows")
    assert second.endswith("1 tokens/s, 0.018 GB/s, 1 min 50 s left")
    assert last.startswith("cache: 4/4 shards, 8 rows")
    assert "left" not in last
