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

SAE_FILES = (CONFIG_FILE, WEIGHTS_FILE)
"""What an SAE consists of on disk."""

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
    _check_tensors(directory / WEIGHTS_FILE, tensors)
    return Sae(
        W_enc=tensors["W_enc"],
        b_enc=tensors["b_enc"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        architecture=architecture,
        k=config["k"] if architecture == "topk" else 0,
    )


def _check_tensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that are missing, of shapes that do not fit, or not finite numbers."""
    missing = {"W_enc", "b_enc", "W_dec", "b_dec"} - tensors.keys()
    if missing:
        raise DataError(f"{file} lacks {', '.join(sorted(missing))}; export it again.")
    d_sae, d_in = len(tensors["b_enc"].reshape(-1)), len(tensors["b_dec"].reshape(-1))
    shapes = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    dtypes = {tensors[name].dtype for name in shapes}
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise DataError(
                f"{file}: {name} has the shape {tuple(tensors[name].shape)}, its biases ask for "
                f"{shape}; export it again."
            )
        if not tensors[name].is_floating_point() or len(dtypes) > 1:
            listed = ", ".join(sorted(map(str, dtypes)))
            raise DataError(f"{file} holds {listed}, not one floating type; export it again.")
        if not tensors[name].sum(dtype=torch.float64).isfinite():
            raise DataError(f"{file}: {name} holds NaN or infinity; train it again.")


def _check_config(directory: Path, config: Any) -> str:
    """Return the architecture's name in raysae, or say what cannot be represented."""
    names = {form.saelens_name: name for name, form in ARCHITECTURES.items()}
    if not isinstance(config, dict):
        raise DataError(f"{directory / CONFIG_FILE} holds no JSON object; export it again.")
    saelens_name = config.get("architecture")
    if not isinstance(saelens_name, str) or saelens_name not in names:
        raise DataError(
            f"the SAE in {directory} has the architecture {saelens_name!r}; raysae reads "
            f"{', '.join(names)}."
        )
    architecture = names[saelens_name]
    k = config.get("k")
    if architecture == "topk" and not (type(k) is int and k > 0):
        raise DataError(f"{directory / CONFIG_FILE}: k is {k!r}, not a whole number above 0.")
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
