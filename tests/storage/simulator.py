"""Storages whose writers can be stopped, killed and cut off from power at every step.

A process is a thread that waits before each of its steps: a system call or a request. Of processes
on a directory, `Disk` knows what is visible and what a loss of power may leave: unsynced content
and unsynced names may each be lost or stay. An object store loses nothing that it answered, but its
answers may be lost.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from raysae.storage import Directory, is_temporary
from raysae.storage.local import LocalBackend
from raysae.storage.objects import ObjectBackend
from raysae.storage.posix import FileStat, Posix
from tests.storage.fake_store import LOST, URI, Client, Store

State = dict[str, bytes]
"""Files by their names below the root; unfinished ones are left out."""

Work = Callable[[Directory], bool]
"""What a process does; it returns whether it wrote something."""


class Killed(BaseException):
    """Ends a process' thread when nothing is looked at any more."""


class Step(NamedTuple):
    """What a process does next."""

    name: str
    path: str

    @property
    def shared(self) -> bool:
        """Whether it matters to others when it happens.

        Directories are made, and never removed but for that of the attempts, so that looking for
        one is no matter of order: what follows is.
        """
        if self.name in {"is_directory", "write"}:
            return "attempts" in self.path.split("/")
        return self.name not in {"sync_file", "part"} and not is_temporary(self.path)


class Process:
    """A thread that waits before every step; a killed one waits for ever."""

    def __init__(self, name: str, run: Callable[[Process], bool]) -> None:
        self.name = name
        self.wrote = False
        self.step: Step | None = None
        self.error: BaseException | None = None
        self.history = 0
        self.steps = 0
        self._run = run
        self._fault: Exception | None = None
        self._killed = False
        # Locks that one thread takes and the other one gives back: the fastest way to take turns.
        self._go = threading.Lock()
        self._waits = threading.Lock()
        self._go.acquire()
        self._waits.acquire()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()
        self._waits.acquire()

    @property
    def ended(self) -> bool:
        """Whether it has come to its end, by itself or by an error."""
        return self.step is None

    def advance(self, fault: Exception | None = None) -> None:
        """Let it carry out its step and go on to the next one."""
        self._fault = fault
        self.steps += 1
        self._go.release()
        self._waits.acquire()

    def wait(self, step: Step) -> Exception | None:
        """Called in the thread: wait for `advance`; return how the step is to end."""
        if self._killed:
            raise Killed
        self.step = step
        self._waits.release()
        self._go.acquire()
        if self._killed:
            raise Killed
        return self._fault

    def saw(self, answer: object) -> None:
        """Called in the thread: what it does from here on depends on this answer too."""
        self.history = hash((self.history, self.step, repr(answer)))

    def throw_away(self) -> None:
        """End the thread; what it cleans up on its way is not what a killed process does."""
        self._killed = True
        if not self.ended:
            self._go.release()
        self._thread.join()

    def _main(self) -> None:
        try:
            self.wrote = self._run(self)
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.step = None
        self._waits.release()


@dataclass(eq=False)
class File:
    """A file's content, and that which a loss of power leaves."""

    latest: bytes
    synced: bytes | None = None

    def after_power_cut(self) -> list[bytes]:
        """What may be found afterwards: all, nothing, a part, or what was synced before."""
        if self.synced == self.latest:
            return [self.latest]
        left = [self.latest, b"", self.latest[: len(self.latest) // 2]]
        return left if self.synced is None else [*left, self.synced]


@dataclass(eq=False)
class Folder:
    """Every name's meanings since the folder was synced, the oldest first."""

    names: dict[str, list[File | Folder | None]] = field(default_factory=dict)

    def set(self, name: str, node: File | Folder | None) -> None:
        """Give a name a new meaning."""
        self.names.setdefault(name, [None]).append(node)

    def get(self, name: str) -> File | Folder | None:
        """Return what a name means now."""
        return self.names.get(name, [None])[-1]

    def sync(self) -> None:
        """Make the names durable."""
        for meanings in self.names.values():
            del meanings[:-1]

    def visible(self, prefix: str = "") -> State:
        """Return what every process sees."""
        found: State = {}
        for name, meanings in self.names.items():
            if isinstance(meanings[-1], Folder):
                found |= meanings[-1].visible(f"{prefix}{name}/")
            elif meanings[-1] is not None and not is_temporary(name):
                found[prefix + name] = meanings[-1].latest
        return found

    def after_power_cut(self, prefix: str = "") -> list[State]:
        """Return all that may be found afterwards."""
        states: list[State] = [{}]
        for name, meanings in self.names.items():
            if is_temporary(name):
                continue
            options: list[State] = []
            for node in dict.fromkeys(meanings):
                for option in _after_power_cut(node, prefix + name):
                    if option not in options:
                        options.append(option)
            states = [{**state, **option} for state in states for option in options]
        return states


def _after_power_cut(node: File | Folder | None, name: str) -> list[State]:
    if node is None:
        return [{}]
    if isinstance(node, Folder):
        return node.after_power_cut(f"{name}/")
    return [{name: content} for content in node.after_power_cut()]


class Disk:
    """A real directory, which holds what is visible, and beside it what is durable.

    Args:
        root: An empty directory; in memory, so that it is fast.
        state: What is there in the beginning, all of it durable.
    """

    def __init__(self, root: Path, state: State) -> None:
        self.root = root
        self.top = Folder()
        for name, data in state.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            folder = self.top
            for part in name.split("/")[:-1]:
                if folder.get(part) is None:
                    folder.names[part] = [Folder()]
                below = folder.get(part)
                assert isinstance(below, Folder)
                folder = below
            folder.names[path.name] = [File(data, data)]

    def folder(self, path: Path) -> Folder:
        """Return a directory that was made by a step."""
        folder = self.top
        for part in path.relative_to(self.root).parts:
            below = folder.get(part)
            assert isinstance(below, Folder)
            folder = below
        return folder

    def set(self, path: Path, node: File | Folder | None) -> None:
        """Give a name a new meaning."""
        self.folder(path.parent).set(path.name, node)

    def file(self, path: Path) -> File:
        """Return a file; one that was written without a step is found now."""
        found = self.folder(path.parent).get(path.name)
        if not isinstance(found, File):
            found = File(b"")
            self.set(path, found)
        found.latest = path.read_bytes()
        return found


class SimulatedPosix(Posix):
    """System calls of one process, each of them a step."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self.disk = disk
        self.process = process

    def _wait(self, name: str, path: Path) -> None:
        self.process.wait(Step(name, path.relative_to(self.disk.root).as_posix()))

    def write(self, path: Path, data: bytes) -> None:
        self._wait("write", path)
        try:
            super().write(path, data)
        except FileNotFoundError as error:
            self.process.saw(type(error))
            raise
        self.disk.set(path, File(data))

    def sync_file(self, path: Path) -> None:
        self._wait("sync_file", path)
        file = self.disk.file(path)
        file.synced = file.latest

    def replace(self, source: Path, target: Path) -> None:
        self._wait("replace", target)
        file = self.disk.file(source)
        super().replace(source, target)
        self.disk.set(source, None)
        self.disk.set(target, file)

    def link(self, source: Path, target: Path) -> None:
        self._wait("link", target)
        file = self.disk.file(source)
        try:
            super().link(source, target)
        except FileExistsError as error:
            self.process.saw(type(error))
            raise
        self.disk.set(target, file)
        self.process.saw("linked")

    def sync_directory(self, directory: Path) -> None:
        if not directory.is_relative_to(self.disk.root):
            return
        self._wait("sync_directory", directory)
        if not directory.is_dir():
            raise FileNotFoundError(directory)
        self.disk.folder(directory).sync()

    def unlink(self, path: Path) -> None:
        self._wait("unlink", path)
        if path.exists():
            self.disk.file(path)
            super().unlink(path)
            self.disk.set(path, None)

    def is_directory(self, path: Path) -> bool:
        self._wait("is_directory", path)
        there = super().is_directory(path)
        self.process.saw(there)
        return there

    def make_directory(self, directory: Path) -> None:
        self._wait("make_directory", directory)
        if not directory.exists():
            super().make_directory(directory)
            self.disk.set(directory, Folder())

    def remove_directory(self, directory: Path) -> None:
        """Remove a directory if it is empty."""
        self._wait("remove_directory", directory)
        with suppress(OSError):
            directory.rmdir()
            self.disk.set(directory, None)

    def read(self, path: Path) -> bytes:
        self._wait("look", path)
        try:
            data = super().read(path)
        except OSError as error:
            self.process.saw(type(error))
            raise
        self.process.saw(data)
        return data

    def stat(self, path: Path) -> FileStat | None:
        self._wait("look", path)
        found = super().stat(path)
        self.process.saw(found and found.size)
        return found

    def files(self, directory: Path) -> Iterator[FileStat]:
        self._wait("look", directory)
        found = [one for one in Posix().files(directory) if one.path.exists()]
        self.process.saw([one.path.name for one in found if not is_temporary(one.path.name)])
        yield from found


class SimulatedBackend(LocalBackend):
    """A directory whose files and directories are removed in steps, too."""

    def __init__(self, posix: SimulatedPosix) -> None:
        super().__init__(posix.disk.root, posix)
        self.simulated = posix

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.simulated.unlink(self.root / key)

    def prune(self, prefix: str) -> None:
        self.simulated.remove_directory(self.root / prefix)


class World(Protocol):
    """A storage, and the processes on it.

    Attributes:
        processes: Each of them waits for its next step, or has ended.
        faults: How a step may end.
        finished_with: For whoever checks: the content of the file that says that all is done.
    """

    processes: list[Process]
    faults: tuple[Exception, ...]
    finished_with: bytes | None

    def visible(self) -> State:
        """Return what every process sees."""
        ...

    def after_power_cut(self) -> list[State]:
        """Return all that may be found after a loss of power at this moment."""
        ...

    def close(self) -> None:
        """Throw everything away."""
        ...


class LocalWorld:
    """Processes on a directory."""

    posix: type[SimulatedPosix] = SimulatedPosix
    finished_with: bytes | None = None
    faults: tuple[Exception, ...] = ()

    def __init__(self, root: Path, state: State, works: dict[str, Work]) -> None:
        root.mkdir()
        self.disk = Disk(root, state)
        self.processes = [Process(name, self._runner(work)) for name, work in works.items()]

    def _runner(self, work: Work) -> Callable[[Process], bool]:
        def run(process: Process) -> bool:
            return work(Directory(SimulatedBackend(self.posix(self.disk, process))))

        return run

    def visible(self) -> State:
        return self.disk.top.visible()

    def after_power_cut(self) -> list[State]:
        return self.disk.top.after_power_cut()

    def close(self) -> None:
        for process in self.processes:
            process.throw_away()
        shutil.rmtree(self.disk.root)


class ObjectWorld:
    """Processes on an object store."""

    client: type[Client] = Client
    finished_with: bytes | None = None
    faults: tuple[Exception, ...] = (LOST,)

    def __init__(self, _: Path, state: State, works: dict[str, Work]) -> None:
        self.prefix = f"{URI.path}/"
        self.store = Store({self.prefix + name: data for name, data in state.items()})
        self.processes = [Process(name, self._runner(work)) for name, work in works.items()]

    def _runner(self, work: Work) -> Callable[[Process], bool]:
        def run(process: Process) -> bool:
            client = self.client(self.store, lambda *step: process.wait(Step(*step)), process.saw)
            return work(Directory(ObjectBackend(URI, client)))

        return run

    def visible(self) -> State:
        return {name.removeprefix(self.prefix): d for name, d in self.store.objects.items()}

    def after_power_cut(self) -> list[State]:
        """Return what is visible: the store answers when a write is durable."""
        return [self.visible()]

    def close(self) -> None:
        for process in self.processes:
            process.throw_away()


def freeze(state: State) -> frozenset[tuple[str, bytes]]:
    """Return a state as a key."""
    return frozenset(state.items())
