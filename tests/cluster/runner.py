"""Jobs of the shared settings on one storage, and what they make if nothing happens to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.run_local import Head, local_head
from tests.cluster.content import Storage
from tests.cluster.harness import Ended, Job, alive, descendants, wait_for
from tests.cluster.settings import CPUS, options


@contextmanager
def head_of_tests() -> Iterator[Head]:
    """Start a head; when it ends, so has every process that it started."""
    with local_head(CPUS) as head:
        yield head
        started = descendants(head.process.pid)
    wait_for(lambda: not alive(started), "the end of what the head started")


@dataclass(frozen=True)
class Runner:
    """Submits jobs of the shared settings on one storage.

    Attributes:
        head: Where.
        storage: The storage, where it is a directory; what a bucket holds is copied there.
        model: Directory of the model.
        logs: Directory of the jobs' output.
        uri: The storage's, if it is no directory.
    """

    head: Head
    storage: Storage
    model: Path
    logs: Path
    uri: str = ""

    @classmethod
    def below(cls, head: Head, directory: Path, model: Path, uri: str = "") -> Runner:
        """Return a runner on an empty storage in a new directory."""
        for name in ("logs", "storage"):
            (directory / name).mkdir(parents=True)
        return cls(head, Storage(directory / "storage"), model, directory / "logs", uri)

    def start(self, name: str, *more: str) -> Job:
        """Submit a job."""
        log = self.logs / f"{name}-{len(list(self.logs.iterdir()))}.log"
        where = self.uri or self.storage.root
        return Job(self.head, [f"jobs/{name}.py", *options(where, self.model, name), *more], log)

    def run(self, name: str, *more: str) -> Ended:
        """Submit a job and wait until it is over."""
        return self.start(name, *more).wait()


@dataclass(frozen=True)
class Undisturbed:
    """What jobs that nothing happened to have made, and how they ended."""

    storage: Storage
    ended: dict[str, Ended]
