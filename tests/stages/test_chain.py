from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from raysae.activations import CacheSettings
from raysae.corpora import CorpusSettings
from raysae.corpora.columns import ColumnMap
from raysae.errors import SettingsError
from raysae.finetune import FinetuneRunSettings, FinetuneSettings
from raysae.models import ModelSettings
from raysae.scoring import (
    SAE_SCORERS,
    SCORERS,
    UNIMODAL_SCORERS,
    ScoreSettings,
    SelectionSettings,
    WeightSettings,
)
from raysae.settings import RunSettings, parse_settings
from raysae.stages.chain import (
    Chain,
    ChainSettings,
    FinetuneJobSettings,
    ShardSettings,
    TrainRunSettings,
)
from tests.corpora.rows import row, write_rows
from tests.stages.chains import TINY_SAE, small_settings

KINDS = ("activations", "sae", "weights", "scores", "subset", "report", "tuned")


@pytest.fixture(scope="module")
def settings(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneJobSettings:
    small = small_settings(tmp_path_factory.mktemp("storage"), tiny_model)
    parts = {name: getattr(small, name) for name in asdict(small)}
    return FinetuneJobSettings(**parts)


def ids(settings: ChainSettings) -> dict[str, Any]:
    chain = Chain(settings)
    shards = chain.shards(chain.corpus)
    return {
        kind: [chain.row_group(shard, scorer).key for shard in shards for scorer in SCORERS]
        if kind == "scores"
        else getattr(chain, kind).id
        for kind in KINDS
    }


@pytest.fixture(scope="module")
def before(settings: FinetuneJobSettings) -> dict[str, Any]:
    return ids(settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"run": RunSettings(1, 4, 0.5, 0.0, 100, 1, 0.9, 7.0)},
        {"train": TrainRunSettings(4, 0.5, 1, 7, 0)},
        {"tune": FinetuneRunSettings(workers=2, checkpoint_steps=3)},
        {"plan": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_how_a_job_runs_is_part_of_no_id(
    settings: FinetuneJobSettings, before: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert ids(replace(settings, **changes)) == before


def test_where_storage_and_model_lie_is_part_of_no_id(
    settings: FinetuneJobSettings, before: dict[str, Any], tmp_path: Path
) -> None:
    model = shutil.copytree(settings.model.path, tmp_path / "elsewhere" / "renamed")
    (model / "README.md").write_text("now with a README")
    moved = replace(
        settings,
        storage=str(tmp_path / "s"),
        model=replace(settings.model, path=str(model)),
        finetune=replace(settings.finetune, model=str(model)),
    )
    assert ids(moved) == before
    assert str(settings.model.path) not in str(Chain(moved).activations.spec.to_json())


def test_the_content_of_a_model_is_part_of_every_id_that_it_decides(
    settings: FinetuneJobSettings, before: dict[str, Any], tmp_path: Path
) -> None:
    model = shutil.copytree(settings.model.path, tmp_path / "model")
    file = model / "tokenizer_config.json"
    file.write_text(file.read_text() + "\n")
    after = ids(replace(settings, model=replace(settings.model, path=str(model))))
    assert all(after[kind] != before[kind] for kind in KINDS)


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"sae_corpus": CorpusSettings("builtin", max_rows=63)}, "activations"),
        ({"cache": CacheSettings(tokens_per_sample=3)}, "activations"),
        ({"shards": ShardSettings(max_rows=16)}, "activations"),
        ({"sae": replace(TINY_SAE, seed=1)}, "sae"),
        ({"corpus": CorpusSettings("builtin-noisy", max_rows=64)}, "weights"),
        ({"weights": WeightSettings(n_samples=48, seed=1)}, "weights"),
        ({"score": ScoreSettings(threshold=2.0)}, "scores"),
        ({"select": SelectionSettings(fraction=0.25)}, "subset"),
        ({"finetune": FinetuneSettings(model="", beta=0.2)}, "tuned"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_setting_changes_what_it_decides_and_nothing_before_it(
    settings: FinetuneJobSettings, before: dict[str, Any], changes: dict[str, Any], first: str
) -> None:
    after = ids(replace(settings, **changes))
    changed = [kind for kind in KINDS if after[kind] != before[kind]]
    assert changed == list(KINDS[KINDS.index(first) :])


@pytest.mark.parametrize("name", [f for f in asdict(ModelSettings()) if f != "path"])
def test_every_other_field_of_the_model_is_part_of_the_ids(
    settings: FinetuneJobSettings, name: str
) -> None:
    other = {
        "layer": 2,
        "dtype": "bfloat16",
        "attention": "eager",
        "image_backend": "pil",
        "template": "chat",
        "text": "question+answer",
        "newline": "special",
        "image_mode": "paper-336",
        "images": "drop",
    }
    changed = replace(settings, model=replace(settings.model, **{name: other[name]}))
    assert Chain(changed).activations.id != Chain(settings).activations.id


def test_all_scores_are_keyed_by_what_decides_which_rows_are_usable(
    settings: FinetuneJobSettings,
) -> None:
    longer = replace(settings.model, text="question+answer")
    one, other = Chain(settings), Chain(replace(settings, model=longer))
    shard = one.shards(one.corpus)[0]
    for scorer in SCORERS:
        assert one.row_group(shard, scorer).lineage != other.row_group(shard, scorer).lineage


def test_scores_that_need_no_sae_are_not_keyed_by_one(settings: FinetuneJobSettings) -> None:
    one, other = Chain(settings), Chain(replace(settings, sae=replace(TINY_SAE, seed=1)))
    for shard in one.shards(one.corpus):
        same = {s for s in SCORERS if one.row_group(shard, s) == other.row_group(shard, s)}
        assert same == set(SCORERS) - set(SAE_SCORERS) == {"random"}


def users_corpus(settings: FinetuneJobSettings, path: Path) -> FinetuneJobSettings:
    corpus = CorpusSettings("align-anything", str(path))
    return replace(settings, sae_corpus=corpus, corpus=corpus, shards=ShardSettings(max_rows=2))


def test_where_a_corpus_lies_is_part_of_no_id(
    settings: FinetuneJobSettings, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "a" / "x.parquet", [row(), row(question="Why?")])
    (tmp_path / "b").mkdir()
    shutil.copy(file, tmp_path / "b" / "x.parquet")
    (tmp_path / "b" / "README.md").write_text("a README")
    one, other = (ids(users_corpus(settings, tmp_path / name)) for name in "ab")
    assert one == other


def test_shards_do_not_span_files_and_follow_the_bound(
    settings: FinetuneJobSettings, tmp_path: Path
) -> None:
    for name, rows in (("a", 3), ("b", 4)):
        write_rows(tmp_path / f"{name}.parquet", [row(question=f"{name}{n}?") for n in range(rows)])
    chain = Chain(users_corpus(settings, tmp_path))
    shards = chain.shards(chain.corpus)
    assert [(s.file_index, s.start, s.stop, s.first_ordinal) for s in shards] == [
        (0, 0, 2, 0),
        (0, 2, 3, 2),
        (1, 0, 2, 3),
        (1, 2, 4, 5),
    ]


def test_stored_ordinals_are_never_taken_for_those_of_another_corpus(
    settings: FinetuneJobSettings, tmp_path: Path
) -> None:
    """The same file behind a new one, or twice, has other ordinals: other row groups, then."""
    rows = [row(question=f"b{n}?") for n in range(2)]
    write_rows(tmp_path / "one" / "b.parquet", rows)
    write_rows(tmp_path / "two" / "a.parquet", [row(question="new?")])
    write_rows(tmp_path / "two" / "b.parquet", rows)
    write_rows(tmp_path / "two" / "c.parquet", rows)
    alone, behind = (Chain(users_corpus(settings, tmp_path / name)) for name in ("one", "two"))
    (shard,), shards = alone.shards(alone.corpus), behind.shards(behind.corpus)
    for scorer in SCORERS:
        keys = [behind.row_group(other, scorer).key for other in shards]
        assert len({alone.row_group(shard, scorer).key, *keys}) == 4


def test_bytes_bound_the_rows_of_a_shard(settings: FinetuneJobSettings) -> None:
    def rows(max_bytes: int) -> int:
        bounds = ShardSettings(max_rows=32, max_bytes=max_bytes)
        return Chain(replace(settings, shards=bounds)).rows_per_shard

    assert rows(1 << 30) == 32
    assert rows(1) == 1
    assert 1 < rows(1 << 20) < 32
    assert rows(1 << 21) >= 2 * rows(1 << 20)


def test_one_corpus_is_opened_once(settings: FinetuneJobSettings) -> None:
    chain = Chain(replace(settings, sae_corpus=settings.corpus))
    assert chain.corpus is chain.sae_corpus
    assert Chain(settings).corpus is not Chain(settings).sae_corpus


def test_an_unknown_scorer_is_named_before_anything_runs(settings: FinetuneJobSettings) -> None:
    with pytest.raises(SettingsError, match=r"^select\.scorer: 'clip'.*cosine-union"):
        _ = Chain(replace(settings, select=SelectionSettings("clip"))).subset


def test_the_model_that_is_tuned_is_the_one_that_was_read_unless_named(
    settings: FinetuneJobSettings,
) -> None:
    assert Chain(settings).finetune.model == settings.model.path
    named = replace(settings, finetune=FinetuneSettings(model="builtin-llava-next"))
    assert Chain(named).finetune.model == "builtin-llava-next"


@pytest.mark.parametrize("path", ["models/m", "~/models/m"])
def test_a_models_path_is_resolved_once_and_changes_no_id(
    settings: FinetuneJobSettings,
    before: dict[str, Any],
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Workers have another working directory, and perhaps another home."""
    model = shutil.copytree(settings.model.path, tmp_path / "models" / "m")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    named = replace(
        settings,
        model=replace(settings.model, path=path),
        finetune=replace(settings.finetune, model=path),
    )
    chain = Chain(named)
    assert chain.settings.model.path == str(model)
    assert chain.finetune.model == str(model)
    assert ids(named) == before
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    assert chain.model_content["fingerprint"] == Chain(settings).model_content["fingerprint"]


def test_a_shipped_models_name_stays(tmp_path: Path) -> None:
    chain = Chain(ChainSettings(storage=str(tmp_path)))
    assert chain.settings.model.path == "builtin-llava-next"


@pytest.mark.parametrize("field", ["model.path", "finetune.model"])
def test_a_missing_model_is_named_by_its_own_setting(
    settings: FinetuneJobSettings, field: str
) -> None:
    wrong = (
        replace(settings, model=replace(settings.model, path="/nowhere"))
        if field == "model.path"
        else replace(settings, finetune=FinetuneSettings(model="/nowhere"))
    )
    with pytest.raises(SettingsError, match=rf"^{field}: '/nowhere'"):
        Chain(wrong)


def test_storage_below_a_file_is_refused(settings: FinetuneJobSettings, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="cannot hold artifacts"):
        Chain(replace(settings, storage=str(tmp_path / "file" / "storage")))


def test_what_is_read_of_a_corpus_is_part_of_the_ids(
    settings: FinetuneJobSettings, tmp_path: Path
) -> None:
    """The same file under another map is other samples; another path or pattern is not."""
    for name in ("here", "there"):
        write_rows(tmp_path / name / "train-0.parquet", [row(), row(response_1="A bird.")])

    def made(path: str, files: str = "", **columns: str) -> tuple[str, str]:
        map_ = ColumnMap(**{"question": "question", "image": "image", **columns})
        corpus = CorpusSettings("generic", str(tmp_path / path), files=files, columns=map_)
        chain = Chain(replace(settings, corpus=corpus))
        (shard,) = chain.shards(chain.corpus)
        return chain.snapshot.id, chain.row_group(shard, SCORERS[0]).key

    plain = made("here")
    assert made("there") == made("here", files="train*") == plain
    for columns in ({"question": "critique"}, {"chosen": "response_1"}, {"id": "critique"}):
        other = made("here", **columns)
        assert other[0] != plain[0]
        assert other[1] != plain[1]


def test_scores_that_compare_modalities_need_images(
    settings: FinetuneJobSettings, tmp_path: Path
) -> None:
    write_rows(tmp_path / "a.parquet", [row()])
    text = CorpusSettings("generic", str(tmp_path), columns=ColumnMap(question="question"))
    dropping = replace(settings.model, images="drop")
    for changed in (replace(settings, corpus=text), replace(settings, model=dropping)):
        with pytest.raises(SettingsError, match=r"^select\.scorer: 'cosine-cooccurring' compares"):
            _ = Chain(changed).subset
        for scorer in UNIMODAL_SCORERS:
            assert Chain(replace(changed, select=SelectionSettings(scorer=scorer))).subset


def test_fine_tuning_needs_two_answers(settings: FinetuneJobSettings, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row()])
    columns = ColumnMap(question="question", image="image", chosen="response_1")
    one = replace(settings, corpus=CorpusSettings("generic", str(tmp_path), columns=columns))
    with pytest.raises(SettingsError, match=r"^corpus: fine-tuning compares two answers"):
        _ = Chain(one).tuned
    both = replace(columns, rejected="response_2")
    assert Chain(replace(one, corpus=replace(one.corpus, columns=both))).tuned


def test_longer_rows_make_smaller_shards(settings: FinetuneJobSettings) -> None:
    shards = ShardSettings(max_rows=10**6, max_bytes=1 << 20)
    usual = Chain(replace(settings, shards=shards))
    longer = Chain(replace(settings, shards=replace(shards, row_tokens=4 * usual.row_tokens)))
    assert longer.rows_per_shard == usual.rows_per_shard // 4
    with pytest.raises(SettingsError, match=r"^shards\.row_tokens"):
        ShardSettings(row_tokens=-1)


def test_a_model_that_cannot_be_tuned_is_refused_before_anything_is_made(
    settings: FinetuneJobSettings, tmp_path: Path
) -> None:
    model = shutil.copytree(settings.model.path, tmp_path / "model")
    config = model / "config.json"
    config.write_text(config.read_text().replace('"llava_next"', '"llava"'))
    tuning = replace(settings.finetune, model=str(model))
    with pytest.raises(SettingsError, match=r"^finetune\.model: .*'llava'.*can be fine-tuned"):
        _ = Chain(replace(settings, finetune=tuning)).tuned


@pytest.mark.parametrize("in_file", [False, True])
def test_the_layer_of_a_users_model_is_asked_for(
    tiny_model: Path, tmp_path: Path, *, in_file: bool
) -> None:
    """Defaults are filled in before the path is known: the shipped model's block is not for all."""
    argv = ["--model", str(tiny_model), "--storage", str(tmp_path / "storage")]
    if in_file:
        (tmp_path / "x.yaml").write_text(f"model: {{path: {tiny_model}}}\n")
        argv = ["--config", str(tmp_path / "x.yaml"), *argv[2:]]
    with pytest.raises(SettingsError, match=r"^model\.layer: say after which block"):
        _ = Chain(parse_settings(ChainSettings, argv, "filter", "")).forward
    shipped = parse_settings(ChainSettings, argv[2:], "filter", "")
    assert Chain(shipped).model_content["layer"] == 4
