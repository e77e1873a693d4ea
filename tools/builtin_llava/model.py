"""The model: transformers' LLaVA-NeXT with a CLIP tower and a Mistral text model, both small."""

from __future__ import annotations

import torch
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
)

from builtin_llava.tokens import IMAGE_ID, PATCH, PINPOINTS, SPECIALS, TILE

D_TEXT = 192
D_VISION = 224


def build_model(vocab_size: int) -> LlavaNextForConditionalGeneration:
    """An untrained model; text and tower have six blocks, of which the tower's fifth is read."""
    ids = {name: SPECIALS.index(f"<{name}>") for name in ("pad", "s", "/s")}
    text = MistralConfig(
        vocab_size=vocab_size,
        hidden_size=D_TEXT,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        head_dim=32,
        max_position_embeddings=4096,
        sliding_window=None,
        rope_theta=10_000.0,
        bos_token_id=ids["s"],
        eos_token_id=ids["/s"],
        pad_token_id=ids["pad"],
        tie_word_embeddings=True,
    )
    vision = CLIPVisionConfig(
        hidden_size=D_VISION,
        intermediate_size=4 * D_VISION,
        num_hidden_layers=6,
        num_attention_heads=7,
        image_size=TILE,
        patch_size=PATCH,
        projection_dim=D_TEXT,
        hidden_act="gelu",
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_ID,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(TILE // PATCH) ** 2,
        tie_word_embeddings=True,
        bos_token_id=ids["s"],
        eos_token_id=ids["/s"],
        pad_token_id=ids["pad"],
    )
    model = LlavaNextForConditionalGeneration(config)
    with torch.no_grad():
        # CLIP's own initialisation is made for a width of 768 and leaves a small tower silent.
        for name, weight in model.model.vision_tower.named_parameters():
            if weight.ndim == 2 and "embedding" not in name:
                torch.nn.init.trunc_normal_(weight, std=weight.shape[1] ** -0.5)
            elif "patch_embedding" in name:
                torch.nn.init.trunc_normal_(weight, std=weight[0].numel() ** -0.5)
            elif "embedding" in name:
                torch.nn.init.trunc_normal_(weight, std=0.1)
        for layer in (
            model.model.multi_modal_projector.linear_1,
            model.model.multi_modal_projector.linear_2,
        ):
            torch.nn.init.trunc_normal_(layer.weight, std=layer.weight.shape[1] ** -0.5)
        model.model.multi_modal_projector.linear_2.bias.copy_(modality_direction())
        _start_text_model(model)
        model.model.image_newline.normal_(std=D_TEXT**-0.5)
    return model


def modality_direction() -> torch.Tensor:
    """What all projected patches have in common at the start, half as long as a word embedding.

    By it a later layer can read how much of a word's attention went to the picture.
    """
    direction = torch.randn(D_TEXT, generator=torch.Generator().manual_seed(7))
    return 0.5 * direction / direction.norm()


def _start_text_model(model: LlavaNextForConditionalGeneration) -> None:
    """Word embeddings of length one, and attention that begins by looking for what is alike.

    Queries and keys near the identity ("mimetic" initialisation, Trockman and Kolter 2023): a
    name's word attends to a picture that shows it from the start, which "is this a X?" needs and
    which takes thousands of steps to find from random weights.
    """
    model.get_input_embeddings().weight.normal_(std=D_TEXT**-0.5)
    for layer in model.model.language_model.layers:
        attention = layer.self_attn
        for projection in (attention.q_proj, attention.k_proj):
            projection.weight.normal_(std=0.2 * D_TEXT**-0.5)
            projection.weight.diagonal().add_(0.8)
        attention.v_proj.weight.normal_(std=D_TEXT**-0.5)
        attention.o_proj.weight.normal_(std=0.5 * D_TEXT**-0.5)


def patch_embeddings(model: LlavaNextForConditionalGeneration, tiles: torch.Tensor) -> torch.Tensor:
    """Projected patches (n, patches, d_text) of tiles (n, 3, 64, 64), as the text model gets."""
    tower = model.model.vision_tower
    hidden = tower.pre_layrnorm(tower.embeddings(tiles))
    # The blocks after the one that is read need not be computed.
    for block in tower.encoder.layers[: model.config.vision_feature_layer + 1]:
        hidden = block(hidden, None)
    return model.model.multi_modal_projector(hidden[:, 1:])
