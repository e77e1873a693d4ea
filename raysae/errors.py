"""The errors that raysae raises on purpose, each with the exit code that a job ends with.

Each message is one sentence that names the thing and the way out, so that a job can print it
without a traceback. Anything else that escapes is a bug and keeps its traceback (exit code 1).
"""


class RaysaeError(Exception):
    """Base of every expected error."""

    exit_code = 1


class SettingsError(RaysaeError):
    """A setting is unknown, impossible, or names something that cannot be used (exit code 2)."""

    exit_code = 2


class DataError(RaysaeError):
    """The data cannot be used: no usable row, a missing column, a damaged file (exit code 3)."""

    exit_code = 3


class StorageError(RaysaeError):
    """The storage does not do what it is asked: denied, full, unreachable (exit code 1)."""


class RejectedSampleError(RaysaeError):
    """One sample cannot be used; the job goes on without it.

    Attributes:
        reason: A short slug that counts are grouped by, e.g. `truncated-image`.
        detail: One sentence for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
