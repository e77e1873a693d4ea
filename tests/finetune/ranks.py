"""One of two ranks that train together, in a process of its own: `python -m tests.finetune.ranks`.

DeepSpeed caches process groups for the life of a process, so it is not run inside pytest.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from raysae.finetune import FinetuneRunSettings, train
from tests.finetune.tiny import forget_accelerate, task_for

RUN = FinetuneRunSettings(workers=2, per_device_batch=1, checkpoint_steps=2)
SCENARIOS = {
    "ddp": {"zero_stage": 0},
    "zero2": {"zero_stage": 2},
    "zero3": {"zero_stage": 3},
}
RESUMED = ("ddp", "zero2")


def main(rank: int, port: int, model: Path, rows: Path, root: Path) -> None:
    os.environ.update(
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    for name, changes in SCENARIOS.items():
        task = task_for(model, rows, root / name / "out", RUN, eval_fraction=0.25, **changes)
        kept = root / name / "checkpoint"

        def keep(directory, metrics, kept=kept):
            # What Ray Train does: the ranks' directories become one.
            if metrics["step"] == 2:
                shutil.copytree(directory, kept, dirs_exist_ok=True)

        result = train(task, root / name / f"scratch-{rank}", None, keep)
        forget_accelerate()
        found = {"whole": result}
        if name in RESUMED:
            found["resumed"] = train(task, root / name / f"resumed-{rank}", kept)
            forget_accelerate()
        if rank == 0:
            (root / name / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *(Path(argument) for argument in sys.argv[3:]))
