from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from raysae.errors import DataError
from raysae.pipeline import make
from raysae.sae import SaeHealth, load_saelens
from raysae.stages import train as stage
from raysae.stages._cached_tokens import cached_source
from raysae.stages._tokens import held_out
from raysae.stages.chain import Chain, ChainSettings, TrainRunSettings
from raysae.storage import read_json
from tests.stages.chains import TINY_SAE, reader_of, unfinished_files
from tests.stages.conftest import Made
from tests.storages import at, path_of

pytestmark = pytest.mark.ray


def with_the_same_cache(made: Made, storage: Path, **changes: object) -> Chain:
    """Return a chain on another storage that holds a copy of the cache and nothing else."""
    settings: ChainSettings = replace(made.settings, storage=str(storage), **changes)  # type: ignore[arg-type]
    chain = Chain(settings)
    shutil.copytree(path_of(made.chain.activations.directory), path_of(chain.activations.directory))
    return chain


def some_tokens(chain: Chain) -> torch.Tensor:
    return reader_of(chain).read_rows(1, np.arange(200)).acts_nd


def check_with_sae_lens(chain: Chain, architecture: str) -> None:
    sae_lens = pytest.importorskip("sae_lens")
    theirs = sae_lens.SAE.load_from_disk(str(path_of(chain.sae.directory)))
    ours, acts_nd = load_saelens(path_of(chain.sae.directory)), some_tokens(chain)
    assert (theirs.cfg.architecture(), theirs.cfg.d_sae) == (architecture, 128)
    z_nf = theirs.encode(acts_nd)
    assert (z_nf > 0).any()
    torch.testing.assert_close(ours.encode_sparse(acts_nd).dense(200, 128), z_nf)
    torch.testing.assert_close(ours.decode(z_nf), theirs.decode(z_nf))


def test_sae_lens_opens_it_and_encodes_alike(made: Made) -> None:
    check_with_sae_lens(made.chain, "topk")


def test_what_is_left_is_the_sae_its_history_and_its_health(made: Made) -> None:
    sae = made.chain.sae
    assert {path.name for path in path_of(sae.directory).iterdir()} == {
        "cfg.json",
        "health.json",
        "history.json",
        "metadata.json",
        "sae_weights.safetensors",
        "spec.json",
    }
    points = read_json(path_of(sae.directory) / "history.json")["points"]
    assert [point["step"] for point in points] == list(range(1, 41))
    assert points[-1]["loss"] < points[0]["loss"]


def test_health_is_measured_on_tokens_that_were_not_trained_on(made: Made) -> None:
    chain = made.chain
    rows = chain.activations.metadata()["data_rows"]
    health = chain.sae.metadata()["health"]
    assert health["held_out"] is True
    assert health["all"]["tokens"] == rows[-1]
    tokens = cached_source(chain)
    assert tokens.trained_rows == (rows[0],)
    sae, acts_nd = load_saelens(path_of(chain.sae.directory)), []
    acts_nd = reader_of(chain).read_rows(1, np.arange(rows[-1])).acts_nd.double()
    recon_nd = sae.decode(sae.encode(acts_nd)).double()
    fvu = (recon_nd - acts_nd).square().sum() / (acts_nd - acts_nd.mean(0)).square().sum()
    assert health["all"]["fvu"] == pytest.approx(fvu.item(), rel=1e-4)
    assert health["all"]["l0"] == pytest.approx(8.0, abs=0.5)
    assert 0 < fvu < 1


def test_two_workers_give_the_sae_of_one(made: Made, tmp_path: Path) -> None:
    run = TrainRunSettings(workers=2, checkpoint_every=20)
    chain = with_the_same_cache(made, tmp_path / "storage", train=run)
    assert chain.sae.id == made.chain.sae.id
    assert make(chain, "saes") is not None
    one, two = (
        load_file(path_of(each.sae.directory) / "sae_weights.safetensors")
        for each in (made.chain, chain)
    )
    assert chain.sae.metadata()["workers"] == 2
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-5)


def test_relu_is_trained_too(made: Made) -> None:
    relu = replace(TINY_SAE, architecture="relu", l1_coefficient=0.1, steps=20)
    chain = Chain(replace(made.settings, sae=relu))
    result = stage.run_train(chain)
    assert (result.rows, result.resumed) == (64, False)
    assert chain.sae.metadata()["tokens"] == 20 * 256
    check_with_sae_lens(chain, "standard")
    assert unfinished_files(path_of(chain.sae.directory)) == []


def test_a_damaged_cache_stops_training_with_the_readers_own_words(
    made: Made, tmp_path: Path
) -> None:
    chain = with_the_same_cache(made, tmp_path / "storage")
    data = path_of(chain.activations.directory) / chain.activations.metadata()["data_files"][0]
    data.write_bytes(data.read_bytes()[:-100] + bytes(100))
    with pytest.raises(DataError, match=data.name) as error:
        make(chain, "saes")
    assert "Traceback" not in str(error.value)
    assert not chain.sae.is_finished()


def test_a_modality_without_tokens_is_stored_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    health = SaeHealth(4, 8)
    at(tmp_path).put_json("health.json", {"held_out": True, **health.summary()})
    stage._print_health(read_json(tmp_path / "health.json"))
    assert "fvu nan" in capsys.readouterr().out


@pytest.mark.parametrize(("shards", "expected"), [(1, 0), (2, 1), (19, 1), (40, 2), (100, 5)])
def test_a_twentieth_is_held_out(shards: int, expected: int) -> None:
    assert held_out(shards) == expected


def unmade(tiny_model: Path, storage: Path, rows: list[int]) -> Chain:
    """A chain with the metadata of a cache whose shards have some numbers of rows."""
    from tests.stages.chains import small_settings

    chain = Chain(small_settings(storage, tiny_model))
    files = [f"{n}.arrow" for n in range(len(rows))]
    metadata = {"data_files": files, "data_rows": rows, "d_in": 32}
    chain.activations.directory.put_json("metadata.json", metadata)
    return chain


def test_shards_without_tokens_are_neither_trained_on_nor_held_out(
    tiny_model: Path, tmp_path: Path
) -> None:
    tokens = cached_source(unmade(tiny_model, tmp_path, [5, 0, 7, 0]))
    assert (tokens.data_files, tokens.shard_rows) == (("0.arrow", "2.arrow"), (5, 7))
    assert (tokens.held_out, tokens.trained_rows) == (1, (5,))


def test_a_cache_without_tokens_is_named(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no token"):
        cached_source(unmade(tiny_model, tmp_path, [0, 0]))


def test_a_line_tells_the_time_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    point = {"step": 30.0, "loss": 0.5, "fvu": 0.25, "l0": 8.0, "dead_share": 0.0}
    stage._print_progress(point, 90, 65.0)
    stage._print_progress({**point, "step": 90.0}, 90, 0.0)
    under_way, last = capsys.readouterr().out.splitlines()
    assert under_way == (
        "train: step 30/90, loss 0.5, fvu 0.250, l0 8.0, dead 0.0%, 1 min 5 s left"
    )
    assert last.endswith("dead 0.0%")
