"""Language models held against transformers' own whole models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, MixtralConfig

from raysae.errors import DataError, RejectedSampleError, SettingsError
from raysae.models import checkpoint, model_size, plan_cache_memory
from raysae.models.settings import ModelSettings
from raysae.models.truncated import ALONE
from raysae.sample import ImagePart, Message, Modality, Sample, TextPart
from tests.models.families import equals_single
from tests.models.language_models import CONFIGS, TEXTS, build, load, said, save, whole_states
from tests.models.tiny import BLOCKS, TEXT, build_tokenizer, sample

LAYER = 2


@pytest.fixture(scope="module")
def whole_models() -> dict[str, Any]:
    return {name: build(name) for name in CONFIGS}


@pytest.fixture(scope="module")
def directories(
    whole_models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("language")
    return {name: save(model, root / name) for name, model in whole_models.items()}


@pytest.fixture(scope="module")
def llama(directories: dict[str, Path]) -> Path:
    return directories["llama"]


@pytest.mark.parametrize("layer", [LAYER, BLOCKS - 1])
@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_whole_model(
    whole_models: dict[str, Any], directories: dict[str, Path], name: str, layer: int
) -> None:
    model = load(directories[name], layer=layer)
    for text in TEXTS:
        ready = model.prepare(said(text))
        acts = whole_states(whole_models[name], ready.token_id_n.tolist(), layer)
        torch.testing.assert_close(model.hidden_states([ready]).acts_nd, acts, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_several_layers_of_one_pass_are_those_of_models_cut_there(
    directories: dict[str, Path], name: str
) -> None:
    model = load(directories[name], layer=LAYER)
    ready = [model.prepare(said(text)) for text in TEXTS]
    for layer, batch in model.hidden_states_at(ready, range(LAYER + 1)).items():
        alone = load(directories[name], layer=layer).hidden_states(ready)
        assert batch.acts_nd.equal(alone.acts_nd)


@pytest.mark.parametrize("name", CONFIGS)
def test_batched_equals_single(directories: dict[str, Path], name: str) -> None:
    equals_single(load(directories[name]), [said(text) for text in TEXTS])


@pytest.mark.parametrize("name", ["mistral-window", "qwen2-window", "gemma3"])
def test_eager_attention_equals_the_whole_model(
    whole_models: dict[str, Any], directories: dict[str, Path], name: str
) -> None:
    model = load(directories[name], attention="eager")
    ready = model.prepare(said(TEXTS[1]))
    whole = whole_models[name]
    whole.set_attn_implementation("eager")
    acts = whole_states(whole, ready.token_id_n.tolist(), LAYER)
    whole.set_attn_implementation("sdpa")
    torch.testing.assert_close(model.hidden_states([ready]).acts_nd, acts, atol=1e-6, rtol=0)
    equals_single(model, [said(text) for text in TEXTS])


def test_attention_that_the_model_lacks(directories: dict[str, Path]) -> None:
    with pytest.raises(SettingsError, match=r"model\.attention: .* with 'sdpa' .*choose eager"):
        load(directories["gemma2"], attention="sdpa")


def test_a_short_window_is_no_full_attention(directories: dict[str, Path]) -> None:
    """The window's tests say nothing unless the window matters."""
    ready = load(directories["mistral"]).prepare(said(TEXTS[1]))
    assert ready.n_tokens > 20
    acts = [
        load(directories[name]).hidden_states([ready]).acts_nd
        for name in ("mistral", "mistral-window")
    ]
    torch.testing.assert_close(acts[0][:8], acts[1][:8], atol=1e-5, rtol=0)
    assert (acts[0][-1] - acts[1][-1]).abs().max() > 1e-2


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_is_read_back_from_the_device(directories: dict[str, Path], name: str) -> None:
    """A tensor on `meta` has no values: whoever asks for one on the host gets an error."""
    model = load(directories[name], device="meta")
    batch = model.hidden_states([model.prepare(said(text)) for text in TEXTS])
    assert batch.acts_nd.shape == (len(batch), 32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["llama", "mistral-window", "gemma3"])
def test_gpu_equals_cpu_and_never_waits(directories: dict[str, Path], name: str) -> None:
    model, on_host = load(directories[name], device="cuda"), load(directories[name])
    ready = [model.prepare(said(text)) for text in TEXTS]
    model.hidden_states(ready)  # what is set up once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = model.hidden_states(ready)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = on_host.hidden_states(ready).acts_nd
    torch.testing.assert_close(batch.acts_nd.cpu(), expected, atol=1e-4, rtol=0)


def test_prompts_of_long_rope_stay_in_its_first_frequencies(
    directories: dict[str, Path],
) -> None:
    model = load(directories["phi3-longrope"])
    assert model.outline(said("a" * 40)).n_tokens <= 64
    with pytest.raises(RejectedSampleError, match=r"too-long: .* but the model has 64 positions"):
        model.outline(said("a" * 80))


def test_longer_than_the_model_is_rejected(llama: Path) -> None:
    with pytest.raises(RejectedSampleError, match=r"too-long: .*1024 positions"):
        load(llama).outline(said("word " * 2000))


def test_paper_prompt_modality_and_decoding(llama: Path) -> None:
    model = load(llama, text="question+answer")
    ready = model.prepare(said("Is <s> a cat?", chosen="no</s>"))
    text = "<s>USER: \nIs < s> a cat?\nASSISTANT: no< /s>"
    assert model.decode_tokens(ready.token_id_n) == text
    assert model.decode_token(ready.token_id_n[0]) == "<s>"
    assert ready.modality_n[0] == Modality.SPECIAL
    assert (ready.modality_n[1:] == Modality.TEXT).all()
    assert model.image_boxes(said("Is"), ready) == []
    with pytest.raises(ValueError, match="prepared is of 'a', not 'b'"):
        model.image_boxes(said("Is", name="b"), ready)


def test_chat_template_takes_plain_strings(llama: Path) -> None:
    turns = (
        Message("system", (TextPart("Be brief."),)),
        Message("user", (TextPart("What is"), TextPart("it?"))),
    )
    model = load(llama, template="chat")
    ready = model.prepare(Sample("a", 0, turns, ()))
    text = "<s>system: Be brief.</s><s>user: What is it?</s><s>assistant: "
    assert model.decode_tokens(ready.token_id_n) == text
    answering = load(llama, template="chat", text="question+answer")
    ready = answering.prepare(said("Who?", chosen="a cat"))
    text = "<s>user: Who?</s><s>assistant: a cat</s>"
    assert answering.decode_tokens(ready.token_id_n) == text


def test_missing_chat_template_is_found_at_load(
    whole_models: dict[str, Any], tmp_path: Path
) -> None:
    directory = save(whole_models["llama"], tmp_path / "mute", template=None)
    load(directory)
    with pytest.raises(SettingsError, match=r"model\.template: .*mute has no chat template"):
        load(directory, template="chat")


def test_images_are_rejected_or_dropped(llama: Path) -> None:
    given = sample(((40, 30),), text="Which?")
    with pytest.raises(RejectedSampleError, match="no-vision") as caught:
        load(llama).outline(given)
    assert "model.images=drop" in caught.value.detail
    model = load(llama, images="drop")
    ready = model.prepare(given)
    assert ready.token_id_n.tolist() == model.prepare(said("Which?")).token_id_n.tolist()
    unused = Sample("a", 0, (Message("user", (TextPart("Which?"),)),), given.images)
    assert load(llama).outline(unused).n_tokens == ready.n_tokens
    lost = Sample("a", 0, (Message("user", (ImagePart(3), TextPart("Which?"))),), ())
    assert model.outline(lost).n_tokens == ready.n_tokens


def test_half_precision(llama: Path) -> None:
    half, exact = load(llama, dtype="bfloat16"), load(llama)
    ready = exact.prepare(said(TEXTS[1]))
    acts_nd, expected = half.hidden_states([ready]).acts_nd, exact.hidden_states([ready]).acts_nd
    assert (acts_nd.dtype, half.dtype) == (torch.bfloat16, torch.bfloat16)
    assert (acts_nd.float() - expected).norm() / expected.norm() < 0.05


def test_only_needed_files_are_opened(
    directories: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Path(shutil.copytree(directories["llama"], tmp_path / "copy"))
    weight_map = json.loads((directory / checkpoint.INDEX).read_text())["weight_map"]
    needed = {file for name, file in weight_map.items() if ALONE.needed_up_to(LAYER)(name)}
    later = set(weight_map.values()) - needed
    assert len(later) >= BLOCKS - 1 - LAYER
    for file in later:
        (directory / file).write_bytes(b"not to be opened")
    opened: list[str] = []

    def record(path: Path, **kwargs: Any) -> Any:
        opened.append(path.name)
        return safe_open(path, **kwargs)

    monkeypatch.setattr(checkpoint, "safe_open", record)
    load(directory)
    assert sorted(opened) == sorted(needed)


def test_needed_names() -> None:
    needed = ALONE.needed_up_to(LAYER)
    for name in ("model.embed_tokens.weight", "model.layers.2.mlp.up_proj.weight", "layers.0.x"):
        assert needed(name)
    for name in (
        "model.layers.3.mlp.up_proj.weight",
        "model.norm.weight",
        "norm.weight",
        "lm_head.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    ):
        assert not needed(name)


def test_names_without_the_head_load_as_well(
    whole_models: dict[str, Any], directories: dict[str, Path], tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(directories["llama"], tmp_path / "copy"))
    for file in directory.glob("model*.safetensors*"):
        file.unlink()
    whole_models["llama"].model.save_pretrained(directory)
    assert "layers.0.input_layernorm.weight" in load_file(directory / "model.safetensors")
    ready = load(directory).prepare(said(TEXTS[0]))
    acts_nd = load(directory).hidden_states([ready]).acts_nd
    assert acts_nd.equal(load(directories["llama"]).hidden_states([ready]).acts_nd)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.embed_tokens.weight", r"lacks tensors: embed_tokens\.weight"),
        ("model.layers.1.mlp.up_proj.weight", r"lacks tensors: layers\.1\.mlp"),
    ],
)
def test_missing_tensor_is_named(
    directories: dict[str, Path], tmp_path: Path, name: str, message: str
) -> None:
    directory = Path(shutil.copytree(directories["llama"], tmp_path / "copy"))
    tensors: dict[str, torch.Tensor] = {}
    for file in directory.glob("*.safetensors"):
        tensors.update(load_file(file))
        file.unlink()
    (directory / checkpoint.INDEX).unlink()
    del tensors[name]
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=message):
        load(directory)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GPT2Config(n_layer=4, n_embd=16, n_head=2, vocab_size=99), "'gpt2' text model that lacks"),
        (
            MixtralConfig(**{**TEXT, "num_hidden_layers": 3}, num_local_experts=2),
            "'mixtral' text model with experts",
        ),
    ],
)
def test_models_of_another_kind(tmp_path: Path, config: Any, message: str) -> None:
    directory = tmp_path / "other"
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    build_tokenizer().save_pretrained(directory)
    with pytest.raises(SettingsError, match=message):
        load(directory)
    with pytest.raises(SettingsError, match="embed_tokens, layers and a final norm"):
        plan_cache_memory(ModelSettings(path=str(directory), layer=1), 100)


def test_directory_without_a_tokenizer(directories: dict[str, Path], tmp_path: Path) -> None:
    directory = Path(shutil.copytree(directories["llama"], tmp_path / "copy"))
    for file in directory.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(SettingsError, match=r"model\.path: .*copy has no usable AutoTokenizer"):
        load(directory)


@pytest.mark.parametrize("name", CONFIGS)
def test_plan_and_size(
    whole_models: dict[str, Any], directories: dict[str, Path], name: str
) -> None:
    settings = ModelSettings(path=str(directories[name]), layer=LAYER, attention="eager")
    plan = plan_cache_memory(settings, 1000)
    whole = whole_models[name]
    parts = [whole.model.embed_tokens, *whole.model.layers[: LAYER + 1]]
    assert plan.weight_bytes == 4 * sum(p.numel() for part in parts for p in part.parameters())
    assert (plan.d_in, plan.bytes_per_token, plan.text.n) == (32, 128, LAYER + 1)
    assert (plan.max_image_tokens, plan.max_image_tiles) == (0, 0)
    blocks = whole.model.layers
    matrices = sum(p.numel() for p in blocks.parameters() if p.ndim == 2 and min(p.shape) > 4)
    size = model_size(settings.path)
    assert size.text.parameters == matrices
    assert size.parameters == sum(p.numel() for p in whole.parameters())
    assert size.vision_parameters == 0


def test_a_long_row_costs_eager_attention_most(directories: dict[str, Path]) -> None:
    def activation_bytes(name: str, attention: Any, budget: int) -> int:
        settings = ModelSettings(path=str(directories[name]), layer=LAYER, attention=attention)
        return plan_cache_memory(settings, budget).activation_bytes

    sdpa = activation_bytes("mistral", "sdpa", 512)
    matrix = 512 * 512 * 4 * (4 + 4 + 4)  # scores, softmax and weights of four heads
    assert activation_bytes("mistral", "eager", 512) == sdpa + matrix
    mask = 512 * 512 * (1 + 4)
    assert activation_bytes("mistral-window", "sdpa", 512) == sdpa + mask
    # Twice the budget, but no longer rows than the model has positions.
    per_token = activation_bytes("mistral", "eager", 2048) / 2048
    assert activation_bytes("mistral", "eager", 4096) / 4096 == per_token
