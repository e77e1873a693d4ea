from __future__ import annotations

import pyarrow as pa
import pytest

from raysae.errors import DataError, RejectedSampleError
from raysae.finetune.data import (
    PREFERENCE_SCHEMA,
    RowRules,
    image_sizes,
    open_preferences,
    preference_row,
    write_preferences,
)
from raysae.sample import ImagePart, Message, Rejection, TextPart
from tests.finetune.tiny import preference_sample
from tests.models.tiny import encode, picture

CONTROL = ("<image>", "<s>")
RULES = RowRules(CONTROL, lambda row, sizes: 10 * len(sizes), max_tokens=25)


def test_a_sample_becomes_a_conversational_row():
    sample = preference_sample(1, chosen="a cat", rejected="a dog")
    row = preference_row(sample, CONTROL)
    assert row == {
        "sample_id": "row-1",
        "images": [sample.images[0]],
        "prompt": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "text": ""},
                    {"type": "text", "text": "What is shown in picture 1?"},
                ],
            }
        ],
        "chosen": [{"role": "assistant", "content": "a cat"}],
        "rejected": [{"role": "assistant", "content": "a dog"}],
    }


def test_images_follow_the_messages_not_the_samples_list():
    first, second = encode(picture(20, 30)), encode(picture(40, 50))
    turn = Message("user", (ImagePart(1), TextPart("and"), ImagePart(0)))
    row = preference_row(preference_sample(1, messages=(turn,), images=(first, second)), CONTROL)
    assert row["images"] == [second, first]
    assert [part["type"] for part in row["prompt"][0]["content"]] == ["image", "text", "image"]


def test_control_tokens_in_texts_are_read_as_text():
    turn = Message("user", (ImagePart(0), TextPart("what does <image> mean")))
    row = preference_row(preference_sample(1, messages=(turn,), chosen="<s>struck</s>"), CONTROL)
    assert "<image>" not in row["prompt"][0]["content"][1]["text"]
    assert not row["chosen"][0]["content"].startswith("<s>")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chosen": None}, "no-preference"),
        ({"rejected": " "}, "empty-answer"),
        ({"chosen": "same", "rejected": "same"}, "equal-answers"),
        ({"messages": (Message("user", (TextPart("no picture"),)),)}, "no-image"),
        ({"messages": (Message("user", (ImagePart(0), TextPart(" "))),)}, "empty-question"),
        ({"images": ()}, "no-image"),
    ],
)
def test_an_unusable_sample_is_rejected_with_its_reason(changes, reason):
    with pytest.raises(RejectedSampleError) as caught:
        preference_row(preference_sample(1, **changes), CONTROL)
    assert caught.value.reason == reason


def test_a_truncated_image_is_found_by_decoding():
    sample = preference_sample(1)
    row = preference_row(sample, CONTROL)
    assert image_sizes(row) == [row_size(sample.images[0])]
    row["images"] = [sample.images[0][:-200]]
    with pytest.raises(RejectedSampleError) as caught:
        image_sizes(row)
    assert caught.value.reason == "truncated-image"


def row_size(encoded):
    import io

    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        return image.height, image.width


def test_rows_in_are_rows_out_plus_rejections(tmp_path):
    three = (ImagePart(0), ImagePart(0), ImagePart(0), TextPart("long"))
    samples = [
        preference_sample(0),
        Rejection("row-1", 1, "image-bomb", "huge"),
        preference_sample(2, chosen=None),
        preference_sample(3, messages=(Message("user", three),)),
        *(preference_sample(number) for number in range(4, 80)),
    ]
    path = tmp_path / "rows.arrow"
    counts = write_preferences(samples, path, RULES)
    assert counts.rows == 77
    assert counts.rejected == {"image-bomb": 1, "no-preference": 1, "too-long": 1}
    assert [rejection.sample_id for rejection in counts.rejections] == ["row-1", "row-2", "row-3"]
    with pa.ipc.open_stream(str(path)) as stream:
        table = stream.read_all()
    assert table.schema == PREFERENCE_SCHEMA
    assert table["sample_id"].to_pylist() == ["row-0", *(f"row-{n}" for n in range(4, 80))]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.arrow"]


def test_an_opened_file_decodes_images_to_upright_rgb_on_white(tmp_path):
    from PIL import Image

    clear = Image.new("RGBA", (20, 30), (255, 0, 0, 0))
    samples = [preference_sample(0, images=(encode(clear),)), preference_sample(1)]
    write_preferences(samples, tmp_path / "rows.arrow", RULES)
    rows = open_preferences(tmp_path / "rows.arrow").select([1, 0])
    image = rows[1]["images"][0]
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (20, 30), (255, 255, 255))
    assert rows[0]["chosen"] == [{"role": "assistant", "content": preference_sample(1).chosen}]
    assert "images" not in rows.remove_columns("images")[0]


def test_too_few_rows_are_an_error(tmp_path):
    with pytest.raises(DataError, match="1 of 2 rows can be trained on"):
        write_preferences(
            [preference_sample(0), preference_sample(1, chosen=None)],
            tmp_path / "rows.arrow",
            RULES,
        )
