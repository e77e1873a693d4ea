"""Direct Preference Optimization of LLaVA-NeXT through TRL and DeepSpeed, without Ray.

A stage writes the samples it is given as checked preference rows (`write_preferences`,
`row_rules`), then every rank calls `train` with a `TrainingTask`. Importing this package is cheap;
torch, transformers and TRL are imported by the functions that need them.
"""

from raysae.finetune.data import PreferenceCounts, RowRules, longest_row, write_preferences
from raysae.finetune.memory import plan_tuning_memory
from raysae.finetune.model import check_model
from raysae.finetune.processor import row_rules, training_processor
from raysae.finetune.settings import FinetuneRunSettings, FinetuneSettings
from raysae.finetune.trainer import TrainingTask, train

__all__ = [
    "FinetuneRunSettings",
    "FinetuneSettings",
    "PreferenceCounts",
    "RowRules",
    "TrainingTask",
    "check_model",
    "longest_row",
    "plan_tuning_memory",
    "row_rules",
    "train",
    "training_processor",
    "write_preferences",
]
