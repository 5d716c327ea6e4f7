"""A lease of the pure twin's object pool, and the entry that it borrows."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from ctxpool import _object_support as support
from ctxpool.errors import LeaseError

if TYPE_CHECKING:
    from .object_pool import ObjectPool

__all__ = ["DEAD", "HELD", "PENDING", "RESERVED", "Entry", "ObjectLease", "make_lease"]

T = TypeVar("T")

PENDING, RESERVED, HELD, DEAD = range(4)


class Entry:
    """An object of the pool, and what is known of it."""

    __slots__ = (
        "by_lease",
        "created",
        "foreign",
        "object",
        "place",
        "since",
        "told",
        "uses",
    )

    def __init__(self, obj: Any, created: float) -> None:
        self.object = obj
        self.created = self.since = created
        self.uses = 0
        self.by_lease = True
        self.told = False
        self.foreign = False  # the parent's, in a forked child
        self.place: str | None = None


class ObjectLease(Generic[T]):
    """An object of a pool, held until it is released.

    Made by :meth:`ObjectPool.acquire` and :meth:`ObjectPool.acquire_async` only. It
    gives its object back on :meth:`release`, at the end of ``with`` or ``async with``
    (both give the object itself, not the lease), or when the last reference to the
    lease dies. A released lease is dead: its object may be somebody else's by then.

    A lease that is still to be awaited has no object yet; ``await lease`` gives the
    lease, with one.

    **Thread-safety**: each call is atomic. Two threads that release one lease: one of
    them gets the error.
    """

    __slots__ = ("_entry", "_pool", "_state", "_timeout")

    _pool: ObjectPool[T]
    _entry: Entry | None
    _state: int
    _timeout: float | None

    def __new__(cls) -> ObjectLease[T]:
        raise TypeError("leases are made by ObjectPool.acquire()")

    def __init_subclass__(cls) -> None:
        raise TypeError("type 'ctxpool.ObjectLease' is not an acceptable base type")

    @property
    def object(self) -> T:
        """The object; LeaseError where the lease has none. O(1)."""
        entry = self._entry
        if self._state != HELD or entry is None:
            self._refuse()
        return entry.object  # type: ignore[no-any-return]

    @property
    def pool(self) -> ObjectPool[T]:
        """The pool that the object belongs to."""
        return self._pool

    @property
    def released(self) -> bool:
        """Whether the object was given back."""
        return self._state == DEAD

    def release(self) -> None:
        """Give the object back. O(1), and the pool's *reset*.

        In a pool with coroutine functions, what they do is done by a task.

        Raises
        ------
        LeaseError
            The lease has no object: it was released before, or is still to be awaited.
        """
        pool, entry = self._pool, self._detach()
        if not pool._put_back(entry):
            support.give_back(pool, make_lease(pool, HELD, entry))

    def discard(self) -> None:
        """Dispose of the object, which is broken, instead of giving it back.

        Raises
        ------
        LeaseError
            The lease has no object.
        """
        pool, entry = self._pool, self._detach()
        if not entry.foreign:
            support.discard(pool, make_lease(pool, HELD, entry))

    def __enter__(self) -> T:
        if self._state == PENDING:
            self._adopt(support.acquire(self._pool, self._timeout, True))
        return self.object

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._state == HELD:
            self.release()

    async def __aenter__(self) -> T:
        if self._state == PENDING:
            await support.awaited(self)
        return self.object

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._state == HELD:
            pool, entry = self._pool, self._detach()
            if not pool._put_back(entry):
                await support.keep(
                    support.give_back(pool, make_lease(pool, HELD, entry))
                )

    def __await__(self) -> Generator[Any, Any, ObjectLease[T]]:
        if self._state == PENDING:
            yield from support.awaited(self).__await__()
        return self

    def __repr__(self) -> str:
        entry = self._entry
        if self._state == PENDING:
            return "<ObjectLease, to be awaited>"
        if self._state != HELD or entry is None:
            return "<ObjectLease, released>"
        return f"<ObjectLease of {entry.object!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle an ObjectLease: it is good in this process only")

    def __del__(self) -> None:
        if self._state in (RESERVED, HELD):
            state, self._state = self._state, DEAD
            self._pool._dropped.append((state, self._entry))
            self._pool._settle()

    def _refuse(self) -> NoReturn:
        if self._state == PENDING:
            raise LeaseError("the lease has no object yet: use `async with` or `await`")
        raise LeaseError("the lease was released")

    def _detach(self) -> Entry:
        with self._pool._locked:
            entry = self._entry
            if self._state == HELD and entry is not None:
                self._state, self._entry = DEAD, None
                return entry
        self._refuse()

    def _adopt(self, other: ObjectLease[T]) -> None:
        """Take over what *other* holds."""
        with self._pool._locked:
            if self._state == PENDING:
                self._entry, other._entry = other._entry, None
                self._state, other._state = HELD, DEAD
        # Or two awaited it at once: the second has something to give back.

    @property
    def _held(self) -> bool:
        return self._state == HELD


def make_lease(
    pool: ObjectPool[Any],
    state: int,
    entry: Entry | None = None,
    timeout: float | None = None,
) -> ObjectLease[Any]:
    lease: ObjectLease[Any] = object.__new__(ObjectLease)
    lease._pool, lease._state, lease._entry = pool, state, entry
    lease._timeout = timeout
    return lease
