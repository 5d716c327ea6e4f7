"""What NumPy programs do with memory, one step at a time."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["WORKLOADS", "Workload"]

MIB = 1 << 20
Step = Callable[[], Any]


@dataclass(frozen=True)
class Workload:
    """``make()`` prepares the inputs and returns one step. All of it runs under the
    allocator that is measured."""

    name: str
    make: Callable[[], Step]
    steps: int  # in one turn
    gain: bool  # whether memory counts at all


def chain(x: Any, y: Any) -> Any:
    """Seven elementwise operations, each into a new array."""
    t = x * 1.5
    t = t + y
    t = t - x
    t = t * y
    t = np.abs(t)
    t = np.maximum(t, x)
    return t * 0.5


def make_chain(nbytes: int, kept: int = 0) -> Step:
    x = np.linspace(0.5, 1.5, nbytes // 8)
    y = x[::-1].copy()
    if not kept:
        return lambda: chain(x, y)
    results: deque[Any] = deque(maxlen=kept)
    return lambda: results.append(chain(x, y))


def make_image(height: int, width: int, crop: int | None = None) -> Step:
    """uint8 pixels to a normalised float32 array, channels first."""
    frame = np.arange(height * width * 3, dtype=np.uint32).astype(np.uint8)
    frame = frame.reshape(height, width, 3)
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    scale = np.array([0.229, 0.224, 0.225], np.float32)
    window = slice(None) if crop is None else slice(200, 200 + crop)

    def step() -> Any:
        pixels = frame[window, window].astype(np.float32) / np.float32(255)
        return np.ascontiguousarray(((pixels - mean) / scale).transpose(2, 0, 1))

    return step


def make_small(n: int, repeat: int = 200) -> Step:
    x = np.linspace(0.5, 1.5, n)

    def step() -> None:
        for _ in range(repeat):
            t = x * 1.5
            t = t + x
            t = t - x

    return step


def make_sparse(nbytes: int) -> Step:
    """A table of zeros of which hardly anything is used."""

    def step() -> Any:
        table = np.zeros(nbytes, np.uint8)
        table[:: nbytes // 8] = 1
        return table

    return step


def workloads() -> Iterator[Workload]:
    for size, steps in ((1, 120), (8, 20), (64, 4)):
        text = f"chain of 7 on {size} MiB"
        yield Workload(text, lambda s=size: make_chain(s * MIB), steps, size > 1)
    yield Workload(
        "chain of 7 on 8 MiB, 4 kept", lambda: make_chain(8 * MIB, 4), 20, True
    )
    yield Workload("1080p frame", lambda: make_image(1080, 1920), 4, True)
    yield Workload("640x640 crop", lambda: make_image(1080, 1920, 640), 20, False)
    for n in (10, 200, 2_000, 20_000):
        yield Workload(
            f"600 arrays of {n} doubles", lambda n=n: make_small(n), 60, False
        )
    yield Workload("8 of 64 MiB of zeros", lambda: make_sparse(64 * MIB), 4, False)


WORKLOADS = list(workloads())
