from __future__ import annotations

import shutil

import pytest

from raysae.errors import DataError
from raysae.finetune import FinetuneRunSettings, train
from raysae.finetune.data import open_preferences
from raysae.finetune.model import load_model
from raysae.finetune.order import reading_order
from raysae.finetune.processor import training_processor
from raysae.finetune.trainer import build_trainer, training_arguments
from tests.finetune.tiny import RUN, forget_accelerate, settings_for, task_for
from tests.reference.dpo import answer_log_probability, dpo_loss


@pytest.fixture(autouse=True)
def fresh_accelerate():
    yield
    forget_accelerate()


@pytest.fixture(scope="module")
def whole(model, rows, tmp_path_factory):
    """An undisturbed run of four steps: result, checkpoint after step 2, tuned model."""
    root = tmp_path_factory.mktemp("whole")
    kept = []

    def keep(directory, metrics):
        kept.append((directory, dict(metrics)))

    result = train(task_for(model, rows, root / "out"), root / "scratch", None, keep)
    forget_accelerate()
    assert [metrics["step"] for _, metrics in kept] == [2, 4]
    return result, kept[0][0], root / "out"


def test_the_arguments_that_differ_from_trls(model, tmp_path):
    settings = settings_for(model, lr=1e-6, warmup_steps=10, scheduler="cosine")
    arguments = training_arguments(settings, RUN, 20, tmp_path)
    assert arguments.max_length is None
    assert arguments.bf16 is False
    assert arguments.use_cpu is True
    assert arguments.optim == "adamw_torch"
    assert arguments.train_sampling_strategy == "sequential"
    assert arguments.logging_nan_inf_filter is False
    assert arguments.lr_scheduler_type == "cosine"
    assert arguments.get_warmup_steps(20) == 10
    assert arguments.gradient_accumulation_steps == 2
    assert arguments.report_to == []
    assert training_arguments(settings_for(model, dtype="bfloat16"), RUN, 20, tmp_path).bf16


def test_the_losses_are_those_of_the_formula(model, rows, whole):
    """Steps 1 and 3: against the first weights, and from the weights after step 2."""
    result, checkpoint, _ = whole
    data = open_preferences(rows)
    order = reading_order(len(data), 4, 4, 42)
    reference, policy = load_model(model, "float32"), load_model(checkpoint, "float32")
    before, after = [], []
    for row in order[8:12]:
        batch = collate(training_processor(model), data[int(row)])
        before.append([answer_log_probability(reference, batch, half) for half in (0, 1)])
        after.append([answer_log_probability(policy, batch, half) for half in (0, 1)])
    assert result["steps"][0]["loss"] == pytest.approx(dpo_loss(before, before, 0.1), abs=1e-6)
    assert result["steps"][2]["loss"] == pytest.approx(dpo_loss(after, before, 0.1), abs=1e-5)


def collate(processor, row):
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    return dict(DataCollatorForVisionPreference(processor)([row]))


def test_training_lowers_the_loss(whole):
    losses = [step["loss"] for step in whole[0]["steps"]]
    assert losses[0] == pytest.approx(0.693147, abs=1e-6)
    assert losses[-1] < 0.65
    assert whole[0]["steps"][-1]["reward_margin"] > 0.1
    assert whole[0]["held_out"] == {}


def test_a_resumed_run_has_the_weights_of_the_interrupted_one(model, rows, whole, tmp_path):
    """Not so in transformers: it goes on from the first weights, with a loss of 0.693 again."""
    result, checkpoint, _ = whole
    resumed = train(task_for(model, rows, tmp_path / "out"), tmp_path / "scratch", checkpoint)
    assert resumed["resumed_at_step"] == 2
    losses = [[step["loss"] for step in run["steps"]] for run in (result, resumed)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    assert losses[1][2] < 0.68


def test_a_run_killed_after_its_last_step_only_writes_the_model(model, rows, whole, tmp_path):
    result, checkpoint, _ = whole
    last = checkpoint.with_name("checkpoint-4")
    resumed = train(task_for(model, rows, tmp_path / "out"), tmp_path / "scratch", last)
    assert resumed["resumed_at_step"] == 4
    assert resumed["steps"] == result["steps"]
    assert (tmp_path / "out" / "config.json").is_file()


def test_micro_batches_do_not_change_the_steps(model, rows, whole, tmp_path):
    run = FinetuneRunSettings(per_device_batch=4, gradient_checkpointing=True)
    other = train(task_for(model, rows, tmp_path / "out", run), tmp_path / "scratch")
    for ours, theirs in zip(other["steps"], whole[0]["steps"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


def test_the_frozen_tower_does_not_move_and_everything_else_does(model, whole):
    before = load_model(model, "float32").state_dict()
    after = load_model(whole[2], "float32").state_dict()
    for name, weight in before.items():
        moved = bool((weight != after[name]).any())
        assert moved == ("vision_tower" not in name), name


def test_a_loss_that_is_no_number_stops_the_run(model, rows, tmp_path):
    task = task_for(model, rows, tmp_path / "out", lr=1e30)
    with pytest.raises(DataError, match=r"loss of step \d is nan; lower finetune.lr"):
        train(task, tmp_path / "scratch")
    assert not (tmp_path / "out").exists()


def test_the_steps_follow_the_given_order(model, rows, tmp_path):
    data = open_preferences(rows)
    ordered = data.select([3, 1, 0, 2])
    trainer = build_trainer(task_for(model, rows, tmp_path / "out"), ordered, tmp_path / "scratch")
    assert trainer.args.max_steps == 1
    texts = [
        trainer.processing_class.tokenizer.decode(ids)
        for batch in trainer.get_train_dataloader()
        for ids in batch["input_ids"][:2]
    ]
    numbers = [text.split("picture ")[1].split("?")[0] for text in texts]
    assert numbers == ["3", "1", "0", "2"]
    shutil.rmtree(tmp_path / "scratch", ignore_errors=True)
