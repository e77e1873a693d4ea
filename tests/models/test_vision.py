"""What every vision-language model does alike, held against transformers' own whole models."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from raysae.errors import DataError, RejectedSampleError, SettingsError
from raysae.sample import ImagePart, Message, Modality, Sample, TextPart
from tests.models.families import LAYER, SAMPLES, Family, equals_single, prompt, whole_run
from tests.models.tiny import BLOCKS, TILE, encode, picture, sample, save_model


@pytest.mark.parametrize("given", SAMPLES, ids=lambda given: given.sample_id)
@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_equals_the_whole_model(family: Family, given: Sample, backend: str) -> None:
    model = family.load(image_backend=backend)
    processor = family.build_processor()
    processor.image_processor = model._image_processor
    ids, acts = whole_run(family.whole_model, processor, given, prompt(given))
    ready = model.prepare(given)
    assert ready.token_id_n.tolist() == ids
    batch = model.hidden_states([ready])
    assert batch.acts_nd.dtype == torch.float32
    torch.testing.assert_close(batch.acts_nd, acts, atol=1e-6, rtol=0)


@pytest.mark.parametrize("style", ["legacy", "new", "single-file"])
def test_key_styles_give_the_same(family: Family, style: str) -> None:
    published, other = family.load(), family.load(style)
    ready = published.prepare(SAMPLES[0])
    acts_nd = published.hidden_states([ready]).acts_nd
    assert other.hidden_states([ready]).acts_nd.equal(acts_nd)


def test_last_block_is_taken_before_the_norm(family: Family) -> None:
    seen = []
    last = family.whole_model.model.language_model.layers[-1]
    handle = last.register_forward_hook(lambda _m, _i, output: seen.append(output))
    family.whole_run(SAMPLES[0], prompt(SAMPLES[0]))
    handle.remove()
    model = family.load(layer=BLOCKS - 1)
    acts_nd = model.hidden_states([model.prepare(SAMPLES[0])]).acts_nd
    expected = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    torch.testing.assert_close(acts_nd, expected.reshape(acts_nd.shape), atol=1e-6, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_batched_equals_single(family: Family, tmp_path: Path, side: str, attention: str) -> None:
    processor = family.build_processor(padding_side=side)
    directory = save_model(family.whole_model, tmp_path / side, processor)
    family = replace(family, directories={"published": directory})
    equals_single(family.load(attention=attention), SAMPLES)


def test_several_layers_of_one_pass_are_those_of_models_cut_there(family: Family) -> None:
    ready = [family.load().prepare(given) for given in SAMPLES]
    found = family.load().hidden_states_at(ready, [2, 0, LAYER])
    assert list(found) == [2, 0, LAYER]
    for layer, batch in found.items():
        alone = family.load(layer=layer).hidden_states(ready)
        assert batch.acts_nd.equal(alone.acts_nd)
        assert batch.token_id_n.tolist() == alone.token_id_n.tolist()


def test_a_samples_rows_do_not_depend_on_its_neighbours_order(family: Family) -> None:
    model = family.load()
    ready = [model.prepare(given) for given in SAMPLES[:2]]
    forth, back = model.hidden_states(ready), model.hidden_states(ready[::-1])
    n = ready[0].n_tokens
    torch.testing.assert_close(forth.acts_nd[:n], back.acts_nd[-n:], atol=1e-5, rtol=0)


def test_chat_template_writes_bos_once(family: Family) -> None:
    model = family.load(template="chat")
    given = sample(text="What?")
    text = "<s>[INST] <image>\nWhat? [/INST]"
    ids, acts = family.whole_run(given, text, add_special_tokens=False)
    ready = model.prepare(given)
    assert ready.token_id_n.tolist() == ids
    assert ids.count(1) == 1
    torch.testing.assert_close(model.hidden_states([ready]).acts_nd, acts, atol=1e-6, rtol=0)


def test_older_processor_files_give_the_same(family: Family, tmp_path: Path) -> None:
    """As published: `preprocessor_config.json` by itself, the template in a JSON file."""
    directory = Path(shutil.copytree(family.directories["published"], tmp_path / "older"))
    newer = json.loads((directory / "processor_config.json").read_text())
    (directory / "preprocessor_config.json").write_text(json.dumps(newer.pop("image_processor")))
    (directory / "processor_config.json").write_text(json.dumps(newer))
    template = directory / "chat_template.jinja"
    content = {"chat_template": template.read_text()}
    (directory / "chat_template.json").write_text(json.dumps(content))
    template.unlink()
    older = replace(family, directories={"published": directory}).load(template="chat")
    ready, expected = older.prepare(SAMPLES[2]), family.load(template="chat").prepare(SAMPLES[2])
    assert ready.token_id_n.tolist() == expected.token_id_n.tolist()
    assert ready.tensors["pixel_values"].equal(expected.tensors["pixel_values"])


def test_missing_chat_template_is_found_at_load(family: Family, tmp_path: Path) -> None:
    processor = family.build_processor()
    processor.chat_template = None
    directory = save_model(family.whole_model, tmp_path / "mute", processor)
    mute = replace(family, directories={"published": directory})
    mute.load()
    with pytest.raises(SettingsError, match=r"model\.template: .*mute has no chat template"):
        mute.load(template="chat")


def test_answer_follows_the_question(family: Family) -> None:
    given = sample((), text="What?", chosen="a cat</s>")
    paper = family.load(text="question+answer")
    decoded = paper.decode_tokens(paper.prepare(given).token_id_n)
    assert decoded == "<s>USER: \nWhat?\nASSISTANT: a cat< /s>"
    chat = family.load(text="question+answer", template="chat").prepare(given)
    assert chat.token_id_n[-1] == 2
    assert chat.modality_n[-1] == Modality.SPECIAL


def test_template_that_raises_rejects(family: Family) -> None:
    given = Sample("a", 0, (Message("system", (TextPart("Hi"),)),), ())
    with pytest.raises(RejectedSampleError, match="no system messages"):
        family.load(template="chat").outline(given)


def test_placeholder_in_text_is_no_image(family: Family) -> None:
    model = family.load()
    ready = model.prepare(sample(((40, 30),), text="Is <image> a word? </s><s>"))
    assert (ready.token_id_n == 3).sum() == ready.images[0].n_tokens
    assert (ready.modality_n == Modality.SPECIAL).sum() == 1
    assert "< image>" in model.decode_tokens(ready.token_id_n)


def test_modality_tells_image_text_and_special(family: Family) -> None:
    ready = family.load().prepare(SAMPLES[2])
    assert (ready.modality_n[ready.token_id_n == 3] == Modality.IMAGE).all()
    assert (ready.modality_n[ready.token_id_n > 4] == Modality.TEXT).all()
    assert ready.modality_n[0] == Modality.SPECIAL


def test_dropped_images_leave_the_text(family: Family) -> None:
    model = family.load(images="drop")
    broken = replace(SAMPLES[2], images=(b"", b"", b""))
    ready = model.prepare(broken)
    text = sample((), text="Which?")
    assert model.decode_tokens(ready.token_id_n) == f"<s>{prompt(text)}"
    assert (ready.images, ready.tensors) == ((), {})
    _, acts = family.whole_run(text, prompt(text))
    torch.testing.assert_close(model.hidden_states([ready]).acts_nd, acts, atol=1e-6, rtol=0)
    assert model.image_boxes(broken, ready) == []


def test_outline_knows_all_but_the_pixels(family: Family) -> None:
    model = family.load()
    for given in SAMPLES:
        outlined, ready = model.outline(given), model.prepare(given)
        assert outlined.tensors == {}
        assert outlined.images == ready.images
        assert outlined.token_id_n.tolist() == ready.token_id_n.tolist()
        assert outlined.modality_n.tolist() == ready.modality_n.tolist()
        tiles = sum(image.n_tiles for image in ready.images)
        assert len(ready.tensors.get("pixel_values", ())) == tiles


def test_outline_decodes_no_pixels(family: Family) -> None:
    cut_off = encode(picture(64, 50), "JPEG")[:1000]
    given = replace(sample(), images=(cut_off,))
    outlined = family.load().outline(given)
    assert (outlined.images[0].width, outlined.images[0].height) == (64, 50)
    with pytest.raises(RejectedSampleError, match="truncated-image"):
        family.load().fill(given, outlined)


def test_upright_size_is_what_counts(family: Family) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    given = replace(sample(), images=(encode(picture(90, 20), "JPEG", exif=exif),))
    image = family.load().prepare(given).images[0]
    assert (image.width, image.height) == (20, 90)


def test_pixels_that_differ_from_the_header_are_rejected(family: Family) -> None:
    model = family.load()
    outlined = model.outline(sample(((40, 30),)))
    with pytest.raises(RejectedSampleError, match=r"undecodable-image: decoded to 30×40, but its"):
        model.fill(sample(((30, 40),)), outlined)


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_many_threads_fill_as_one_does(family: Family, backend: str) -> None:
    model = family.load(image_backend=backend)
    shapes = [(20 + 7 * i, 90 - 5 * i) for i in range(12)]
    samples = [sample((shape,), name=str(shape)) for shape in shapes] * 4
    outlines = [model.outline(given) for given in samples]
    with ThreadPoolExecutor(8) as pool:
        filled = list(pool.map(model.fill, samples, outlines))
    for given, ready in zip(samples, filled, strict=True):
        assert ready.sample_id == given.sample_id
        assert ready.tensors["pixel_values"].equal(model.prepare(given).tensors["pixel_values"])


def test_paper_mode_makes_every_image_a_square(family: Family) -> None:
    given = sample(((200, 50), (20, 90)))
    squares = [
        encode(Image.open(BytesIO(data)).resize((TILE, TILE), Image.Resampling.BICUBIC))
        for data in given.images
    ]
    paper = family.load(image_mode="paper-336").prepare(given)
    squeezed = family.load().prepare(replace(given, images=tuple(squares)))
    assert paper.images == squeezed.images
    assert {(image.height, image.width) for image in paper.images} == {(TILE, TILE)}
    assert paper.tensors["pixel_values"].equal(squeezed.tensors["pixel_values"])


def test_boxes_name_the_image_shown_not_its_turn(family: Family) -> None:
    first = sample(((40, 30), (90, 20)))
    turned = (Message("user", (ImagePart(1), ImagePart(0), TextPart("Which?"))),)
    model = family.load()
    given = replace(first, messages=turned)
    boxes = model.image_boxes(given, model.outline(given))
    assert boxes[0].image == 1
    assert boxes[-1].image == 0


def test_boxes_of_another_sample(family: Family) -> None:
    model = family.load()
    with pytest.raises(ValueError, match="'one', not 'large'"):
        model.image_boxes(SAMPLES[3], model.outline(SAMPLES[0]))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 40), (2, 2)])
@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_tiny_and_thin_images(family: Family, size: tuple[int, int], backend: str) -> None:
    model = family.load(image_backend=backend)
    ready = model.prepare(sample((size,)))
    assert torch.isfinite(model.hidden_states([ready]).acts_nd).all()
    assert len(model.image_boxes(sample((size,)), ready)) >= 16


def test_bad_image_is_rejected_from_its_header(family: Family) -> None:
    with pytest.raises(RejectedSampleError, match="undecodable-image"):
        family.load().outline(replace(SAMPLES[0], images=(b"no image",)))


def test_longer_than_the_model_is_rejected(family: Family) -> None:
    with pytest.raises(RejectedSampleError, match="too-long"):
        family.load().outline(sample((), text="word " * 2000))


def test_half_precision(family: Family) -> None:
    model = family.load(dtype="bfloat16")
    ready = model.prepare(SAMPLES[0])
    assert ready.tensors["pixel_values"].dtype == torch.bfloat16
    acts_nd = model.hidden_states([ready]).acts_nd
    assert (acts_nd.dtype, acts_nd.requires_grad) == (torch.bfloat16, False)
    exact = family.load().hidden_states([family.load().prepare(SAMPLES[0])]).acts_nd
    assert (acts_nd.float() - exact).norm() / exact.norm() < 0.05


def test_features_that_do_not_fit_their_placeholders(family: Family) -> None:
    model = family.load()
    ready = model.prepare(SAMPLES[0])
    with pytest.raises(DataError, match="placeholders"):
        model.hidden_states([replace(ready, token_id_n=ready.token_id_n[:-60])])


def test_nothing_is_read_back_from_the_device(family: Family) -> None:
    """A tensor on `meta` has no values: whoever asks for one on the host gets an error."""
    model = family.load(device="meta")
    batch = model.hidden_states([model.prepare(given) for given in SAMPLES])
    assert batch.acts_nd.shape == (len(batch), 32)
    assert batch.acts_nd.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu_and_never_waits(family: Family) -> None:
    model, on_host = family.load(device="cuda"), family.load()
    ready = [model.prepare(given) for given in SAMPLES]
    assert all(tensor.is_pinned() for one in ready for tensor in one.tensors.values())
    model.hidden_states(ready)  # what is set up once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = model.hidden_states(ready)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert batch.acts_nd.device.type == "cuda"
    expected = on_host.hidden_states([on_host.prepare(given) for given in SAMPLES]).acts_nd
    torch.testing.assert_close(batch.acts_nd.cpu(), expected, atol=1e-4, rtol=0)


def test_layer_is_the_one_asked_for(family: Family) -> None:
    model = family.load(layer=1)
    ids, acts = family.whole_run(SAMPLES[0], prompt(SAMPLES[0]), layer=1)
    ready = model.prepare(SAMPLES[0])
    assert (model.layer, len(ids)) == (1, ready.n_tokens)
    torch.testing.assert_close(model.hidden_states([ready]).acts_nd, acts, atol=1e-6, rtol=0)
    assert LAYER != 1
