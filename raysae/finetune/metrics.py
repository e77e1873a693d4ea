"""What training reports: figures per step, and preference accuracy on held-out rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raysae.errors import DataError

STEP_FIGURES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "lr",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
    "logps/chosen": "log_probability_chosen",
    "logps/rejected": "log_probability_rejected",
}
"""TRL's name of each figure kept per step, and ours."""


def step_metrics(log_history: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return one entry per optimizer step, from the trainer's log.

    Args:
        log_history: `trainer.state.log_history`; it survives a resume.

    Returns:
        Entries with `step` and the figures of `STEP_FIGURES`, ascending by step.
    """
    return [
        {
            "step": int(entry["step"]),
            **{ours: float(entry[trl]) for trl, ours in STEP_FIGURES.items() if trl in entry},
        }
        for entry in log_history
        if "loss" in entry
    ]


def pair_figures(
    policy: tuple[list[float], list[float]],
    reference: tuple[list[float], list[float]],
    beta: float,
) -> dict[str, float]:
    """Summarise log probabilities of held-out pairs.

    The model before the training is DPO's reference model, so one pass gives both. `accuracy_…` is
    the share of pairs whose better answer is the likelier one, log p(chosen) > log p(rejected),
    summed over the answer's tokens; `reward_accuracy` is the share with
    β·[log π/π_ref (chosen) − log π/π_ref (rejected)] > 0, and `reward_margin` is the mean of that
    difference (Rafailov et al., 2023). Before training all rewards are 0 by definition.

    Args:
        policy: Log probabilities (chosen, rejected) under the tuned model, one of each per pair.
        reference: The same under the reference model.
        beta: DPO's β.
    """
    before = [chosen - rejected for chosen, rejected in zip(*reference, strict=True)]
    after = [chosen - rejected for chosen, rejected in zip(*policy, strict=True)]
    margins = [beta * (b - a) for a, b in zip(before, after, strict=True)]
    return {
        "pairs": len(after),
        "accuracy_before": _share_above_zero(before),
        "accuracy_after": _share_above_zero(after),
        "reward_accuracy": _share_above_zero(margins),
        "reward_margin": sum(margins) / len(margins),
    }


def _share_above_zero(values: list[float]) -> float:
    """Return the share of values that are above zero."""
    return sum(value > 0 for value in values) / len(values)


def held_out_metrics(trainer: Any, rows: Any, beta: float) -> dict[str, float]:
    """Measure the policy and the reference model on held-out rows; every rank calls it.

    Args:
        trainer: The trainer, after the training.
        rows: Dataset of held-out rows.
        beta: DPO's β.

    Returns:
        `pair_figures`, or nothing if there are no rows.
    """
    if not len(rows):
        return {}
    import torch

    trainer.model_wrapped.eval()
    gathered = []
    with torch.no_grad():
        for batch in trainer.get_eval_dataloader(rows):
            inputs = trainer._prepare_inputs(batch)  # noqa: SLF001 - moves it to the device
            reference = trainer.compute_ref_log_probs(_reference_model(trainer), inputs)
            policy = _answer_log_probs(trainer, inputs)
            pairs = torch.stack([*policy, *reference], dim=1).float()
            gathered.append(trainer.accelerator.gather_for_metrics(pairs).cpu())
    columns = torch.cat(gathered).T.tolist()
    return pair_figures((columns[0], columns[1]), (columns[2], columns[3]), beta)


def _reference_model(trainer: Any) -> Any:
    """Return the reference model; with LoRA TRL takes the policy and switches its adapters off."""
    return trainer.model if trainer.ref_model is None else trainer.ref_model


def _answer_log_probs(trainer: Any, inputs: Mapping[str, Any]) -> Any:
    """Return the policy's log probabilities of the (chosen, rejected) answers, one per pair."""
    mask = inputs["completion_mask"]
    arguments = {key: value for key, value in inputs.items() if key != "completion_mask"}
    labels = inputs["input_ids"].masked_fill(mask == 0, -100)
    with trainer.compute_loss_context_manager():
        output = trainer.model_wrapped(
            **arguments, labels=labels, use_cache=False, fused_lm_head=True
        )
    return output.log_probs.sum(dim=1).chunk(2, dim=0)


def check_loss(step: int, loss: float) -> None:
    """Stop a training whose loss is no longer a number.

    Raises:
        DataError: The loss is infinite or not a number.
    """
    if not abs(loss) < float("inf"):
        raise DataError(
            f"finetune: the loss of step {step} is {loss}; lower finetune.lr, or use float32."
        )
