"""The job's connection to Ray, in processes of their own: what is printed when."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from raysae.stages.connection import disconnect

SCRIPT = """
import functools, sys, threading, time
import ray
from raysae.stages.connection import connect, disconnect

given = sys.argv[1] == "given"
ray.init = functools.partial(
    ray.init, address="local", num_cpus=1, include_dashboard=False, _temp_dir=sys.argv[2]
)
if given:
    ray.init()

@ray.remote(num_cpus=1)
class Talker:
    def talk(self):
        def work():
            while True:
                print("a word", flush=True)
                time.sleep(0.01)
        threading.Thread(target=work, daemon=True).start()

connect()
talker = Talker.remote()
ray.get(talker.talk.remote())
time.sleep(3)
disconnect()
print("connected" if ray.is_initialized() else "gone", flush=True)
if not given:
    time.sleep(2)
"""


def output_of(kind: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as temporary:
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, kind, temporary],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            env={**environment, "RAY_AUTH_MODE": "disabled"},
        )
    return ended.stdout


def test_nothing_is_printed_after_the_end() -> None:
    output = output_of("own")
    assert "a word" in output
    assert output.splitlines()[-1] == "gone"


def test_a_connection_of_somebody_else_is_left_alone() -> None:
    assert "connected" in output_of("given").splitlines()


def test_without_a_connection_there_is_nothing_to_end() -> None:
    disconnect()
