"""Sparse autoencoders: settings, training, sparse encoding, health and SAELens files.

An architecture is one module in `architectures`. `SaeTrainer` trains one SAE on hidden states,
`Sae` is the result, `Codes` are its sparse activations; `save_saelens` and `load_saelens` keep it
on disk.
"""

from raysae.sae.codes import Codes
from raysae.sae.health import SaeHealth
from raysae.sae.memory import (
    encoding_flops,
    plan_encoding_memory,
    plan_training_memory,
    training_flops,
)
from raysae.sae.reduction import Ranks
from raysae.sae.sae import Sae
from raysae.sae.saelens import SAE_FILES, load_saelens, save_saelens
from raysae.sae.settings import SaeSettings
from raysae.sae.trainer import SaeTrainer

__all__ = [
    "SAE_FILES",
    "Codes",
    "Ranks",
    "Sae",
    "SaeHealth",
    "SaeSettings",
    "SaeTrainer",
    "encoding_flops",
    "load_saelens",
    "plan_encoding_memory",
    "plan_training_memory",
    "save_saelens",
    "training_flops",
]
