from __future__ import annotations

import pickle

import numpy as np
import torch

from raysae.models import HiddenStateModel
from raysae.models.base import PreparedSample, special_modality, token_batch
from raysae.sample import Modality
from tests.models.tiny import sample


def prepared(name: str, ids: list[int]) -> PreparedSample:
    token_id_n = np.array(ids, np.int32)
    return PreparedSample(name, token_id_n, special_modality(token_id_n, [1, 2], 3))


def test_modality_by_id() -> None:
    assert prepared("a", [1, 9, 3, 3, 2]).modality_n.tolist() == [
        Modality.SPECIAL,
        Modality.TEXT,
        Modality.IMAGE,
        Modality.IMAGE,
        Modality.SPECIAL,
    ]


def test_token_batch_concatenates_in_order() -> None:
    acts_nd = torch.arange(10.0).view(5, 2)
    batch = token_batch([prepared("a", [1, 9]), prepared("b", [1, 3, 9])], acts_nd)
    assert len(batch) == 5
    assert batch.sample_n.tolist() == [0, 0, 1, 1, 1]
    assert batch.position_n.tolist() == [0, 1, 0, 1, 2]
    assert batch.token_id_n.tolist() == [1, 9, 1, 3, 9]
    assert batch.modality_n.tolist() == [2, 0, 2, 1, 0]
    assert batch.acts_nd is acts_nd
    assert batch.sample_n.dtype == batch.position_n.dtype == batch.token_id_n.dtype == np.int32
    assert batch.modality_n.dtype == np.uint8


def test_batches_go_by_length(tiny: HiddenStateModel) -> None:
    samples = [prepared("a", [1]), prepared("b", [1] * 9), prepared("c", [1] * 8)]
    assert tiny.batches(samples, 18) == [[1, 2], [0]]


def test_tokens_decode_to_the_prompt(tiny: HiddenStateModel) -> None:
    ready = tiny.prepare(sample((), text="a cät"))
    assert tiny.decode_tokens(ready.token_id_n) == "<s>USER: \na cät\nASSISTANT: "
    assert tiny.decode_token(1) == "<s>"
    assert "".join(tiny.decode_token(i) for i in ready.token_id_n[:4]).startswith("<s>USER")


def test_prepared_samples_travel_between_processes(tiny: HiddenStateModel) -> None:
    ready = tiny.prepare(sample())
    copy = pickle.loads(pickle.dumps(ready))
    assert copy.n_tokens == ready.n_tokens
    assert copy.images == ready.images
    assert copy.tensors["pixel_values"].equal(ready.tensors["pixel_values"])
