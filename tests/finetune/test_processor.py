"""What the model is shown: BOS once, every image token, and labels of answers only."""

from __future__ import annotations

import json

import pytest

from raysae.errors import RejectedSampleError, SettingsError
from raysae.finetune.data import image_sizes, open_preferences, preference_row
from raysae.finetune.processor import load_processor, row_rules, training_processor
from raysae.sample import ImagePart, Message, TextPart
from tests.finetune.tiny import preference_sample, save_tiny_model, write_rows
from tests.models.tiny import CHAT_TEMPLATE, encode, picture

WITH_BOS = CHAT_TEMPLATE
WITHOUT_BOS = CHAT_TEMPLATE.removeprefix("{{ bos_token }}")


@pytest.fixture(scope="module", params=[WITH_BOS, WITHOUT_BOS], ids=["bos", "no-bos"])
def either_model(request, tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("processor") / "m", request.param)


def collate(processor, rows):
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    return DataCollatorForVisionPreference(processor, max_length=None)(rows)


def test_bos_is_present_exactly_once(either_model, tmp_path):
    processor = training_processor(either_model)
    rows = open_preferences(write_rows(either_model, tmp_path / "rows.arrow", 4))
    batch = collate(processor, [rows[index] for index in range(4)])
    bos = processor.tokenizer.bos_token_id
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        assert ids[mask.bool()][0] == bos
        assert (ids == bos).sum() == 1


def test_the_models_own_template_is_left_alone(either_model):
    template = (either_model / "chat_template.jinja").read_text()
    assert load_processor(either_model).chat_template == template
    assert training_processor(either_model).chat_template.count("bos_token") == 1


def test_labels_are_the_answers_and_nothing_else(model, rows):
    processor = training_processor(model)
    four = [open_preferences(rows)[index] for index in range(4)]
    answers = [row["chosen"][0]["content"] for row in four]
    answers += [row["rejected"][0]["content"] for row in four]
    batch = collate(processor, four)
    for ids, mask, answer in zip(
        batch["input_ids"], batch["completion_mask"], answers, strict=True
    ):
        assert processor.tokenizer.decode(ids[mask.bool()]) == f" {answer}</s>"
    assert not (batch["input_ids"][batch["completion_mask"].bool()] == 3).any()


def test_no_image_token_is_cut(model, rows):
    processor = training_processor(model)
    four = [open_preferences(rows)[index] for index in range(4)]
    batch = collate(processor, four)
    sizes = [[row["images"][0].height, row["images"][0].width] for row in four]
    expected = processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]
    found = (batch["input_ids"] == processor.image_token_id).sum(dim=1).tolist()
    assert found == expected * 2


def test_the_counted_length_is_the_length_that_is_trained_on(model):
    processor = training_processor(model)
    rules = row_rules(processor, max_tokens=100)
    turn = Message("user", (ImagePart(0), ImagePart(1), TextPart("which one is older?")))
    images = (encode(picture(70, 30)), encode(picture(25, 60)))
    for sample in (preference_sample(3), preference_sample(4, messages=(turn,), images=images)):
        row = preference_row(sample, rules.control_tokens)
        counted = rules.count_tokens(row, image_sizes(row))
        from raysae.models import decode_image

        decoded = {**row, "images": [decode_image(data) for data in row["images"]]}
        batch = collate(processor, [decoded])
        assert counted == batch["attention_mask"].sum(dim=1).max()


def test_control_tokens_are_all_that_the_tokenizer_knows(model):
    rules = row_rules(training_processor(model), max_tokens=100)
    assert {"<s>", "</s>", "<image>", "<pad>", "<unk>"} <= set(rules.control_tokens)


def test_a_conversation_that_the_template_refuses_is_rejected(model):
    rules = row_rules(training_processor(model), max_tokens=100)
    system = Message("system", (TextPart("be brief"),))
    sample = preference_sample(1)
    sample = preference_sample(1, messages=(system, *sample.messages))
    row = preference_row(sample, rules.control_tokens)
    with pytest.raises(RejectedSampleError, match="no system messages"):
        rules.count_tokens(row, image_sizes(row))


def test_the_image_backend_is_pinned(model):
    assert not type(load_processor(model).image_processor).__name__.endswith("Pil")


def test_a_directory_without_a_template_or_processor_is_refused(model, tmp_path):
    with pytest.raises(SettingsError, match="no usable processor"):
        load_processor(tmp_path)
    for file in model.iterdir():
        if file.name != "chat_template.jinja" and file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "processor_config.json").read_bytes())
    assert "chat_template" not in config
    with pytest.raises(SettingsError, match="no chat template"):
        load_processor(tmp_path)
