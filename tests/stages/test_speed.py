from __future__ import annotations

import pytest
import torch

from raysae.stages import _speed


@pytest.fixture(autouse=True)
def _measured_anew() -> None:
    _speed.matrix_rate.cache_clear()


def test_a_rate_is_measured_and_threads_are_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_speed, "_MEASURED_S", 0.0)
    threads = torch.get_num_threads()
    rate = _speed.sustained_flops("cpu", "float32", 1)
    assert 1e8 < rate < 1e15
    assert torch.get_num_threads() == threads


def test_the_rate_is_work_over_the_usual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five products after two to warm up the median counts: 0.2 s each, one of them slow."""
    ticks = [0.0, 9.0, 9.0, 18.0]
    for seconds in (0.2, 0.2, 5.0, 0.2, 0.2):
        ticks += [ticks[-1], ticks[-1] + seconds]
    monkeypatch.setattr(_speed.time, "perf_counter", iter(ticks).__next__)
    monkeypatch.setattr(_speed, "_ROWS", 4)
    monkeypatch.setattr(_speed, "_WIDTH", 8)
    rate = _speed.sustained_flops("cpu", "float32", 1)
    assert rate == pytest.approx(0.6 * 2 * 4 * 8 * 8 / 0.2)


def test_a_missing_gpu_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for dtype, rate in _speed.GPU_FLOPS.items():
        assert _speed.sustained_flops("cuda", dtype, 1) == rate
