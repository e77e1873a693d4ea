"""Decode damaged images as the jobs do, in a process that may die of them.

    python -m tests.corpora.mutation_run SEED FIRST COUNT [FILE]

The process ends with exit code 0 and a line of counts, or with the number of a mutation and what
became of it. Give that number as FIRST, and 1 as COUNT, to see it again. FILE is kept at the number
that is tried, which outlives the process.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import hashlib
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageFile

from raysae.corpora.images import MAX_IMAGE_PIXELS, check_image
from raysae.errors import RejectedSampleError
from raysae.models.images import decode_image
from tests.corpora.mutations import mutation
from tests.corpora.pictures import pictures

REASONS = frozenset({"no-image", "image-bomb", "truncated-image", "undecodable-image"})

SMALL_PIXELS = 1 << 20
"""The first limit an image meets: a small one makes what it does not bound stand out, and is quick.
What is a bomb by it meets the limit of the jobs, 64 times as high, as well."""

CPU_S = 5.0
"""For one step of one image. Not of the clock, which a busy machine moves as well."""

CLOCK_S = 60.0

FIXED_BYTES = 288 << 20
"""What an image of any size may take: Pillow allows a PNG 64 Mi characters of text, at 4 bytes each
if one of them needs that, and fills a GIF's canvas of 178 million pixels before it can be asked."""

PIXEL_BYTES = 28
"""What it may take for each pixel that is allowed: 1.75 GiB at the jobs' limit. The most is needed
for deep greyscale, which `decode_image` scales in 8-byte numbers, three of them at a time. Both
together are what `raysae.stages._trials.Limits` counts with."""

GROWTH_BYTES = 24 << 20
"""What the process may grow by between a fifth of the run and its end."""

MOST_WARNINGS = 1000
"""Of one image; Python prints each text once."""

MOST_NOISE_BYTES = 1 << 18
"""What the C libraries may write about one image: libtiff, a line for each of 500 odd entries, when
it is checked and when it is decoded."""

_ADDRESS_BYTES = 6 << 30
"""More than the process has at its start: an end to what would take the machine along."""


class WrongError(Exception):
    """An image that was neither decoded nor rejected as it should be."""


@dataclass
class Counts:
    """What became of the images.

    Attributes:
        reasons: Reason → rejections by `check_image`, with `accepted`, and those that
            `decode_image` rejects afterwards as `decode: REASON`.
        slowest: (seconds of the processor, mutation).
        highest: (bytes above the start, mutation), by limit of pixels.
        warnings: Most of one image.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, 0)
    highest: dict[int, tuple[int, int]] = field(default_factory=dict)
    warnings: int = 0


class Process:
    """What this process has taken so far."""

    def __init__(self) -> None:
        self._start = self.resident()
        self.warned = 0
        self._shown = warnings.showwarning
        warnings.showwarning = self._count

    def _count(self, *_: object, **__: object) -> None:
        self.warned += 1

    @staticmethod
    def resident(name: str = "VmRSS") -> int:
        """Return a figure of /proc in bytes."""
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

    def forget_peak(self) -> None:
        """Let the peak begin anew, so that each image has its own."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> int:
        """Return the peak above the start, in bytes."""
        return self.resident("VmHWM") - self._start

    def settled(self) -> int:
        """Return what is resident once all that is free has been given back, above the start."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        return self.resident() - self._start

    @staticmethod
    def noise() -> int:
        """Return how much was written to the standard error, where that is a file."""
        return os.fstat(2).st_size


def try_image(data: bytes, max_pixels: int) -> str:
    """Check an image and, if it is accepted, decode it; return what became of it.

    Raises:
        WrongError: It was decoded to something else than was checked.
        Exception: Whatever a decoder raised but for a rejection.
    """
    try:
        with _in_time():
            width, height = check_image(data, max_pixels)
    except RejectedSampleError as error:
        return _known(error)
    try:
        with _in_time():
            image = decode_image(data)
    except RejectedSampleError as error:
        return f"decode: {_known(error)}"
    if image.mode != "RGB" or image.size not in ((width, height), (height, width)):
        raise WrongError(f"{width}×{height} pixels became {image.size} of {image.mode}")
    if not 0 < width * height <= max_pixels:
        raise WrongError(f"{width}×{height} pixels were accepted, of {max_pixels:,}")
    return "accepted"


@contextmanager
def _in_time() -> Iterator[None]:
    """End this process if the block takes too long."""
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    faulthandler.dump_traceback_later(CLOCK_S, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()


def _known(error: RejectedSampleError) -> str:
    if error.reason not in REASONS or not error.detail:
        raise WrongError(f"rejected for {error.reason!r}: {error.detail!r}")
    return error.reason


def run(seed: int, first: int, count: int, tell: Callable[[int], None]) -> Counts:
    """Try a run of mutations.

    Args:
        seed: Of `mutation`.
        first: The first number.
        count: How many.
        tell: Called with each number before it is tried.

    Raises:
        WrongError: An image, or the run as a whole, was not as it should be.
    """
    intact, state = _intact(), _state()
    counts, process = Counts(), Process()
    early = 0
    for number in range(first, first + count):
        tell(number)
        _try_mutation(seed, number, counts, process)
        if number == first + count // 5:
            early = process.settled()
    grown = process.settled() - early
    if grown > GROWTH_BYTES:
        raise WrongError(f"the process grew by {grown >> 20} MiB after a fifth of the run")
    if _state() != state:
        raise WrongError("Pillow's settings have changed")
    if changed := [name for name, pixels in _intact().items() if pixels != intact[name]]:
        raise WrongError(f"intact pictures decode otherwise than before: {changed}")
    return counts


def _try_mutation(seed: int, number: int, counts: Counts, process: Process) -> None:
    data = mutation(seed, number).data
    for max_pixels in (SMALL_PIXELS, MAX_IMAGE_PIXELS):
        warned, noise = process.warned, process.noise()
        process.forget_peak()
        start = time.process_time()
        became = try_image(data, max_pixels)
        peak = process.peak()
        counts.slowest = max(counts.slowest, (time.process_time() - start, number))
        counts.highest[max_pixels] = max(counts.highest.get(max_pixels, (0, 0)), (peak, number))
        counts.warnings = max(counts.warnings, process.warned - warned)
        allowed = FIXED_BYTES + PIXEL_BYTES * max_pixels + 4 * len(data)
        if peak > allowed:
            raise WrongError(f"it took {peak >> 20} MiB; {allowed >> 20} are allowed")
        if process.warned - warned > MOST_WARNINGS:
            raise WrongError(f"it brought {process.warned - warned} warnings")
        if process.noise() - noise > MOST_NOISE_BYTES:
            raise WrongError("a decoder wrote page after page about it")
        if became != "image-bomb":
            break
    counts.reasons[became] += 1


def _intact() -> dict[str, str]:
    """Decode all pictures; their pixels' digests by name."""
    digests = {}
    for name, data in pictures().items():
        check_image(data)
        digests[name] = hashlib.sha256(decode_image(data).tobytes()).hexdigest()
    return digests


def _state() -> tuple[object, ...]:
    """Return what one image could leave behind for the next."""
    filters = tuple(map(str, warnings.filters))
    return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, ImageFile.MAXBLOCK, filters


def line(counts: Counts) -> str:
    """Return the counts as a line for people."""
    slowest_s, slowest = counts.slowest
    peaks = ", ".join(
        f"{peak >> 20} MiB (mutation {number}) at {pixels:,} pixels"
        for pixels, (peak, number) in sorted(counts.highest.items())
    )
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.reasons.items()))
    return (
        f"{counts.reasons.total():,} mutated images: {reasons}; slowest {slowest_s * 1000:.0f} ms "
        f"(mutation {slowest}); peak {peaks}; at most {counts.warnings} warnings"
    )


def _limit() -> None:
    """Bound the address space, and end this process where a step takes too long."""
    most = Process.resident("VmSize") + _ADDRESS_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)


def main(arguments: Sequence[str]) -> None:
    """Try the mutations that the command line names."""
    seed, first, count = map(int, arguments[:3])
    number_file = os.open(arguments[3] if arguments[3:] else os.devnull, os.O_WRONLY | os.O_CREAT)
    now = first

    def tell(number: int) -> None:
        nonlocal now
        now = number
        os.pwrite(number_file, b"%12d" % number, 0)
        if count == 1:
            print(mutation(seed, number).name, flush=True)

    _limit()
    try:
        print(line(run(seed, first, count, tell)))
    except Exception:
        traceback.print_exc()
        sys.exit(f"mutation {now} of seed {seed}")


if __name__ == "__main__":
    main(sys.argv[1:])
