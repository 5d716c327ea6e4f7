"""A call of somebody's function that may take too long, or be a coroutine function."""

import asyncio
import concurrent.futures
import contextvars
import inspect
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["aside", "call", "call_async", "in_thread"]


def in_thread(
    function: Callable[..., Any], *args: Any
) -> "concurrent.futures.Future[Any]":
    """Call *function* in a thread of its own: one that hangs holds up nobody, not even
    the interpreter's end."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    context = contextvars.copy_context()

    def work() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(context.run(function, *args))
        except StopIteration as error:  # which no asyncio future takes
            future.set_exception(RuntimeError(f"it raised {error!r}"))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="ctxpool-call", daemon=True).start()
    return future


async def aside(function: Callable[..., Any], *args: Any) -> Any:
    """The same, awaited."""
    return await asyncio.wrap_future(in_thread(function, *args))


def call(function: Callable[..., Any], *args: Any, timeout: float | None) -> Any:
    """What *function* returns, or what the awaitable that it returns comes to.

    An awaitable gets an event loop in a thread of its own: this one may have a loop.
    Without a timeout, a plain function is called in this thread.
    """
    if timeout is not None or inspect.iscoroutinefunction(function):
        return in_thread(_whole, timeout, function, *args).result(timeout)
    found = function(*args)
    if inspect.isawaitable(found):
        return in_thread(_whole, None, lambda: found).result()
    return found


async def call_async(
    function: Callable[..., Any], *args: Any, timeout: float | None
) -> Any:
    """The same, on the running loop; a plain function is called in a thread."""

    async def both() -> Any:
        if inspect.iscoroutinefunction(function):
            return await function(*args)
        found = await aside(function, *args)
        return await found if inspect.isawaitable(found) else found

    return await asyncio.wait_for(both(), timeout)


def _whole(timeout: float | None, function: Callable[..., Any], *args: Any) -> Any:
    found = function(*args)
    if not inspect.isawaitable(found):
        return found

    async def awaited() -> Any:
        return await asyncio.wait_for(found, timeout)

    return asyncio.run(awaited())
