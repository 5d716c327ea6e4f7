"""Exceptions that nobody can catch."""

__all__ = ["report"]


class _Report:
    """Hands an exception to :func:`sys.unraisablehook`: its finalizer raises it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


def report(error: BaseException) -> None:
    """Hand *error* to :func:`sys.unraisablehook`."""
    _Report(error)
