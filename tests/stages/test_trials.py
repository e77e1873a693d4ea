from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from raysae.errors import DataError, RaysaeError, SettingsError
from raysae.stages._child import Work
from raysae.stages._trials import ATTEMPTS, CRASH, TIMEOUT, Limits, Loss, Trials
from tests.cluster.crashing.deaths import DEATHS

LIMITS = Limits(memory_bytes=300 << 20)
REPOSITORY = Path(__file__).parents[2]


class Obedient(Work):
    """Does what a request says, and counts what this child was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.poisoned = False

    def load(self, request: tuple[str, Any]) -> None:
        if request[0] == "load":
            DEATHS[request[1]]()

    def work(self, request: tuple[str, Any]) -> Any:
        self.asked += 1
        if self.poisoned:
            os._exit(1)
        order, value = request
        return getattr(self, order)(value)

    def die(self, death: str) -> None:
        DEATHS[death]()

    def echo(self, value: Any) -> Any:
        return value

    def me(self, _: Any) -> tuple[int, int]:
        return os.getpid(), self.asked

    def poison(self, _: Any) -> str:
        self.poisoned = True
        return "poisoned"

    def fail(self, error: Exception) -> None:
        raise error

    def fail_oddly(self, _: Any) -> None:
        raise lambda_error()("odd")

    def chatter(self, length: int) -> str:
        os.write(1, b"x" * length)
        sys.stdout.write("y" * length)
        sys.stderr.write("z" * length)
        return "said"

    def leave_a_grandchild(self, _: Any) -> None:
        if os.fork():
            os._exit(4)
        time.sleep(5)
        os._exit(0)

    def die_once(self, path: Path) -> str:
        if path.exists():
            return "survived"
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def count_tries(self, path: Path) -> None:
        with path.open("a") as file:
            file.write(f"{os.getpid()} {self.asked}\n")
        os._exit(5)

    def modules(self, _: Any) -> list[str]:
        return sorted(sys.modules)


def lambda_error() -> type[Exception]:
    class LocalError(Exception):
        pass

    return LocalError


class Unstartable(Work):
    def __init__(self, how: str) -> None:
        self.how = how

    def start(self) -> None:
        if self.how == "import":
            import no_such_module_of_raysae  # noqa: F401
        elif self.how == "settings":
            raise SettingsError("model.path: it is gone.")
        else:
            DEATHS[self.how]()

    def work(self, request: Any) -> None: ...


@pytest.fixture
def restored_interrupt() -> Iterator[None]:
    """Python's own answer to SIGINT, which a shell lets its background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def only_child() -> psutil.Process:
    (child,) = [
        process
        for process in psutil.Process().children()
        if "raysae.stages._child" in process.cmdline()
    ]
    return child


def no_child() -> bool:
    return not any(
        "raysae.stages._child" in process.cmdline()
        for process in psutil.Process().children()
        if process.status() != psutil.STATUS_ZOMBIE
    )


def test_one_child_does_all_that_harms_no_child() -> None:
    with Trials(Obedient(), LIMITS) as trials:
        assert [trials.run(("echo", value)) for value in range(1000)] == list(range(1000))
        pid, asked = trials.run(("me", None))
        assert asked == 1001
        assert pid == only_child().pid != os.getpid()
    assert no_child()


def test_no_child_is_started_for_nothing() -> None:
    with Trials(Obedient(), LIMITS):
        assert no_child()


@pytest.mark.parametrize(
    ("death", "reason", "detail"),
    [
        ("segfault", CRASH, "was ended by SIGSEGV"),
        ("abort", CRASH, "was ended by SIGABRT"),
        ("kill", CRASH, "was ended by SIGKILL"),
        ("exit", CRASH, "ended with exit code 3"),
        ("hang", TIMEOUT, "took longer than 1 s"),
        ("refusal", CRASH, "asked for more memory than there is"),
        ("growth", CRASH, "took more than 0.293 GiB of memory"),
    ],
)
def test_what_kills_a_child_is_told_and_the_next_request_is_served(
    death: str, reason: str, detail: str
) -> None:
    limits = replace(LIMITS, row_s=1.0) if death == "hang" else LIMITS
    with Trials(Obedient(), limits) as trials:
        assert trials.run(("echo", 1)) == 1
        assert trials.run(("die", death)) == Loss(reason, detail, loading=False)
        assert trials.run(("echo", 2)) == 2
    assert no_child()


def test_a_child_lost_while_it_loads_is_told_apart() -> None:
    with Trials(Obedient(), LIMITS) as trials:
        lost = trials.run(("load", "exit"))
        assert lost == Loss(CRASH, "ended with exit code 3", loading=True)
        lost = trials.run(("load", "hang"), load_s=0.2)
        assert lost == Loss(TIMEOUT, "took longer than 0.2 s", loading=True)


def test_a_request_is_tried_again_only_once_and_then_in_a_child_of_its_own(tmp_path: Path) -> None:
    with Trials(Obedient(), LIMITS) as trials:
        trials.run(("echo", 1))
        assert isinstance(trials.run(("count_tries", tmp_path / "tries")), Loss)
    tries = [line.split() for line in (tmp_path / "tries").read_text().splitlines()]
    assert len({pid for pid, _ in tries}) == ATTEMPTS == 2
    assert [asked for _, asked in tries] == ["2", "1"]


def test_a_request_pays_neither_for_the_one_before_nor_for_the_machine(tmp_path: Path) -> None:
    with Trials(Obedient(), LIMITS) as trials:
        assert trials.run(("poison", None)) == "poisoned"
        assert trials.run(("echo", 1)) == 1
        assert trials.run(("die_once", tmp_path / "died")) == "survived"
        only_child().kill()
        assert trials.run(("echo", 2)) == 2


def test_large_requests_and_answers_pass() -> None:
    value = os.urandom(1 << 24)
    with Trials(Obedient(), LIMITS) as trials:
        assert trials.run(("echo", value)) == value


def test_a_child_that_takes_no_more_of_a_request_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("raysae.stages._trials._EXIT_S", 0.5)
    value = os.urandom(1 << 24)
    with Trials(Obedient(), replace(LIMITS, load_s=1.0)) as trials:
        assert trials.run(("echo", 1)) == 1
        only_child().suspend()
        assert trials.run(("echo", value)) == value


def test_what_a_child_writes_disturbs_nothing() -> None:
    with Trials(Obedient(), LIMITS) as trials:
        assert trials.run(("chatter", 1 << 20)) == "said"
        assert trials.run(("echo", 1)) == 1


def test_what_a_lost_child_wrote_reaches_this_process_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Trials(Obedient(), LIMITS) as trials:
        trials.run(("die", "segfault"))
    assert "Fatal Python error: Segmentation fault" in capsys.readouterr().err


def test_a_process_that_outlives_a_child_holds_nothing_up() -> None:
    with Trials(Obedient(), LIMITS) as trials:
        lost = trials.run(("leave_a_grandchild", None))
    assert lost == Loss(CRASH, "ended with exit code 4", loading=False)


def test_exceptions_pass_and_cost_no_child() -> None:
    with Trials(Obedient(), LIMITS) as trials:
        pid, _ = trials.run(("me", None))
        with pytest.raises(DataError, match=r"^x is damaged\.$"):
            trials.run(("fail", DataError("x is damaged.")))
        with pytest.raises(KeyError) as raised:
            trials.run(("fail", KeyError("y")))
        assert "in fail" in raised.value.__notes__[0]
        with pytest.raises(RuntimeError, match="LocalError: odd"):
            trials.run(("fail_oddly", None))
        assert trials.run(("me", None))[0] == pid
    assert no_child()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("import", "ended with exit code 1; ModuleNotFoundError: No module named 'no_such_module"),
        ("exit", "ended with exit code 3; it wrote nothing"),
        ("kill", "was ended by SIGKILL"),
        ("refusal", "MemoryError"),
        ("hang", "took longer than 3 s"),
    ],
)
def test_a_child_that_does_not_start_is_an_error_of_the_machine(how: str, why: str) -> None:
    with (
        Trials(Unstartable(how), Limits(start_s=3.0)) as trials,
        pytest.raises(RaysaeError, match="did not start on this machine") as raised,
    ):
        trials.run(None)
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)
    assert no_child()


def test_no_interpreter_is_an_error_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with (
        Trials(Obedient(), LIMITS) as trials,
        pytest.raises(RaysaeError, match=r"did not start.*nowhere"),
    ):
        trials.run(None)


def test_what_is_wrong_with_the_settings_is_said_as_it_is() -> None:
    with (
        Trials(Unstartable("settings"), LIMITS) as trials,
        pytest.raises(SettingsError, match=r"^model\.path: it is gone\.$"),
    ):
        trials.run(None)
    assert no_child()


OPENED = """
import psutil
from raysae.errors import RaysaeError
from raysae.stages._trials import Trials
from tests.stages.test_trials import LIMITS, Obedient, Unstartable

before = psutil.Process().num_fds()
with Trials(Obedient(), LIMITS) as trials:
    trials.run(("die", "exit"))
    trials.run(("echo", 1))
try:
    with Trials(Unstartable("exit"), LIMITS) as trials:
        trials.run(None)
except RaysaeError:
    print(psutil.Process().num_fds() - before, len(psutil.Process().children()))
"""


def test_nothing_is_left_open() -> None:
    """In a process of its own: threads of other tests may open and close files meanwhile."""
    done = subprocess.run(
        [sys.executable, "-c", OPENED],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "0 0\n"


def test_an_interrupt_ends_the_child_too(restored_interrupt: None) -> None:
    main = threading.main_thread().ident
    assert main is not None
    interrupt = threading.Timer(0.5, lambda: signal.pthread_kill(main, signal.SIGINT))
    with Trials(Obedient(), Limits()) as trials:
        assert trials.run(("echo", 1)) == 1
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            trials.run(("die", "hang"))
    assert no_child()


def test_a_child_knows_no_ray() -> None:
    with Trials(Obedient(), LIMITS) as trials:
        assert "ray" not in trials.run(("modules", None))


PARENT = """
from raysae.stages._trials import Limits, Trials
from tests.stages.test_trials import Obedient

with Trials(Obedient(), Limits()) as trials:
    print(trials.run(("me", None))[0], flush=True)
    trials.run(("die", {death!r}))
"""


def test_a_child_that_hangs_dies_with_its_parent() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(death="hang")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.ppid() == parent.pid
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    psutil.wait_procs([child], timeout=300)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
