"""The tiny vision-language models in the key styles that exist, and what transformers makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from raysae.models import HiddenStateModel, ModelSettings, decode_image, load_hidden_state_model
from raysae.sample import Sample
from tests.models.tiny import (
    build_llava,
    build_llava_processor,
    build_model,
    build_processor,
    sample,
    save_model,
)

LAYER = 3
BUILDERS = {
    "llava_next": (build_model, build_processor),
    "llava": (build_llava, build_llava_processor),
}
SAMPLES = [
    sample(((40, 30),), name="one"),
    sample((), text="No picture here, only rather many words of text.", name="text"),
    sample(((90, 20), (28, 28), (13, 200)), text="Which?", name="three"),
    sample(((300, 300),), name="large"),
]


@dataclass(frozen=True)
class Family:
    """A vision-language architecture: its whole tiny model, saved in every key style."""

    name: str
    whole_model: Any
    directories: dict[str, Path]
    build_processor: Callable[..., Any]
    _loaded: dict[Any, Any] = field(default_factory=dict, init=False)

    def load(self, style: str = "published", device: str = "cpu", **settings: Any) -> Any:
        """Our model, cut after `LAYER` unless told otherwise; each is loaded once."""
        path = str(self.directories[style])
        key = ModelSettings(**{"path": path, "layer": LAYER, **settings})
        if (key, device) not in self._loaded:
            self._loaded[key, device] = load_hidden_state_model(key, device)
        return self._loaded[key, device]

    def whole_run(
        self, given: Sample, text: str, layer: int = LAYER, **kwargs: Any
    ) -> tuple[list[int], torch.Tensor]:
        """Ids and hidden states that transformers' own processor and whole model make."""
        return whole_run(self.whole_model, self.build_processor(), given, text, layer, **kwargs)


def whole_run(
    model: Any, processor: Any, given: Sample, text: str, layer: int = LAYER, **kwargs: Any
) -> tuple[list[int], torch.Tensor]:
    """Ids and hidden states that a processor and a whole model of transformers make."""
    images = [decode_image(image) for image in given.images] or None
    inputs = processor(images=images, text=text, return_tensors="pt", **kwargs)
    with torch.no_grad():
        output = model.model(**inputs, output_hidden_states=True, use_cache=False)
    return inputs["input_ids"][0].tolist(), output.hidden_states[layer + 1][0]


def prompt(given: Sample) -> str:
    images = "<image> " * len(given.images)
    return f"USER: \n{images}{given.messages[0].text}\nASSISTANT: "


def equals_single(model: HiddenStateModel, samples: list[Sample]) -> None:
    """Check that a batch of samples gives each what it gets alone."""
    ready = [model.prepare(given) for given in samples]
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


def make_family(name: str, root: Path) -> Family:
    build, processor = BUILDERS[name]
    model = build()
    directories = {
        "published": save_model(model, root / "published", processor()),
        "legacy": save_model(model, root / "legacy", processor()),
        "new": save_model(model, root / "new", processor(), save_original_format=False),
        "single-file": save_model(model, root / "single", processor(), max_shard_size="1GB"),
    }
    _publish(directories["published"])
    return Family(name, model, directories, processor)


def _publish(directory: Path) -> None:
    """Give the vision tower the names that the published checkpoints have."""

    def published(name: str) -> str:
        return name.replace("vision_tower.", "vision_tower.vision_model.")

    for file in directory.glob("*.safetensors"):
        tensors = load_file(file)
        save_file({published(k): v for k, v in tensors.items()}, file, {"format": "pt"})
    index = directory / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {published(k): v for k, v in content["weight_map"].items()}
    index.write_text(json.dumps(content))
