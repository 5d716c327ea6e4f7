"""Tell how far the job is."""

from time import monotonic
from typing import TextIO

__all__ = ["Progress"]

_TTY_S, _PLAIN_S = 0.1, 5.0


class Progress:
    """One line that is written anew on a terminal; elsewhere a line now and then.

    Parameters
    ----------
    total : int
        Bytes to do.
    stream : file or None
        Where to write; None for nowhere.
    """

    def __init__(self, total: int, stream: TextIO | None) -> None:
        self._total = max(total, 1)
        self._stream = stream
        self._terminal = stream is not None and stream.isatty()
        self._every = _TTY_S if self._terminal else _PLAIN_S
        self._start = self._last = monotonic()
        self._width = 0

    def update(self, done: int) -> None:
        """Say that *done* bytes of the total are done, if it is time to."""
        if self._stream is not None and monotonic() - self._last >= self._every:
            self._write(done)

    def say(self, text: str) -> None:
        """Name what the job does now, where it has no bytes to count."""
        if self._stream is not None:
            self._show(text)

    def end(self, done: int) -> None:
        """Write the last line."""
        if self._stream is not None:
            self._write(done)
        self.close()

    def close(self) -> None:
        """Leave the line, so that what follows starts on a new one."""
        if self._stream is not None and self._terminal and self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0

    def _write(self, done: int) -> None:
        self._last = monotonic()
        seconds = max(self._last - self._start, 1e-9)
        rate = done / seconds
        left = (self._total - done) / rate if rate else 0.0
        ahead = f"{left:4.0f} s left" if done < self._total else f"{seconds:4.1f} s"
        percent = min(done / self._total, 1)
        self._show(
            f"{percent:4.0%}  {done / 1e6:8.1f} MB  {rate / 1e6:6.2f} MB/s{ahead:>13}"
        )

    def _show(self, text: str) -> None:
        assert self._stream is not None
        if self._terminal:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()
