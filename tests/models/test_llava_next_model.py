from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raysae.errors import DataError, RejectedSampleError
from raysae.models import HiddenStateModel, ModelSettings, decode_image, load_hidden_state_model
from raysae.sample import ImagePart, Message, Modality, Sample, TextPart
from tests.models.tiny import PINPOINTS, build_processor, sample, save_model
from tests.reference.models import image_tokens

LAYER = 3
SAMPLES = [
    sample(((40, 30),), name="one"),
    sample((), text="No picture here, only rather many words of text.", name="text"),
    sample(((90, 20), (28, 28), (13, 200)), text="Which?", name="three"),
    sample(((300, 300),), name="large"),
]


@pytest.fixture
def load(model_directory: Path) -> Any:
    return lambda **settings: load_hidden_state_model(
        ModelSettings(path=str(model_directory), layer=LAYER, **settings)
    )


def prompt(given: Sample) -> str:
    images = "<image> " * len(given.images)
    return f"USER: \n{images}{given.messages[0].text}\nASSISTANT: "


def whole_run(
    model: Any, given: Sample, text: str, layer: int = LAYER, **kwargs: Any
) -> tuple[Any, Any]:
    """Ids and hidden states that transformers' own processor and whole model make."""
    images = [decode_image(image) for image in given.images] or None
    inputs = build_processor()(images=images, text=text, return_tensors="pt", **kwargs)
    with torch.no_grad():
        output = model.model(**inputs, output_hidden_states=True, use_cache=False)
    return inputs["input_ids"][0], output.hidden_states[layer + 1][0]


@pytest.mark.parametrize("given", SAMPLES, ids=lambda given: given.sample_id)
def test_equals_the_whole_model(tiny: HiddenStateModel, whole_model: Any, given: Sample) -> None:
    ready = tiny.prepare(given)
    ids, acts = whole_run(whole_model, given, prompt(given))
    assert ready.token_id_n.tolist() == ids.tolist()
    batch = tiny.hidden_states([ready])
    assert batch.acts_nd.dtype == torch.float32
    torch.testing.assert_close(batch.acts_nd, acts, atol=1e-6, rtol=0)


@pytest.mark.parametrize("style", ["legacy", "new", "single-file"])
def test_key_styles_give_the_same(
    tiny: HiddenStateModel, model_directories: dict[str, Path], style: str
) -> None:
    settings = ModelSettings(path=str(model_directories[style]), layer=LAYER)
    ready = tiny.prepare(SAMPLES[0])
    other = load_hidden_state_model(settings)
    assert other.hidden_states([ready]).acts_nd.equal(tiny.hidden_states([ready]).acts_nd)


def test_last_block_is_taken_before_the_norm(whole_model: Any, model_directory: Path) -> None:
    seen = []
    last = whole_model.model.language_model.layers[-1]
    handle = last.register_forward_hook(lambda _m, _i, output: seen.append(output))
    whole_run(whole_model, SAMPLES[0], prompt(SAMPLES[0]))
    handle.remove()
    model = load_hidden_state_model(ModelSettings(path=str(model_directory), layer=5))
    acts_nd = model.hidden_states([model.prepare(SAMPLES[0])]).acts_nd
    expected = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    torch.testing.assert_close(acts_nd, expected.reshape(acts_nd.shape), atol=1e-6, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_batched_equals_single(whole_model: Any, tmp_path: Path, side: str, attention: Any) -> None:
    directory = save_model(whole_model, tmp_path / side)
    build_processor(padding_side=side).save_pretrained(directory)
    settings = ModelSettings(path=str(directory), layer=LAYER, attention=attention)
    model = load_hidden_state_model(settings)
    ready = [model.prepare(given) for given in SAMPLES]
    batch = model.hidden_states(ready)
    start = 0
    for index, one in enumerate(ready):
        single = model.hidden_states([one])
        rows = slice(start, start + one.n_tokens)
        torch.testing.assert_close(batch.acts_nd[rows], single.acts_nd, atol=1e-5, rtol=0)
        assert (batch.sample_n[rows] == index).all()
        assert batch.token_id_n[rows].tolist() == one.token_id_n.tolist()
        assert batch.modality_n[rows].tolist() == one.modality_n.tolist()
        start += one.n_tokens
    assert len(batch) == start


def test_a_samples_rows_do_not_depend_on_its_neighbours_order(tiny: HiddenStateModel) -> None:
    ready = [tiny.prepare(given) for given in SAMPLES[:2]]
    forth, back = tiny.hidden_states(ready), tiny.hidden_states(ready[::-1])
    n = ready[0].n_tokens
    torch.testing.assert_close(forth.acts_nd[:n], back.acts_nd[-n:], atol=1e-5, rtol=0)


def test_chat_template_writes_bos_once(load: Any, whole_model: Any) -> None:
    model = load(template="chat")
    ready = model.prepare(sample(text="What?"))
    text = "<s>[INST] <image>\nWhat? [/INST]"
    ids, acts = whole_run(whole_model, sample(text="What?"), text, add_special_tokens=False)
    assert ready.token_id_n.tolist() == ids.tolist()
    assert ready.token_id_n.tolist().count(1) == 1
    torch.testing.assert_close(model.hidden_states([ready]).acts_nd, acts, atol=1e-6, rtol=0)


def test_answer_follows_the_question(load: Any) -> None:
    given = sample((), text="What?", chosen="a cat</s>")
    paper = load(text="question+answer")
    decoded = paper.decode_tokens(paper.prepare(given).token_id_n)
    assert decoded == "<s>USER: \nWhat?\nASSISTANT: a cat< /s>"
    chat = load(text="question+answer", template="chat").prepare(given)
    assert chat.token_id_n[-1] == 2
    assert chat.modality_n[-1] == Modality.SPECIAL


def test_template_that_raises_rejects(load: Any) -> None:
    given = Sample("a", 0, (Message("system", (TextPart("Hi"),)),), ())
    with pytest.raises(RejectedSampleError, match="no system messages"):
        load(template="chat").prepare(given)


def test_placeholder_in_text_is_no_image(tiny: HiddenStateModel) -> None:
    ready = tiny.prepare(sample(((40, 30),), text="Is <image> a word? </s><s>"))
    assert (ready.token_id_n == 3).sum() == ready.images[0].n_tokens
    assert (ready.modality_n == Modality.SPECIAL).sum() == 1
    assert "< image>" in tiny.decode_tokens(ready.token_id_n)


@pytest.mark.parametrize("newline", ["image", "special"])
def test_modality_of_newlines(load: Any, newline: str) -> None:
    ready = load(newline=newline).prepare(SAMPLES[2])
    sizes = [(20, 90), (28, 28), (200, 13)]
    slow = [box for h, w in sizes for box in image_tokens(h, w, PINPOINTS, 28, 7)]
    modality_m = ready.modality_n[ready.token_id_n == 3]
    expected = Modality[newline.upper()]
    assert [expected if box is None else Modality.IMAGE for box in slow] == modality_m.tolist()
    assert ready.modality_n[0] == Modality.SPECIAL
    assert (ready.modality_n[ready.token_id_n > 4] == Modality.TEXT).all()


def test_paper_mode_makes_every_image_a_square(load: Any) -> None:
    model = load(image_mode="paper-336")
    ready = model.prepare(sample(((200, 50), (20, 90))))
    assert [(image.height, image.width, image.n_tokens) for image in ready.images] == [
        (28, 28, 16 + 16 + 4)
    ] * 2
    assert len(ready.tensors["pixel_values"]) == 2 * 3


def test_boxes_equal_slow_twin(tiny: HiddenStateModel) -> None:
    given = SAMPLES[2]
    ready = tiny.prepare(given)
    positions = np.flatnonzero(ready.token_id_n == 3).tolist()
    sizes = [(20, 90), (28, 28), (200, 13)]
    slow = [
        (index, box)
        for index, (height, width) in enumerate(sizes)
        for box in image_tokens(height, width, PINPOINTS, 28, 7)
    ]
    expected = [
        (position, index, *box)
        for position, (index, box) in zip(positions, slow, strict=True)
        if box is not None
    ]
    boxes = [
        (b.position, b.image, b.left, b.top, b.right, b.bottom)
        for b in tiny.image_boxes(given, ready)
    ]
    np.testing.assert_allclose(boxes, expected, atol=1e-9)


def test_boxes_name_the_image_shown_not_its_turn(load: Any) -> None:
    first = sample(((40, 30), (90, 20)))
    turned = (Message("user", (ImagePart(1), ImagePart(0), TextPart("Which?"))),)
    model = load()
    given = replace(first, messages=turned)
    boxes = model.image_boxes(given, model.prepare(given))
    assert boxes[0].image == 1
    assert boxes[-1].image == 0


def test_boxes_of_another_sample(tiny: HiddenStateModel) -> None:
    with pytest.raises(ValueError, match="'one', not 'large'"):
        tiny.image_boxes(SAMPLES[3], tiny.prepare(SAMPLES[0]))


def test_a_black_patch_changes_its_own_tokens_first(tiny: HiddenStateModel) -> None:
    """Tokens before a changed patch's first token keep their hidden states: attention is causal."""
    ready = tiny.prepare(sample(((56, 56),)))
    changed = ready.tensors["pixel_values"].clone()
    changed[4, :, -7:, -7:] = 0  # the last patch of the last tile
    other = replace(ready, tensors={"pixel_values": changed})
    same_n = (tiny.hidden_states([ready]).acts_nd == tiny.hidden_states([other]).acts_nd).all(1)
    first = ready.images[0]
    base_and_upper_tiles = 4 + 16 + 4 * 9
    assert first.n_tokens == 16 + 8 * 9
    assert same_n[:base_and_upper_tiles].all()
    assert not same_n[4 + first.n_tokens - 2]


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 40), (2, 2)])
@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_tiny_and_thin_images(load: Any, size: tuple[int, int], backend: str) -> None:
    model = load(image_backend=backend)
    ready = model.prepare(sample((size,)))
    assert torch.isfinite(model.hidden_states([ready]).acts_nd).all()
    assert len(model.image_boxes(sample((size,)), ready)) >= 16


def test_bad_image_is_rejected(tiny: HiddenStateModel) -> None:
    with pytest.raises(RejectedSampleError, match="undecodable-image"):
        tiny.prepare(replace(SAMPLES[0], images=(b"no image",)))


def test_longer_than_the_model_is_rejected(tiny: HiddenStateModel) -> None:
    with pytest.raises(RejectedSampleError, match="too-long"):
        tiny.prepare(sample((), text="word " * 2000))


def test_half_precision(load: Any) -> None:
    model = load(dtype="bfloat16")
    ready = model.prepare(SAMPLES[0])
    assert ready.tensors["pixel_values"].dtype == torch.bfloat16
    acts_nd = model.hidden_states([ready]).acts_nd
    assert (acts_nd.dtype, acts_nd.requires_grad) == (torch.bfloat16, False)
    exact = load().hidden_states([load().prepare(SAMPLES[0])]).acts_nd
    assert (acts_nd.float() - exact).norm() / exact.norm() < 0.05


def test_features_that_do_not_fit_their_placeholders(tiny: HiddenStateModel) -> None:
    ready = tiny.prepare(SAMPLES[0])
    with pytest.raises(DataError, match="placeholders"):
        tiny.hidden_states([replace(ready, token_id_n=ready.token_id_n[:-60])])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu(tiny: HiddenStateModel, model_directory: Path) -> None:
    settings = ModelSettings(path=str(model_directory), layer=LAYER)
    model = load_hidden_state_model(settings, device="cuda")
    ready = [tiny.prepare(given) for given in SAMPLES]
    batch = model.hidden_states(ready)
    assert batch.acts_nd.device.type == "cuda"
    expected = tiny.hidden_states(ready).acts_nd
    torch.testing.assert_close(batch.acts_nd.cpu(), expected, atol=1e-4, rtol=0)
