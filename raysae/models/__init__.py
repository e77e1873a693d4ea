"""Vision-language and language models to token hidden states at a layer, each with its modality.

The only package that knows an architecture. `load_hidden_state_model` builds a model cut after
block L; its `prepare` makes a `Sample` ready on the CPU (`outline` tells its length before any
pixel is decoded, `fill` decodes), `batches` groups by length, `hidden_states` runs.
"""

from raysae.models.base import HiddenStateModel, PatchBox, PreparedImage, PreparedSample
from raysae.models.batches import length_batches, padding_share
from raysae.models.checkpoint import model_fingerprint
from raysae.models.images import decode_image, upright_size
from raysae.models.plan import Blocks, ForwardPlan, ModelSize
from raysae.models.registry import load_hidden_state_model, model_size, plan_cache_memory
from raysae.models.settings import ModelSettings

__all__ = [
    "Blocks",
    "ForwardPlan",
    "HiddenStateModel",
    "ModelSettings",
    "ModelSize",
    "PatchBox",
    "PreparedImage",
    "PreparedSample",
    "decode_image",
    "length_batches",
    "load_hidden_state_model",
    "model_fingerprint",
    "model_size",
    "padding_share",
    "plan_cache_memory",
    "upright_size",
]
