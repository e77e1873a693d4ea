"""What a report says in words: the headline, and the sentences to read before the charts.

Each sentence states a number and what follows from it; where the numbers do not decide, it says so.
"""

from __future__ import annotations

import math

from raysae.interpret.auc import ANY_KIND, INTACT
from raysae.interpret.content import ReportContent
from raysae.interpret.formats import count, duration, fixed, interval, percent, significant
from raysae.interpret.measures import AucRow, Truth

STRONG_CORRELATION = 0.5
"""From this rank correlation with token counts on, the report warns that length decides."""

HIGH_FVU = 0.5
"""From this fraction of variance unexplained on, the report warns of the SAE."""

HIGH_DEAD_SHARE = 0.5
"""From this share of dead features on, likewise."""

UNKNOWN_TRUTH = (
    "Which rows are faulty is not known here, so this report shows what was kept, not that keeping "
    "it helps: compare a model trained on it with one trained on a random subset."
)


def headline(content: ReportContent) -> str:
    """Return the answer in one line."""
    chosen = content.selection
    return (
        f"Kept {count(chosen.kept)} of {count(chosen.corpus_rows)} rows of {content.corpus} "
        f"by {chosen.scorer}"
    )


def findings(content: ReportContent) -> tuple[str, ...]:
    """Return what follows from the numbers, most important first."""
    sentences = [_selection(content), *_truth(content), *_length(content), *_sae(content)]
    return (*sentences, *_time(content))


def verdict(row: AucRow) -> str:
    """Return what an AUC says: a direction if its interval leaves 0.5 out, else `cannot tell`."""
    if math.isnan(row.auc):
        return "no rows"
    if row.cannot_tell:
        return "cannot tell"
    return "intact higher" if row.low > 0.5 else "corrupted higher"


def _selection(content: ReportContent) -> str:
    chosen = content.selection
    text = f"{count(chosen.scored)} rows have a score; {count(chosen.kept)} of them were kept, "
    text += f"the {chosen.order} by the rule {chosen.rule}"
    if math.isfinite(chosen.threshold):
        text += f" (the last of them scored {significant(chosen.threshold)}),"
    text += f" and {count(chosen.dropped)} dropped."
    if chosen.rejected:
        text += f" {count(chosen.rejected)} rows could not be used; they are listed with reasons."
    return text


def _truth(content: ReportContent) -> list[str]:
    if content.truth is None:
        return [UNKNOWN_TRUTH]
    scorer = content.selection.scorer
    rows = [row for row in content.truth.aucs if row.scorer == scorer and row.kind == ANY_KIND]
    texts = [_auc(row) for row in rows]
    undecided = [
        row.kind
        for row in content.truth.aucs
        if row.scorer == scorer and row.kind != ANY_KIND and row.cannot_tell
    ]
    if undecided:
        texts.append(
            f"For these kinds of corruption it cannot tell: {', '.join(undecided)} "
            "(the interval of the AUC includes 0.5)."
        )
    return [*texts, *_kept_shares(content.truth)]


def _auc(row: AucRow) -> str:
    measured = (
        f"{row.scorer} has an AUC of {fixed(row.auc, 2)} against the known corruption "
        f"(95 % interval {interval(row.low, row.high)}, {count(row.corrupted)} corrupted and "
        f"{count(row.intact)} intact rows)"
    )
    if math.isnan(row.auc):
        return f"{row.scorer} has no AUC: there are no corrupted rows, or no intact ones."
    if row.cannot_tell:
        return f"{measured}: cannot tell, since the interval includes 0.5."
    if row.low > 0.5:
        return f"{measured}: intact rows tend to score higher."
    return f"{measured}: corrupted rows tend to score higher than intact ones."


def _kept_shares(truth: Truth) -> list[str]:
    intact = next((kind for kind in truth.counts if kind.kind == INTACT), None)
    rows = sum(kind.rows for kind in truth.counts if kind.kind != INTACT)
    kept = sum(kind.kept for kind in truth.counts if kind.kind != INTACT)
    if intact is None or not (intact.rows and rows):
        return []
    shares = percent(intact.kept / intact.rows), percent(kept / rows)
    return [
        f"The subset holds {shares[0]} of the intact rows and {shares[1]} of the corrupted ones."
    ]


def _length(content: ReportContent) -> list[str]:
    texts = []
    for scorer in content.scorers:
        if scorer.scorer != content.selection.scorer:
            continue
        for modality, value in (
            ("image", scorer.image_token_correlation),
            ("text", scorer.text_token_correlation),
        ):
            if abs(value) >= STRONG_CORRELATION:
                texts.append(
                    f"{scorer.scorer} follows the number of {modality} tokens (rank correlation "
                    f"{fixed(value, 2)}), so part of the selection is one by length."
                )
    return texts


def _sae(content: ReportContent) -> list[str]:
    if content.sae is None:
        return []
    texts = []
    trained_on = content.sae.corpus
    if trained_on.startswith("builtin") and not content.corpus.startswith("builtin"):
        texts.append(
            f"The SAE was trained on {trained_on}, small drawings, and not on a corpus like "
            f"{content.corpus}: read the scores with care."
        )
    for health in content.sae.health:
        if health.fvu >= HIGH_FVU:
            texts.append(
                f"The SAE leaves {percent(health.fvu, 0)} of the variance of {health.modality} "
                "tokens unexplained: read its features with care."
            )
        if health.modality == "all" and health.dead_share >= HIGH_DEAD_SHARE:
            texts.append(f"{percent(health.dead_share, 0)} of the SAE's features never fired.")
    return texts


def _time(content: ReportContent) -> list[str]:
    spent = {stage.stage: stage.seconds for stage in content.stages}
    known = [seconds for seconds in spent.values() if math.isfinite(seconds)]
    if not known:
        return []
    unknown = [stage for stage, seconds in spent.items() if not math.isfinite(seconds)]
    without = f", {', '.join(unknown)} not counted" if unknown else ""
    return [f"Making what is shown here took {duration(sum(known))} of wall-clock time{without}."]
