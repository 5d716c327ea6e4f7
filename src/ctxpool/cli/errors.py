"""Errors that a command reports in one line."""

__all__ = ["CommandError", "DifferenceError", "UsageError"]


class CommandError(Exception):
    """The command ran and failed."""

    code = 1


class UsageError(CommandError):
    """The command can't start: an option or the input is wrong."""

    code = 2


class DifferenceError(CommandError):
    """The pooled and the unpooled side did not come to the same result."""
