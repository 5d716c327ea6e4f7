"""What is closed at the end of a ``with`` block."""

from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing:
    """Its ``close()`` is called when the block ends, however it does."""

    def close(self) -> None:
        """Let go of the file."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
