from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from raysae.corpora import CorpusSettings, open_corpus
from raysae.errors import RejectedSampleError
from raysae.models import ModelSettings, PreparedImage, PreparedSample, length_batches
from raysae.sample import Modality, Rejection, Sample, TokenBatch
from raysae.stages import _filling, _hidden_states
from raysae.stages._filling import BATCHES_AHEAD, _Pixels, filled_batches
from raysae.stages._hidden_states import HiddenStates, Reading, split_by_sample
from tests.models.tiny import sample

D_IN = 3


class FakeModel:
    """Token t of a sample of n tokens has the hidden state (n, t, 0); names tell what goes wrong.

    Attributes:
        filled: Names, in the order in which their images were decoded.
        running: How many forward passes were done when each image was decoded.
    """

    layer = 4

    def __init__(self) -> None:
        self.filled: list[str] = []
        self.passes = 0
        self.running: list[int] = []
        self.threads: set[str] = set()

    def outline(self, given: Sample) -> PreparedSample:
        if "unusable" in given.sample_id:
            raise RejectedSampleError("too-long", "it is")
        n = int(given.sample_id.split("-")[0])
        image = PreparedImage(0, 1, 1, 1, 1)
        return PreparedSample(
            given.sample_id, np.arange(n, dtype=np.int32), np.zeros(n, np.uint8), (image,)
        )

    def fill(self, given: Sample, outlined: PreparedSample) -> PreparedSample:
        self.filled.append(given.sample_id)
        self.running.append(self.passes)
        self.threads.add(threading.current_thread().name)
        time.sleep(0.001 * (len(given.sample_id) % 3))
        if "broken" in given.sample_id:
            raise RejectedSampleError("undecodable-image", "it is")
        return replace(outlined, tensors={"pixel_values": torch.ones(1)})

    def batches(self, prepared: Sequence[PreparedSample], budget: int) -> list[list[int]]:
        return length_batches([one.n_tokens for one in prepared], budget)

    def hidden_states_at(
        self, prepared: Sequence[PreparedSample], layers: Sequence[int]
    ) -> dict[int, TokenBatch]:
        """The same in every layer, but that `late` goes wrong in the fourth alone."""
        return {layer: self.states_at(prepared, layer) for layer in layers}

    def states_at(self, prepared: Sequence[PreparedSample], layer: int) -> TokenBatch:
        assert all(one.tensors for one in prepared)
        self.passes += layer == self.layer
        lengths = [one.n_tokens for one in prepared]
        acts = [[float(n), float(t), 0.0] for n in lengths for t in range(n)]
        acts_nd = torch.tensor(acts)
        starts = np.cumsum([0, *lengths])
        for one, start in zip(prepared, starts, strict=False):
            if "nan" in one.sample_id or ("late" in one.sample_id and layer == 4):
                acts_nd[start + 1, 2] = torch.nan
            if "inf" in one.sample_id:
                acts_nd[start, 0] = -torch.inf
        return TokenBatch(
            np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
            np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
            np.concatenate([one.token_id_n for one in prepared]),
            np.concatenate([one.modality_n for one in prepared]),
            acts_nd,
        )


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def states(model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> HiddenStates:
    monkeypatch.setattr(_hidden_states, "load_hidden_state_model", lambda *_: model)
    return HiddenStates(Reading(ModelSettings(), "cpu", token_budget=16, threads=3))


def rows(*names: str) -> list[Sample | Rejection]:
    return [replace(sample(name=name), ordinal=at) for at, name in enumerate(names)]


def tokens_of(states: HiddenStates, given: list[Sample | Rejection]) -> tuple[dict[str, int], list]:
    """Name → tokens that came out, each checked; and the rejections."""
    shard = states.prepare(given)
    seen: dict[str, int] = {}
    for indices, batch in states.run(shard):
        parts = split_by_sample(batch)
        assert [int(part.sample_n[0]) for part in parts] == list(range(len(indices)))
        for index, part in zip(indices, parts, strict=True):
            n = len(part)
            assert part.acts_nd.tolist() == [[n, t, 0] for t in range(n)]
            assert part.position_n.tolist() == part.token_id_n.tolist() == list(range(n))
            seen[shard.samples[index].sample_id] = n
    counts = shard.counts()
    assert counts["rows"] == len(seen)
    assert counts["rejected"] == len(given) - len(seen)
    assert counts["tokens"] == counts["text_tokens"] == sum(seen.values())
    return seen, shard.mark()["rejections"]


def test_every_row_comes_out_once_or_is_rejected(states: HiddenStates) -> None:
    names = ["5-a", "9-nan", "3-b", "7-broken", "16-c", "5-inf", "2-d", "4-unusable", "9-e", "5-f"]
    before = [Rejection("x", 10, "no-image", "none")]
    seen, rejections = tokens_of(states, rows(*names) + before)
    assert seen == {"5-a": 5, "3-b": 3, "16-c": 16, "2-d": 2, "9-e": 9, "5-f": 5}
    assert [(r["ordinal"], r["reason"]) for r in rejections] == [
        (1, "non-finite"),
        (3, "undecodable-image"),
        (5, "non-finite"),
        (7, "too-long"),
        (10, "no-image"),
    ]
    assert "1 of its tokens" in rejections[0]["detail"]


def test_a_layers_rows_do_not_depend_on_which_others_are_read(states: HiddenStates) -> None:
    names = ["5-a", "9-late", "3-b", "7-broken", "5-nan", "16-late", "2-d"]
    ready = states.prepare(rows(*names))
    shards = {layer: ready.twin() for layer in (1, 4)}
    seen: dict[int, set[str]] = {1: set(), 4: set()}
    for layer, (indices, _) in states.run_layers(shards):
        seen[layer].update(ready.samples[index].sample_id for index in indices)
    assert seen == {1: {"5-a", "9-late", "3-b", "16-late", "2-d"}, 4: {"5-a", "3-b", "2-d"}}
    assert [shards[layer].counts()["rows"] for layer in (1, 4)] == [5, 3]
    assert [shards[layer].counts()["rejected"] for layer in (1, 4)] == [2, 4]
    assert ready.counts()["rejected"] == 0


def test_a_batch_of_which_nothing_is_left(states: HiddenStates) -> None:
    seen, rejections = tokens_of(states, rows("8-nan", "8-inf", "4-broken", "4-brokentoo", "2-a"))
    assert seen == {"2-a": 2}
    assert len(rejections) == 4


def test_no_row_at_all(states: HiddenStates) -> None:
    assert tokens_of(states, []) == ({}, [])
    assert tokens_of(states, rows("1-unusable"))[0] == {}


def test_images_are_decoded_a_batch_ahead_and_no_further(
    states: HiddenStates, model: FakeModel
) -> None:
    given = rows(*[f"16-{number}" for number in range(12)])
    seen, _ = tokens_of(states, given)
    assert len(seen) == 12
    for number, (name, passes) in enumerate(zip(model.filled, model.running, strict=True)):
        assert name == f"16-{number}"
        assert passes >= number - BATCHES_AHEAD
    assert all("fill" in name for name in model.threads)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(model: FakeModel, threads: int) -> None:
    samples = [sample(name=f"{3 + at % 4}-{at}{'broken' * (at % 5 == 0)}") for at in range(20)]
    outlined = [model.outline(one) for one in samples]
    batches = [[0, 3, 1], [2], [19, 4, 5, 6, 7], list(range(8, 19))]
    filled = list(filled_batches(model, samples, outlined, batches, threads))  # type: ignore[arg-type]
    for batch, results in zip(batches, filled, strict=True):
        for index, one in zip(batch, results, strict=True):
            if index % 5 == 0:
                assert isinstance(one, RejectedSampleError)
            else:
                assert isinstance(one, PreparedSample)
                assert one.sample_id == samples[index].sample_id


def test_what_is_not_asked_for_is_not_decoded(model: FakeModel) -> None:
    samples = [sample(name=f"3-{at}") for at in range(40)]
    outlined = [model.outline(one) for one in samples]
    batches = [[at] for at in range(40)]
    filled = filled_batches(model, samples, outlined, batches, 2)  # type: ignore[arg-type]
    next(filled)
    filled.close()
    assert len(model.filled) <= 1 + BATCHES_AHEAD


def test_special_tokens_of_dropped_rows_are_not_counted(states: HiddenStates) -> None:
    shard = states.prepare(rows("5-a", "5-nan"))
    shard.prepared[0].modality_n[:2] = Modality.SPECIAL
    for _ in states.run(shard):
        pass
    assert shard.counts() == {
        "rows": 1,
        "rejected": 1,
        "tokens": 5,
        "text_tokens": 3,
        "image_tokens": 0,
        "special_tokens": 2,
    }


def test_large_images_are_decoded_one_after_another(
    model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image of the fake model has a pixel: with three allowed, at most three are at work."""
    monkeypatch.setattr(_filling, "PIXELS_AT_ONCE", 3)
    at_work, most, lock = 0, 0, threading.Lock()
    fill = model.fill

    def counted(given: Sample, outlined: PreparedSample) -> PreparedSample:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.002)
        with lock:
            at_work -= 1
        return fill(given, outlined)

    monkeypatch.setattr(model, "fill", counted)
    samples = [sample(name=f"3-{at}") for at in range(40)]
    outlined = [model.outline(one) for one in samples]
    batches = [list(range(20)), list(range(20, 40))]
    filled = filled_batches(model, samples, outlined, batches, 8)  # type: ignore[arg-type]
    assert [len(batch) for batch in filled] == [20, 20]
    assert most == 3


def test_an_image_beyond_the_bound_is_decoded_alone() -> None:
    pixels, order = _Pixels(10), []

    def take(number: int) -> None:
        with pixels.taken(number):
            order.append(number)
            time.sleep(0.01)

    threads = [threading.Thread(target=take, args=(number,)) for number in (4, 50, 6, 5)]
    for thread in threads:
        thread.start()
        time.sleep(0.002)
    for thread in threads:
        thread.join()
    assert sorted(order) == [4, 5, 6, 50]
    assert order[:2] == [4, 50]


def test_an_error_of_one_sample_is_not_held_up_for_ever(
    model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is still at work is waited for under the watchdog, which ends the process."""
    limits: list[float] = []

    @contextmanager
    def watched(seconds: float) -> Iterator[None]:
        limits.append(seconds)
        yield

    monkeypatch.setattr(_filling, "ends_process_after", watched)

    def fill(*_: object) -> None:
        time.sleep(0.2)  # What is done when it is asked for is not watched.
        raise ZeroDivisionError

    monkeypatch.setattr(model, "fill", fill)
    samples = [sample(name="3-a")]
    filled = filled_batches(model, samples, [model.outline(samples[0])], [[0]], 1)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        next(filled)
    assert limits == [_filling.LIMITS.row_s] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("on_host", [True, False])
def test_a_gpus_hidden_states_are_the_cpus(on_host: bool) -> None:
    """Held back for a batch, and copied while the next one is at work."""
    corpus = open_corpus(CorpusSettings("builtin", max_rows=48))
    rows = list(corpus.all_samples())

    def everything(device: str) -> dict[str, torch.Tensor]:
        states = HiddenStates(Reading(ModelSettings(), device, token_budget=512, threads=3))
        shard, found = states.prepare(rows), {}
        for _, (indices, batch) in states.run_layers({4: shard}, on_host=on_host):
            assert batch.acts_nd.is_cuda == (device == "cuda" and not on_host)
            for index, part in zip(indices, split_by_sample(batch), strict=True):
                found[shard.samples[index].sample_id] = part.acts_nd.cpu().clone()
        return found

    here, there = everything("cpu"), everything("cuda")
    assert len(here) == len(there) == 48
    for name, acts_nd in here.items():
        assert (there[name] - acts_nd).norm() < 1e-3 * acts_nd.norm()
