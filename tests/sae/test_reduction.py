"""Two ranks on slices train the same SAE as one rank on the whole batch."""

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from raysae.errors import DataError
from raysae.sae import Ranks, SaeTrainer
from tests.sae.training import BATCH, D, batch, modality, settings, trainer

STEPS = 25


def train_slices(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    # A file to meet at, because a port that was free may be taken a moment later; and the loop-back
    # device, because a machine's own name may not resolve.
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    meeting = (Path(directory) / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    for architecture in ("relu", "topk"):
        # An odd batch: the ranks' slices differ by one token. Rank 1's own sample must not count.
        chosen = settings(architecture, batch_tokens=BATCH - 1)
        ranks = Ranks(rank, 2)
        trained = SaeTrainer(
            chosen, D, "cpu", batch(999 + rank), rank=rank, world_size=2, dtype=torch.float64
        )
        rows, logged = ranks.rows(BATCH - 1), []
        for step in range(STEPS):
            trained.step(batch(step)[: BATCH - 1][rows], modality(BATCH - 1)[rows])
            if step % 5 == 4:
                logged.append(trained.metrics())
        torch.save((trained.state_dict(), logged), Path(directory) / f"{architecture}-{rank}.pt")
    wrong = SaeTrainer(
        settings("relu", batch_tokens=31), D, "cpu", batch(9), rank=rank, world_size=2
    )
    wrong.step(batch(0)[:16], modality(16))  # rank 0 should have 15
    with pytest.raises(DataError, match="32 tokens together"):
        wrong.metrics()
    dist.destroy_process_group()
    # All is saved. On the usual way out a thread of torch's may ask for Python's lock when that is
    # gone, which aborts the process now and then.
    os._exit(0)


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    spawn(train_slices, args=(str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    for architecture in ("relu", "topk"):
        alone = trainer(architecture, batch_tokens=BATCH - 1)
        logged = []
        for step in range(STEPS):
            alone.step(batch(step)[: BATCH - 1], modality(BATCH - 1))
            if step % 5 == 4:
                logged.append(alone.metrics())
        assert architecture == "relu" or max(entry["dead_share"] for entry in logged) > 0
        for rank in range(2):
            state, theirs = torch.load(tmp_path / f"{architecture}-{rank}.pt", weights_only=True)
            assert torch.equal(state["idle_tokens_f"], alone.state_dict()["idle_tokens_f"])
            for name, tensor in alone.state_dict()["weights"].items():
                torch.testing.assert_close(state["weights"][name], tensor, rtol=1e-9, atol=1e-10)
            for mine, other in zip(logged, theirs, strict=True):
                assert other == pytest.approx(mine, rel=1e-9)


@pytest.mark.parametrize(("rows", "world_size"), [(31, 2), (4096, 3), (5, 4)])
def test_rows_are_cut_evenly(rows: int, world_size: int) -> None:
    parts = [Ranks(rank, world_size).rows(rows) for rank in range(world_size)]
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rows))
    assert {part.stop - part.start for part in parts} <= {
        rows // world_size,
        rows // world_size + 1,
    }
