"""The exceptions of ctxpool.

:class:`CtxPoolError` is at the root. Each of the others is a built-in exception
too, so that code which knows nothing of ctxpool catches them by the usual name.
"""

__all__ = [
    "BlockInUseError",
    "BlockReleasedError",
    "BudgetExceededError",
    "CorruptionError",
    "CtxPoolError",
    "DamagedStoreError",
    "FrameError",
    "LeaseError",
    "MemoryLimitError",
    "NativeOnlyError",
    "PoolClosedError",
    "PoolExhaustedError",
    "PoolTimeoutError",
    "SegmentError",
    "StoreClosedError",
    "StoreError",
    "TokenRangeError",
    "TruncatedFrameError",
    "UnknownResourceError",
    "UnknownSequenceError",
    "UnknownToolCallError",
    "UnstorableMessageError",
    "ValueTooLargeError",
]


class CtxPoolError(Exception):
    """Whatever goes wrong in ctxpool itself."""


class PoolExhaustedError(CtxPoolError, MemoryError):
    """No block or object is free, and the pool may not make more."""


class PoolTimeoutError(PoolExhaustedError, TimeoutError):
    """No block or object became free in time."""


class PoolClosedError(CtxPoolError, ValueError):
    """The pool was closed and hands out nothing more."""


class BlockReleasedError(CtxPoolError, ValueError):
    """The block was released: it can be neither used nor released again."""


class BlockInUseError(CtxPoolError, BufferError):
    """A strict release found the block's memory still reachable."""


class LeaseError(CtxPoolError, ValueError):
    """The lease of an object has none: it was released, or is still to be awaited."""


class CorruptionError(CtxPoolError, RuntimeError):
    """Debug mode found bytes written where nobody may write."""


class NativeOnlyError(CtxPoolError, NotImplementedError):
    """Something that only the native build can do was asked of the pure one."""


class SegmentError(CtxPoolError, ValueError):
    """A file descriptor holds no shared pool that this process can use."""


class FrameError(CtxPoolError, ValueError):
    """A pickle's frame is damaged, or asks for more than it may."""


class TruncatedFrameError(FrameError, EOFError):
    """A pickle's frame ends before its end."""


class MemoryLimitError(CtxPoolError, MemoryError):
    """More memory was wanted than a limit allows.

    Attributes
    ----------
    wanted : int or None
        Bytes; None where the allocator did not say.
    available, limit : int
        Bytes that there were, and that the limit is.
    source : str
        Who sets the limit.
    """

    def __init__(
        self,
        message: str = "",
        *,
        wanted: int | None = None,
        available: int = 0,
        limit: int = 0,
        source: str = "",
    ) -> None:
        super().__init__(message)
        self.wanted, self.available = wanted, available
        self.limit, self.source = limit, source


class TokenRangeError(CtxPoolError, OverflowError):
    """A token does not fit the window's dtype."""


class ValueTooLargeError(CtxPoolError, ValueError):
    """A value is larger than the whole cache may be."""


class BudgetExceededError(CtxPoolError, ValueError):
    """A message, or what is pinned, is larger than a window's budget allows."""


class StoreError(CtxPoolError, OSError):
    """A store's file is damaged, of another kind or version, or can't be written."""


class DamagedStoreError(StoreError):
    """A store's file is not what was written to it."""


class StoreClosedError(CtxPoolError, ValueError):
    """The store was closed and does nothing more."""


class UnknownResourceError(CtxPoolError, LookupError):
    """No resource type of this name is registered."""


class UnstorableMessageError(CtxPoolError, ValueError):
    """A store can't hold a message as it is.

    Attributes
    ----------
    id : str
        The message's.
    """

    def __init__(self, message: str = "", *, id: str = "") -> None:
        super().__init__(message)
        self.id = id


class UnknownToolCallError(CtxPoolError, LookupError):
    """A tool's result answers no call that waits for one."""


class UnknownSequenceError(CtxPoolError, LookupError):
    """No sequence has this handle, or it was freed."""
