"""An object pool's arguments, checked, for both twins."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from typing import Any

from ._arguments import count, seconds

__all__ = ["Settings"]

_HIGHEST = 2**31 - 1


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - not whether it has one
    )


class Settings:
    """A pool's arguments, checked, and what belongs to its event loop."""

    __slots__ = (
        "clock",
        "coroutines",
        "dispose",
        "factory",
        "initial_size",
        "interval",
        "is_async",
        "leak_after",
        "lifo",
        "loop",
        "max_age",
        "max_idle",
        "max_size",
        "min_size",
        "name",
        "on_leak",
        "reset",
        "tasks",
        "timeout",
        "validate",
        "watched",
    )

    def __init__(
        self,
        factory: Any,
        initial_size: Any,
        max_size: Any,
        reset: Any,
        validate: Any,
        dispose: Any,
        min_size: Any,
        timeout: Any,
        lifo: Any,
        max_age: Any,
        max_idle: Any,
        cleanup_interval: Any,
        leak_after: Any,
        on_leak: Any,
        name: Any,
        clock: Any,
    ) -> None:
        if not callable(factory):
            raise TypeError(f"factory must be callable, not {factory!r}")
        callbacks = {
            "reset": reset,
            "validate": validate,
            "dispose": dispose,
            "on_leak": on_leak,
            "clock": clock,
        }
        for argument, callback in callbacks.items():
            if callback is not None and not callable(callback):
                raise TypeError(
                    f"{argument} must be callable or None, not {callback!r}"
                )
        self.factory, self.reset, self.validate = factory, reset, validate
        self.dispose, self.on_leak = dispose, on_leak
        self.max_size = count("max_size", max_size, 1, _HIGHEST)
        self.initial_size = count("initial_size", initial_size, 0, self.max_size)
        self.min_size = count("min_size", min_size, 0, self.max_size)
        self.timeout = seconds("timeout", timeout)
        self.max_age = _positive("max_age", max_age)
        self.max_idle = _positive("max_idle", max_idle)
        self.leak_after = _positive("leak_after", leak_after)
        interval = _positive("cleanup_interval", cleanup_interval)
        # As often as needed to see in time whatever is bounded.
        self.interval = min(interval, self.max_age, self.max_idle, self.leak_after)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be text or None, not {name!r}")
        self.name = name
        self.clock = time.monotonic if clock is None else clock
        self.lifo = bool(lifo)
        self.coroutines = [
            argument
            for argument, callback in (("factory", factory), *callbacks.items())
            if argument not in ("on_leak", "clock") and _is_async(callback)
        ]
        self.is_async = bool(self.coroutines)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.tasks: set[asyncio.Task[Any]] = set()
        self.watched = False

    @property
    def label(self) -> str:
        return "the pool" if self.name is None else f"the pool {self.name!r}"


def _positive(name: str, value: Any) -> float:
    number = seconds(name, value)
    if number == 0:
        raise ValueError(f"{name} must be more than 0, not {value!r}")
    return number
