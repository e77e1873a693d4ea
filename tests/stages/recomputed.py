"""The chain done again slowly: transformers' whole model, the SAE's dense formula, loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from raysae.models import decode_image
from raysae.sample import Modality, Sample
from tests.models.tiny import build_model, build_processor
from tests.reference import sae as reference_sae
from tests.reference.scoring import Token

IMAGE_ID = 3
SPECIAL_IDS = (0, 1, 2, 4)


class SlowChain:
    """Tokens with hidden states and active features, one sample at a time."""

    def __init__(self, layer: int, sae: Path | None, k: int) -> None:
        self.model: Any = build_model()
        self.processor = build_processor()
        self.layer, self.k = layer, k
        self.sae = load_file(sae / "sae_weights.safetensors") if sae else None

    def hidden_states(self, sample: Sample) -> tuple[np.ndarray, torch.Tensor]:
        """Return the ids (n,) of SAE-V's prompt and block L's output (n, d)."""
        prompt = f"USER: \n<image> {sample.messages[0].text}\nASSISTANT: "
        images = [decode_image(image) for image in sample.images]
        inputs = self.processor(images=images, text=prompt, return_tensors="pt")
        with torch.no_grad():
            output = self.model.model(**inputs, output_hidden_states=True, use_cache=False)
        return inputs["input_ids"][0].numpy(), output.hidden_states[self.layer + 1][0]

    def codes(self, acts_nd: torch.Tensor) -> torch.Tensor:
        """Return dense codes (n, f)."""
        assert self.sae is not None
        weights = self.sae
        return reference_sae.encode(
            acts_nd,
            weights["W_enc"].T,
            weights["b_enc"],
            weights["b_dec"],
            architecture="topk",
            k=self.k,
        )

    def tokens(self, sample: Sample) -> list[Token]:
        """Return a sample's tokens as the scoring loops take them."""
        id_n, acts_nd = self.hidden_states(sample)
        described = []
        for position, (token_id, act_d, z_f) in enumerate(
            zip(id_n.tolist(), acts_nd.tolist(), self.codes(acts_nd).tolist(), strict=True)
        ):
            features = {feature: value for feature, value in enumerate(z_f) if value > 0}
            modality = modality_of(token_id)
            described.append(Token(sample.ordinal, position, modality, tuple(act_d), features))
        return described


def modality_of(token_id: int) -> int:
    """Return a token's modality by its id."""
    if token_id == IMAGE_ID:
        return int(Modality.IMAGE)
    return int(Modality.SPECIAL if token_id in SPECIAL_IDS else Modality.TEXT)
