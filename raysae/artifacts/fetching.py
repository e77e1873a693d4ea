"""Files of finished artifacts on their way into memory, compared with what was written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from raysae.artifacts.artifact import METADATA_FILE
from raysae.artifacts.files import records_from_json
from raysae.artifacts.ids import file_sha256
from raysae.errors import DataError
from raysae.storage import Directory


@contextmanager
def fetched_whole(directory: Directory, names: Sequence[str]) -> Iterator[Path]:
    """Give a local directory with copies of some of a finished artifact's own files.

    For what all results depend on, and is small beside what is computed with it: SAE and weights.

    Args:
        directory: The artifact's.
        names: The files.

    Raises:
        DataError: One of them, or `metadata.json`, is not there; or a file's bytes are not those
            that `metadata.json` lists.
    """
    with ExitStack() as stack:
        try:
            listed = records_from_json(directory.read_json(METADATA_FILE)["files"])
            files = stack.enter_context(directory.fetched(names))
        except FileNotFoundError as error:
            raise DataError(f"{directory} is not finished any more; run again.") from error
        sums = {record.name: record.sha256 for record in listed}
        for name in names:
            if file_sha256(files / name) != sums.get(name):
                raise DataError(
                    f"{directory.describe(name)} is damaged: its bytes are not those written; run "
                    "jobs/verify.py with --repair, and then the job that it names."
                )
        yield files
