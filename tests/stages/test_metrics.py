from __future__ import annotations

import re
import time
import urllib.request

import pytest
import ray

from raysae.stages._metrics import COUNTERS, SECONDS, ShardMetrics


def exported(stage: str) -> dict[str, float]:
    """Return what this node's agent exports of a stage: metric → its sum over all processes."""
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = re.match(r"ray_(raysae_\w+)\{(.*)\} (\S+)$", line)
        if match and f'stage="{stage}"' in match[2] and "le=" not in match[2]:
            found[match[1]] = found.get(match[1], 0.0) + float(match[3])
    return found


@pytest.mark.ray
def test_what_is_counted_is_exported(shared_ray: None) -> None:
    metrics = ShardMetrics("test-of-metrics")
    metrics.add({"rows": 30, "rejected": 0, "tokens": 900, "bytes": 5e6}, 1.5)
    metrics.add({"rows": 31, "rejected": 2, "tokens": 901, "bytes": 5e6}, 0.5)
    deadline = time.monotonic() + 60  # it is exported every few seconds
    expected = {"shards": 2, "rows": 61, "rejected": 2, "tokens": 1801, "bytes": 1e7}
    shards = COUNTERS["shards"][0]
    while (found := exported("test-of-metrics")).get(shards) != 2 and time.monotonic() < deadline:
        time.sleep(1)
    for name, (metric, _) in COUNTERS.items():
        assert found[metric] == expected[name]
    assert found[f"{SECONDS[0]}_count"] == 2
