"""SAEs on disk in SAELens' format, so that its tools (and Neuronpedia's) open them.

`cfg.json` and `sae_weights.safetensors`; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from raysae.errors import DataError
from raysae.sae.architectures import ARCHITECTURES
from raysae.sae.sae import Sae

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"

_SAELENS_VERSION = "6.54.0"
"""The format's version: SAELens converts configs that say less than 6.0."""


def save_saelens(sae: Sae, directory: Path, metadata: Mapping[str, Any]) -> None:
    """Write an SAE for `sae_lens.SAE.load_from_disk(directory)`.

    Args:
        sae: What to write.
        directory: Created if there is none; files of the same names are replaced.
        metadata: Stored under `metadata`; SAELens knows `model_name`, `hook_name`,
            `context_size`, … Must be JSON.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {"W_enc": sae.W_enc, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    config: dict[str, Any] = {
        "architecture": ARCHITECTURES[sae.architecture].saelens_name,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": str(sae.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtracts_b_dec,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": _SAELENS_VERSION, **metadata},
    }
    if sae.architecture == "topk":
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    save_file(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
        directory / WEIGHTS_FILE,
    )
    (directory / CONFIG_FILE).write_text(json.dumps(config, indent=1), encoding="utf-8")


def load_saelens(directory: Path, device: torch.device | str = "cpu") -> Sae:
    """Read an SAE that raysae or SAELens wrote.

    Raises:
        DataError: A file is missing or damaged, or the SAE does what raysae's do not (another
            architecture, input normalisation, b_dec treated otherwise).
    """
    try:
        config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        tensors = load_file(directory / WEIGHTS_FILE, device=str(device))
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(
            f"{directory} cannot be read as an SAE ({error}); it needs {CONFIG_FILE} and "
            f"{WEIGHTS_FILE} as SAELens writes them."
        ) from error
    architecture = _check_config(directory, config)
    missing = {"W_enc", "b_enc", "W_dec", "b_dec"} - tensors.keys()
    if missing:
        raise DataError(
            f"{directory / WEIGHTS_FILE} lacks {', '.join(sorted(missing))}; export it again."
        )
    return Sae(
        W_enc=tensors["W_enc"],
        b_enc=tensors["b_enc"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        architecture=architecture,
        k=int(config.get("k", 0)) if architecture == "topk" else 0,
    )


def _check_config(directory: Path, config: dict[str, Any]) -> str:
    """Return the architecture's name in raysae, or say what cannot be represented."""
    names = {form.saelens_name: name for name, form in ARCHITECTURES.items()}
    saelens_name = config.get("architecture")
    if saelens_name not in names:
        raise DataError(
            f"the SAE in {directory} has the architecture {saelens_name!r}; raysae reads "
            f"{', '.join(names)}."
        )
    architecture = names[saelens_name]
    wanted = {
        "apply_b_dec_to_input": (ARCHITECTURES[architecture].subtracts_b_dec, True),
        "normalize_activations": ("none", "none"),
        "reshape_activations": ("none", "none"),
        "rescale_acts_by_decoder_norm": (False, False),
    }
    for key, (value, saelens_default) in wanted.items():
        if config.get(key, saelens_default) != value:
            raise DataError(
                f"the SAE in {directory} has {key} = {config.get(key, saelens_default)!r}, but "
                f"raysae reads {saelens_name} SAEs with {value!r} only; fold it into the weights."
            )
    return architecture
