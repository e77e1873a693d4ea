from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
import torch

from raysae.activations import CacheReader
from raysae.errors import SettingsError
from raysae.pipeline import make
from raysae.sample import Sample
from raysae.stages.chain import CacheJobSettings, Chain
from raysae.storage import read_json
from tests.activations.test_format_alone import Alone
from tests.stages.chains import cached_sample, contents, reader_of, unfinished_files
from tests.stages.conftest import Made
from tests.stages.recomputed import SlowChain, modality_of
from tests.storages import path_of

pytestmark = pytest.mark.ray


def samples_of(chain: Chain) -> pa.Table:
    """Return the samples tables of all shards, one after another."""
    tables = []
    for mark in chain.activations.marks(chain.shards(chain.sae_corpus)):
        name = mark["cached"]["samples"]
        with (path_of(chain.activations.directory) / name).open("rb") as file:
            tables.append(pa.ipc.open_stream(file).read_all())
    return pa.concat_tables(tables)


def test_every_usable_row_is_there_once_in_order(made: Made) -> None:
    chain = made.chain
    expected = list(chain.sae_corpus.all_samples())
    assert all(isinstance(sample, Sample) for sample in expected)
    table = samples_of(chain)
    assert table["sample_id"].to_pylist() == [sample.sample_id for sample in expected]
    assert table["ordinal"].to_pylist() == list(range(64))
    assert len(set(table["sample_id"].to_pylist())) == 64


def test_counts_agree_with_files_and_marks(made: Made) -> None:
    chain = made.chain
    metadata, table = chain.activations.metadata(), samples_of(chain)
    assert (metadata["rows"], metadata["rejected"], metadata["rejections"]) == (64, 0, {})
    assert metadata["tokens"] == sum(table["tokens"].to_pylist()) == reader_of(chain).rows
    assert metadata["text_tokens"] == sum(table["text_tokens"].to_pylist()) > 0
    assert metadata["image_tokens"] == sum(table["image_tokens"].to_pylist()) > 0
    by_modality = (metadata[f"{name}_tokens"] for name in ("text", "image", "special"))
    assert sum(by_modality) == metadata["tokens"]
    marks = chain.activations.marks(chain.shards(chain.sae_corpus))
    assert [mark["rows"] for mark in marks] == [32, 32]
    assert metadata["d_in"] == 32
    assert unfinished_files(path_of(chain.activations.directory)) == []


def test_hidden_states_are_those_of_the_whole_model(made: Made) -> None:
    chain = made.chain
    slow, reader = SlowChain(chain.settings.model.layer, None, 0), reader_of(chain)
    samples = list(chain.sae_corpus.all_samples())
    for ordinal in (0, 31, 40):
        sample = samples[ordinal]
        assert isinstance(sample, Sample)
        shard, index = divmod(ordinal, 32)
        tokens = cached_sample(reader, shard, index)
        ids, acts_nd = slow.hidden_states(sample)
        assert tokens.position_n.tolist() == list(range(len(ids)))
        assert tokens.token_id_n.tolist() == ids.tolist()
        assert tokens.modality_n.tolist() == [modality_of(i) for i in ids.tolist()]
        torch.testing.assert_close(tokens.acts_nd, acts_nd, atol=1e-4, rtol=1e-4)


def test_what_a_job_makes_is_read_by_the_page(made: Made) -> None:
    chain = made.chain
    alone, reader = Alone(path_of(chain.activations.directory)), reader_of(chain)
    states = {key: act_d for mark in alone.marks for key, act_d in alone.tokens(mark).items()}
    assert len(states) == reader.rows
    ids = samples_of(chain)["sample_id"].to_pylist()
    for ordinal in (0, 31, 40):
        shard, index = divmod(ordinal, 32)
        acts_nd = cached_sample(reader, shard, index).acts_nd
        read_nd = [states[ids[ordinal], position].tolist() for position in range(len(acts_nd))]
        assert read_nd == acts_nd.double().tolist()
    metadata = json.loads((alone.cache / "metadata.json").read_bytes())
    assert metadata["data_files"] == [mark["cached"]["data"] for mark in alone.marks]
    assert metadata["data_rows"] == [mark["cached"]["rows"] for mark in alone.marks]


def test_datasets_opens_it(made: Made) -> None:
    chain = made.chain
    opened = datasets.load_from_disk(str(path_of(chain.activations.directory)))
    assert len(opened) == chain.activations.metadata()["tokens"]
    assert set(opened.column_names) == {
        "sample",
        "position",
        "token_id",
        "modality",
        "norm",
        "activation",
    }
    assert len(opened[0]["activation"]) == 32


def test_only_the_shard_without_a_mark_is_done_again(made: Made, tmp_path: Path) -> None:
    first = made.chain.activations
    chain = Chain(replace(made.settings, storage=str(tmp_path / "storage")))
    directory = path_of(chain.activations.directory)
    shutil.copytree(path_of(first.directory), directory)
    for name in ("metadata.json", "shard-00001.done.json"):
        (directory / name).unlink()
    before = contents(directory)
    result = make(chain, "activations")
    assert result is not None
    assert (result.rows, result.rejected, result.resumed) == (64, 0, True)
    after = contents(directory)
    untouched = [name for name in before if name.startswith("shard-00000")]
    assert len(untouched) == 3
    assert [after[name] for name in untouched] == [before[name] for name in untouched]
    # Names carry a checksum of the hidden states: the same ones came out again.
    assert after.keys() == contents(path_of(first.directory)).keys()
    times = {"seconds", "finished_at"}
    again, original = (
        read_json(d / "metadata.json") for d in (directory, path_of(first.directory))
    )
    for metadata in (again, original):
        for name in times:
            metadata.pop(name)
    assert json.dumps(again, sort_keys=True) == json.dumps(original, sort_keys=True)


def layered(made: Made, storage: Path, *layers: int) -> Chain:
    """Return the chain of a job that caches several layers."""
    settings = {**vars(made.settings), "storage": str(storage), "layers": layers}
    return Chain(CacheJobSettings(**settings))


def test_each_layer_of_one_pass_is_the_cache_that_it_is_alone(made: Made, tmp_path: Path) -> None:
    chain = layered(made, tmp_path / "storage", 4, 2)
    result = make(chain, "activations")
    assert result is not None
    assert (result.rows, result.rejected, result.resumed) == (64, 0, False)
    assert list(chain.caches) == [2, 4]
    # Names carry checksums: the deeper layer is the one that was made alone, to the bit.
    whole = contents(path_of(made.chain.activations.directory))
    assert chain.activations.id == made.chain.activations.id
    assert contents(path_of(chain.activations.directory)).keys() == whole.keys()
    shallow = replace(made.settings, model=replace(made.settings.model, layer=2))
    alone = Chain(replace(shallow, storage=str(tmp_path / "alone")))
    make(alone, "activations")
    assert chain.caches[2].id == alone.activations.id
    there, here = (path_of(one.directory) for one in (alone.activations, chain.caches[2]))
    assert contents(here).keys() == contents(there).keys()
    # The same token stands in the same row of every layer.
    rows = [
        CacheReader(cache.directory, cache.metadata()["data_files"]).read_rows(1, range(50))
        for cache in chain.caches.values()
    ]
    assert rows[0].sample_n.tolist() == rows[1].sample_n.tolist()
    assert rows[0].position_n.tolist() == rows[1].position_n.tolist()
    assert not rows[0].acts_nd.equal(rows[1].acts_nd)


def test_of_several_layers_only_what_one_lacks_is_done_again(made: Made, tmp_path: Path) -> None:
    chain = layered(made, tmp_path / "storage", 2, 4)
    shutil.copytree(path_of(made.chain.activations.directory), path_of(chain.activations.directory))
    before = contents(path_of(chain.activations.directory))
    result = make(chain, "activations")
    assert result is not None
    assert result.resumed
    after = contents(path_of(chain.activations.directory))
    same = [name for name in before if name.startswith("shard-")]
    assert len(same) == 6
    assert [after[name] for name in same] == [before[name] for name in same]
    assert chain.caches[2].metadata()["rows"] == 64


@pytest.mark.parametrize("layers", [(2, 2), (-1, 3)])
def test_impossible_layers_are_refused(made: Made, tmp_path: Path, layers: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match="layers"):
        layered(made, tmp_path, *layers)


def test_a_compressed_cache_trains_as_another(made: Made, tmp_path: Path) -> None:
    run = replace(made.settings.run, compress_cache="zstd")
    chain = Chain(replace(made.settings, storage=str(tmp_path / "storage"), run=run))
    make(chain, "saes")
    assert chain.activations.id == made.chain.activations.id
    data = chain.activations.metadata()["data_files"]
    assert data != made.chain.activations.metadata()["data_files"]
    packed, plain = reader_of(chain), reader_of(made.chain)
    for shard in range(len(data)):
        rows = range(plain.shard_rows[shard])
        assert packed.read_rows(shard, rows).acts_nd.equal(plain.read_rows(shard, rows).acts_nd)
    weights = "sae_weights.safetensors"
    here, there = (path_of(one.sae.directory) / weights for one in (chain, made.chain))
    assert here.read_bytes() == there.read_bytes()
