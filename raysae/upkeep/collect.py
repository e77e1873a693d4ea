"""Garbage collection: what a storage holds that nobody needs, and deleting it.

What can go:

- unfinished artifacts that nobody has touched for `older_than_hours`;
- finished ones of kinds that are not kept, to which nothing refers (`upkeep.references`);
- temporaries of dead writers; and, when old, other temporaries, attempt marks, what lies in a
  finished artifact without being listed, probes, and uses of killed runs;
- old manifests of the score table but the latest few, and old row groups that no kept manifest
  lists;
- uploads in parts that an object store keeps, and charges for, although nobody ends them.

**Why what a run needs at this moment is never deleted.** Old means by the storage's own clock (a
probe is written and its time read back), so wrong clocks do not matter, and where the storage does
not tell a file's time, the file is young.

1. *What a run wrote* is young, as long as no run is silent for `older_than_hours`. A run that goes
   on with what another left writes `spec.json` again when it begins, so that its old marks and
   checkpoints do not make the artifact old. Row groups are published when all of them are scored,
   and the first may be old by then: all of them stay while a run says that it uses `scores`. In an
   unfinished artifact that stays, only temporaries and attempt marks are left-overs: an old file
   that no mark lists may be a checkpoint, or written again under its name (which is its checksum)
   and listed a moment later.
2. *What a run reads* may be old. It is named by the `spec.json` of what the run makes, which is
   unfinished and young, so it stays, whatever kind it is of; or, where the run makes no artifact
   (scoring does not) or has not begun it yet, in `uses/`, by `artifacts.using`. A use is written
   again every ten minutes, so that only that of a killed run grows old, or of one whose storage is
   away for so long; the latter comes back, and is looked for again before anything goes.
3. *Who comes at the same moment.* The reader first says that it uses an artifact, then looks
   whether it is finished. Deletion first takes `metadata.json` away, then looks who uses what, and
   puts it back where it is needed. Whichever is second notices the other: the reader finds the
   artifact unfinished and makes it again, or it stays. Row groups alike: marks first, then uses and
   newer manifests are looked up, then data files. An unfinished artifact is listed again before its
   first file goes, and stays if anything in it has become young.
4. *Should all of this fail* (no use was announced, a run was silent for a week), nothing false
   results: marks and metadata go before what they list, and readers compare sizes, so that the
   worst is a run that ends with an error and makes again what is gone when it is started again.

What is not understood is left alone, with a sentence: directories of other kinds and names, what
lies behind symbolic links, what cannot be read. If an artifact's inputs cannot be read, or the
marks of the score table do not tell what was scored with (`inputs` in the mark: ids by role),
whatever they may have been made from stays.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raysae.errors import SettingsError, StorageError
from raysae.upkeep.clock import StorageClock, storage_clock
from raysae.upkeep.deletion import Deletion
from raysae.upkeep.garbage import Item, Keep, Plan, plan_garbage
from raysae.upkeep.inventory import KINDS, open_for_upkeep
from raysae.upkeep.text import counted, size_text, time_text

HOUR_S = 3600.0


@dataclass(frozen=True)
class CollectSettings:
    """What may go.

    Args:
        storage: Directory or URI that holds the artifacts.
        delete: Delete; without it, what would go is printed and nothing is changed.
        older_than_hours: Nothing that was written later is touched, but for temporaries whose
            writer, on this machine, is dead. No run may be silent for so long; at least 1.
        keep_manifests: How many of the score table's latest manifests keep what they list.
        keep_kinds: Kinds of which everything finished stays; of others, what nothing refers to
            goes.
        used_caches: Let caches of hidden states go when every SAE that was trained on them is
            finished, and all of these are old.
        json: Print one line of JSON instead of text, right before the result line.
    """

    storage: str = "storage"
    delete: bool = False
    older_than_hours: float = 168.0
    keep_manifests: int = 3
    keep_kinds: tuple[str, ...] = ("saes", "subsets", "tuned", "reports")
    used_caches: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.older_than_hours < math.inf:
            raise SettingsError(
                "older_than_hours: must be at least 1 and finite, because what a run wrote lately "
                f"must not go, got {self.older_than_hours}."
            )
        if self.keep_manifests < 1:
            raise SettingsError(
                f"keep_manifests: must be at least 1, the one that counts, got "
                f"{self.keep_manifests}."
            )
        unknown = sorted(set(self.keep_kinds) - set(KINDS))
        if unknown:
            raise SettingsError(
                f"keep_kinds: {', '.join(unknown)} is no kind of artifact; choose of "
                f"{', '.join(KINDS)}."
            )


@dataclass(frozen=True)
class Collected:
    """What was found and done.

    Attributes:
        storage: The storage.
        items: What can go, or could have.
        deleted: Names of what is gone.
    """

    storage: str
    items: tuple[Item, ...]
    deleted: tuple[Item, ...]


def run_collect(settings: CollectSettings) -> Collected:
    """Print what can go, and delete it if that is asked for.

    Raises:
        SettingsError: A setting is impossible.
        DataError: It is no storage, or one of another format.
        StorageError: Something could not be deleted; the rest is.
    """
    root = open_for_upkeep(settings.storage)
    clock = storage_clock(root, settings.older_than_hours * HOUR_S)
    keep = Keep(settings.keep_manifests, settings.keep_kinds, settings.used_caches)
    plan = plan_garbage(root, keep, clock)
    say = _silent if settings.json else _say
    say(
        f"{root}, {time_text(clock.looked)} by its clock; old is what was written more than "
        f"{settings.older_than_hours:g} h before"
    )
    for note in plan.notes:
        say(f"note: {note}")
    for item in plan.items:
        say(f"{'deleting' if settings.delete else 'would delete'} {_line(item)}")
    deletion = Deletion(root, plan, keep, clock)
    try:
        deleted = tuple(deletion.run()) if settings.delete else ()
    finally:
        for name in deletion.spared:
            say(f"{name} stays: a run came to need it just now")
        for name, why in deletion.failed.items():
            say(f"{name} could not be deleted: {why}")
    say(_total(plan.items, deleted, settings))
    if settings.json:
        sys.stdout.write(f"{json.dumps(_document(settings, plan, clock, deletion, deleted))}\n")
    if deletion.failed:
        name, why = next(iter(deletion.failed.items()))
        raise StorageError(
            f"storage: {counted(len(deletion.failed), 'thing')} could not be deleted, {name} "
            f"among them ({why}); allow it and run again."
        )
    return Collected(str(root), tuple(plan.items), deleted)


def _line(item: Item) -> str:
    noun = "upload" if item.uploads else "file"
    return f"{item.name}, {counted(item.files, noun)}, {size_text(item.bytes)}: {item.why}"


def _total(items: Sequence[Item], deleted: Sequence[Item], settings: CollectSettings) -> str:
    if not items:
        return "nothing can go"
    done = deleted if settings.delete else items
    files, size = sum(item.files for item in done), sum(item.bytes for item in done)
    amount = f"{counted(files, 'file')}, {size_text(size)}"
    if settings.delete:
        return f"deleted {amount}"
    return f"{amount} can go; nothing was deleted: run this again with --delete"


def _document(
    settings: CollectSettings,
    plan: Plan,
    clock: StorageClock,
    deletion: Deletion,
    deleted: Sequence[Item],
) -> dict[str, Any]:
    """Return what programs read."""
    return {
        "storage": str(deletion.root),
        "storage_time": time_text(clock.looked),
        "older_than_hours": settings.older_than_hours,
        "delete": settings.delete,
        "garbage": [
            {
                **{name: getattr(item, name) for name in ("name", "reason", "why")},
                "files": item.files,
                "bytes": item.bytes,
                "deleted": item in deleted,
            }
            for item in plan.items
        ],
        "bytes": sum(item.bytes for item in plan.items),
        "deleted_bytes": sum(item.bytes for item in deleted),
        "notes": plan.notes,
        "spared": deletion.spared,
        "failed": deletion.failed,
    }


def _say(line: str) -> None:
    sys.stdout.write(f"collect: {line}\n")
    sys.stdout.flush()


def _silent(_: str) -> None:
    """Say nothing: programs read the document instead."""
