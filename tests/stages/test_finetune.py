from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from raysae.artifacts import Artifact, ArtifactSpec
from raysae.errors import DataError, SettingsError
from raysae.finetune import FinetuneRunSettings, TrainingTask, train
from raysae.sample import Rejection
from raysae.stages import finetune as stage
from raysae.stages._outcome import Outcome
from raysae.stages._pool import cause_of_ours
from raysae.storage import Directory
from tests.finetune.tiny import RUN, preference_sample, save_tiny_model, settings_for
from tests.storages import at, path_of

ROWS = 10


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def samples():
    unusable = Rejection("row-99", 99, "truncated-image", "the image ends too early")
    return [*(preference_sample(number) for number in range(ROWS)), unusable]


def artifact_for(root: Path, settings) -> Artifact:
    return Artifact(at(root), ArtifactSpec("tuned", 1, {"lr": settings.lr}))


def names(metadata) -> list[str]:
    return [file["name"] for file in metadata["files"]]


def fit_here(task):
    """Stands in for Ray Train: one rank, in this process."""
    outcome = Outcome(task.artifact)
    with (
        tempfile.TemporaryDirectory() as scratch,
        outcome.work.fetched([stage.PREFERENCES_FILE]) as rows,
    ):
        output = Path(scratch) / "model"
        preferences = rows / stage.PREFERENCES_FILE
        training = TrainingTask(task.settings, task.run, task.model, preferences, output)
        result = train(training, Path(scratch) / "trainer")
        stage.claim_result(outcome, output, result)


@pytest.fixture
def without_ray(monkeypatch):
    monkeypatch.setattr(stage, "_fit", fit_here)


@pytest.mark.usefixtures("without_ray")
def test_a_finished_artifact_is_a_model_and_is_not_made_again(model, tmp_path, monkeypatch):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    settings = settings_for(model, max_steps=2, eval_fraction=0.2)
    artifact = artifact_for(tmp_path, settings)
    metadata = stage.run_finetune(settings, RUN, samples, artifact)

    counts = {"rows": 10, "rejected": 1, "train_rows": 8, "eval_rows": 2}
    assert {name: metadata[name] for name in counts} == counts
    assert metadata["rejections"] == {"truncated-image": 1}
    assert [step["step"] for step in metadata["steps"]] == [1, 2]
    assert metadata["held_out"]["pairs"] == 2
    assert metadata["settings"]["lr"] == settings.lr
    assert sorted(p.name for p in path_of(artifact.directory).iterdir()) == sorted(
        [*names(metadata), "metadata.json", "spec.json"]
    )
    AutoModelForImageTextToText.from_pretrained(path_of(artifact.directory))
    AutoProcessor.from_pretrained(path_of(artifact.directory))

    def nothing(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(stage, "_fit", nothing)
    assert stage.run_finetune(settings, RUN, nothing, artifact) == metadata


@pytest.mark.usefixtures("without_ray")
def test_a_run_killed_while_publishing_is_completed_without_training_again(
    model, tmp_path, monkeypatch
):
    settings = settings_for(model, max_steps=2)
    artifact = artifact_for(tmp_path, settings)
    copied = []

    def killed(directory, name, target):
        if len(copied) == 2:
            raise KeyboardInterrupt
        copied.append(name)
        copy_to(directory, name, target)

    copy_to = Directory.copy_to
    with monkeypatch.context() as patch:
        patch.setattr(Directory, "copy_to", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.run_finetune(settings, RUN, samples, artifact)
    assert not artifact.is_finished()

    monkeypatch.setattr(stage, "_fit", lambda *_: pytest.fail("trained again"))
    metadata = stage.run_finetune(settings, RUN, lambda: pytest.fail("read again"), artifact)
    for name in names(metadata):
        assert (path_of(artifact.directory) / name).is_file()
    assert not (path_of(artifact.directory) / "work").exists()


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(b"half")])
def test_half_a_model_is_never_published(model, tmp_path, monkeypatch, damage):
    settings = settings_for(model, max_steps=2)
    artifact = artifact_for(tmp_path, settings)

    def fit_and_damage(task):
        fit_here(task)
        (file,) = path_of(Outcome(task.artifact).work).glob("try-*/model.safetensors")
        damage(file)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "_fit", fit_and_damage)
        with pytest.raises(DataError, match=r"lacks files that .*outcome\.json lists"):
            stage.run_finetune(settings, RUN, samples, artifact)
    assert not artifact.is_finished()
    assert not list(path_of(artifact.directory).glob("*.safetensors"))

    (path_of(artifact.directory) / "work" / "outcome.json").unlink()
    assert "model.safetensors" in names(stage.run_finetune(settings, RUN, samples, artifact))


@pytest.mark.usefixtures("without_ray")
def test_a_run_that_was_overtaken_takes_the_other_ones_model(model, tmp_path, monkeypatch):
    settings = settings_for(model, max_steps=2)
    artifact = artifact_for(tmp_path, settings)
    overtaken = []

    def other_is_first(task):
        monkeypatch.setattr(stage, "_fit", fit_here)
        overtaken.append(stage.run_finetune(settings, RUN, samples, artifact))
        raise FileNotFoundError("the work directory is gone")

    monkeypatch.setattr(stage, "_fit", other_is_first)
    assert stage.run_finetune(settings, RUN, samples, artifact) == overtaken[0]
    assert not (path_of(artifact.directory) / "work").exists()


def test_an_interrupted_run_goes_on_with_the_same_workers_only(model, tmp_path, monkeypatch):
    def killed(task):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_fit", killed)
    settings = settings_for(model)
    artifact = artifact_for(tmp_path, settings)
    with pytest.raises(KeyboardInterrupt):
        stage.run_finetune(settings, RUN, samples, artifact)
    other = FinetuneRunSettings(workers=2, per_device_batch=1)
    with pytest.raises(SettingsError, match=r"had tune\.workers 1 and tune\.per_device_batch 2"):
        stage.run_finetune(settings, other, samples, artifact)


def test_too_many_rejected_rows_stop_the_job(model, tmp_path):
    bad = [Rejection(f"row-{n}", n, "undecodable-image", "noise") for n in range(8)]
    settings = settings_for(model)
    with pytest.raises(DataError, match="undecodable-image 8"):
        stage.run_finetune(settings, RUN, [*samples()[:4], *bad], artifact_for(tmp_path, settings))


def test_a_batch_that_cannot_be_cut_is_refused_before_anything_is_written(model, tmp_path):
    settings = settings_for(model, global_batch=5)
    with pytest.raises(SettingsError, match="no multiple"):
        stage.run_finetune(settings, RUN, samples, artifact_for(tmp_path, settings))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "has no config.json"),
        (["config.json", "pytorch_model.bin"], r"has no \*\.safetensors"),
    ],
)
def test_what_is_no_model_is_refused_by_its_own_setting(model, tmp_path, files, message):
    (tmp_path / "model").mkdir()
    for name in files:
        (tmp_path / "model" / name).write_bytes(b"{}")
    settings = settings_for(tmp_path / "model")
    with pytest.raises(SettingsError, match=rf"^finetune\.model: .*{message}"):
        stage.run_finetune(settings, RUN, samples, artifact_for(tmp_path / "s", settings))
    assert not (tmp_path / "s").exists()


def test_our_errors_are_found_inside_ray_trains():
    class WorkerGroupError(Exception):
        worker_failures = {}  # noqa: RUF012

    inner = RuntimeError("wrapped")
    inner.__cause__ = DataError("the loss of step 3 is nan")
    error = WorkerGroupError()
    error.worker_failures = {0: inner}
    assert str(cause_of_ours(error)) == "the loss of step 3 is nan"
    assert cause_of_ours(WorkerGroupError()) is None


@pytest.fixture
def ray_head(monkeypatch):
    import ray

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(num_cpus=2, include_dashboard=False, _temp_dir=f"/tmp/rs{os.getpid()}")
    yield
    ray.shutdown()


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_head")
def test_under_ray_train_a_killed_worker_resumes_with_the_same_losses(model, tmp_path, monkeypatch):
    """ZeRO-2 on one worker that dies before its second checkpoint, against an undisturbed run."""
    settings = settings_for(model, zero_stage=2, eval_fraction=0.2)
    mark = tmp_path / "died"

    def dies_once(config):
        import os

        from raysae.stages import finetune

        keep = finetune._keep_checkpoint

        def die_at_the_second(work, directory, metrics):
            if metrics["step"] == 4 and not mark.exists():
                mark.touch()
                os._exit(1)
            keep(work, directory, metrics)

        finetune._keep_checkpoint = die_at_the_second
        finetune._train_rank(config)

    monkeypatch.setattr(stage, "_train_rank", dies_once)
    metadata = stage.run_finetune(settings, RUN, samples, artifact_for(tmp_path / "a", settings))
    assert mark.exists()
    assert metadata["resumed_at_step"] == 2

    monkeypatch.setattr(stage, "_fit", fit_here)
    undisturbed = settings_for(model, zero_stage=0, eval_fraction=0.2)
    artifact = artifact_for(tmp_path / "b", undisturbed)
    expected = stage.run_finetune(undisturbed, RUN, samples, artifact)
    losses = [step["loss"] for step in metadata["steps"]]
    assert losses == pytest.approx([step["loss"] for step in expected["steps"]], abs=1e-5)
    assert losses[2] < 0.69
    assert metadata["held_out"] == pytest.approx(expected["held_out"], abs=1e-4)
    assert names(artifact.metadata()) == names(metadata)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_head")
def test_ranks_restarted_after_the_model_was_written_leave_it_alone(model, tmp_path, monkeypatch):
    settings = settings_for(model, max_steps=2)
    artifact = artifact_for(tmp_path, settings)
    results = tmp_path / "results"

    def dies_at_the_end(config):
        import os
        import time

        from raysae.stages import finetune

        finetune._train_rank(config)
        from raysae.stages._outcome import Outcome

        written = Outcome(config["task"].artifact).work.read_bytes("outcome.json")
        if not results.exists():
            results.write_bytes(written)
            time.sleep(3)  # longer than the ranks take to be started
            os._exit(1)
        assert written == results.read_bytes()

    monkeypatch.setattr(stage, "_train_rank", dies_at_the_end)
    metadata = stage.run_finetune(settings, RUN, samples, artifact)
    assert results.exists()
    assert json.loads(results.read_bytes())["files"] == metadata["files"]
