"""cluster.yaml passes Ray's own check, and keeps the promises that its comments make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER = Path(__file__).parents[1] / "cluster.yaml"


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return yaml.safe_load(CLUSTER.read_text(encoding="utf-8"))


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


def test_a_wrong_head_type_would_be_noticed(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config({**config, "head_node_type": "nobody"}))


def test_head_is_on_demand_and_runs_no_work(config: dict[str, Any]) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_workers_are_spot_and_start_from_none(config: dict[str, Any]) -> None:
    types = dict(config["available_node_types"])
    types.pop(config["head_node_type"])
    for worker in types.values():
        assert worker["min_workers"] == 0
        assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"


def test_dashboard_is_not_open_to_the_network(config: dict[str, Any]) -> None:
    (start,) = [c for c in config["head_start_ray_commands"] if "ray start" in c]
    assert "--dashboard-host=127.0.0.1" in start


def test_every_node_has_the_token_that_it_asks_for(config: dict[str, Any]) -> None:
    assert any("RAY_AUTH_MODE=token" in command for command in config["setup_commands"])
    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
