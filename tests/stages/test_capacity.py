from __future__ import annotations

import json
from typing import Any

import pytest

from raysae.errors import SettingsError
from raysae.settings import RunSettings
from raysae.stages import _capacity, _pool
from raysae.stages._capacity import Resources, check_fits, fit, may_grow

SMALL, GPU = Resources(2, 0), Resources(4, 1)


@pytest.mark.parametrize(
    ("needed", "nodes", "expected"),
    [
        ([], [], True),
        ([SMALL], [], False),
        ([Resources(1, 0), Resources(0.25, 0)], [SMALL], True),
        ([Resources(2, 0), Resources(0.25, 0)], [SMALL], False),
        ([Resources(2, 0), Resources(0.25, 0)], [SMALL, SMALL], True),
        ([Resources(3, 0)], [SMALL, SMALL], False),
        ([Resources(0.25, 0), Resources(4, 1)], [GPU, SMALL], True),
        ([Resources(1, 1)] * 2, [GPU], False),
        ([Resources(1, 0.5)] * 2, [GPU], True),
    ],
)
def test_processes_are_laid_on_nodes(needed: Any, nodes: Any, expected: bool) -> None:
    assert fit(needed, nodes) is expected


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ({"aa": "node_aa", "bb": "node_bb"}, False),
        ({"aa": "head", "bb": "gpu-worker"}, True),
        ({"aa": "head"}, True),
        ({}, True),
    ],
)
def test_a_cluster_may_grow_unless_its_nodes_have_no_types(
    types: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_capacity, "STATUS_WAIT_S", 0.0)
    status = json.dumps({"autoscaler_report": {"node_type_mapping": types}}).encode()
    monkeypatch.setattr(_capacity.internal_kv, "_internal_kv_get", lambda _: status)
    assert may_grow() is expected


@pytest.mark.parametrize("status", [None, b"{}", b'{"autoscaler_report": null}'])
def test_what_is_not_known_may_grow(status: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_capacity, "STATUS_WAIT_S", 0.0)
    monkeypatch.setattr(_capacity.internal_kv, "_internal_kv_get", lambda _: status)
    assert may_grow()


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_what_a_real_cluster_cannot_run_is_named_with_what_it_has() -> None:
    _pool._check_capacity("cache", RunSettings())
    for run, named in (
        (RunSettings(cpus_per_actor=2.0), r"1 actor\(s\) of 2 CPUs and 0 GPUs"),
        (RunSettings(2, 2), "2 actor"),
        (RunSettings(gpus_per_actor=1.0), "1 GPUs each"),
    ):
        with pytest.raises(
            SettingsError, match=rf"^run\.cpus_per_actor: .*{named}.* 2 CPUs and 0 GPUs in all"
        ):
            _pool._check_capacity("cache", run)


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_a_cluster_that_starts_without_workers_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_capacity, "may_grow", lambda: True)
    check_fits("ranks", [Resources(8, 8)], ["train.workers"])
