"""Which text models can be cut after a block: found out by building one without weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from raysae.errors import SettingsError
from raysae.models.waiting import KeepsNothing

_PARTS = frozenset({"embed_tokens", "layers", "norm"})


def check_text_model(config: Any, directory: Path, attention: str = "eager") -> Any:
    """Refuse a text model whose cut blocks would not give what `output_hidden_states` does.

    Read are dense causal decoders: embeddings, blocks of matrices, a norm after the last of them.
    Mixtures of experts and recurrent blocks would come out right, but the plan does not know them.

    Args:
        config: The text configuration, after `cut_text_config`.
        directory: The model, for messages.
        attention: As in `ModelSettings.attention`.

    Returns:
        The headless text model on the meta device.

    Raises:
        SettingsError: It is of another kind, or cannot run with that attention.
    """
    from transformers import AutoModel

    try:
        with torch.device("meta"):
            model = AutoModel.from_config(
                config, attn_implementation="eager", trust_remote_code=False
            ).eval()
        reason = _other_kind(config, model)
    # Some kinds cannot be built, or run, without numbers; each says so in its own way.
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        reason = f"that cannot be tried ({first})"
    if reason:
        raise SettingsError(
            f"model.path: {directory} holds a {config.model_type!r} text model {reason}, but "
            "raysae reads dense causal decoders with embed_tokens, layers and a final norm (Llama, "
            "Mistral, Qwen2, Qwen3, Phi-3, OLMo, Gemma and their like); name another."
        )
    try:
        model.set_attn_implementation(attention)
    except ValueError as error:
        said = str(error).split(". ", maxsplit=1)[0]
        raise SettingsError(
            f"model.attention: {directory} cannot be run with {attention!r} ({said}); choose eager."
        ) from error
    return model


def _other_kind(config: Any, model: Any) -> str:
    """Return what makes the model one of another kind, or nothing."""
    if not {name for name, _ in model.named_children()} >= _PARTS:
        return "that lacks one of these parts"
    outside = {name.split(".")[0] for name, _ in model.named_parameters()} - _PARTS
    if outside:
        return f"with weights in {', '.join(sorted(outside))}"
    if any(parameter.ndim > 2 for parameter in model.layers.parameters()):
        return "with experts or convolutions"
    if not getattr(config, "intermediate_size", None):
        return "without an intermediate_size"
    causal = [getattr(module, "is_causal", True) for module in (config, *model.layers.modules())]
    if not all(causal):
        return "whose tokens see those after them"
    return _other_end(model)


def _other_end(model: Any) -> str:
    """Run the model without numbers and return what its norm does besides ending it."""
    with _calls(model.norm) as normed, _calls(model.layers[-1]) as last, torch.no_grad():
        ids_bt = torch.zeros((2, 3), dtype=torch.long, device="meta")
        output = model(input_ids=ids_bt, use_cache=False, past_key_values=KeepsNothing())
    if len(normed) != 1 or len(last) != 1:
        return "whose final norm or last block runs more than once"
    (norm_input, norm_output), (_, block_output) = normed[0], last[0]
    if norm_input is not block_output or norm_output is not output.last_hidden_state:
        return "that does more than norm its last block's output"
    return ""


@contextmanager
def _calls(module: torch.nn.Module) -> Iterator[list[tuple[Any, Any]]]:
    """Record a module's calls: its first input and its output."""
    calls: list[tuple[Any, Any]] = []

    def record(
        _module: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> None:
        first = (*inputs, *named.values())[0]
        calls.append((first, output[0] if isinstance(output, tuple) else output))

    handle = module.register_forward_hook(record, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()
