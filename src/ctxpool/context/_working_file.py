"""The messages of a window in a file, so that a restart goes on where it was."""

import os
from collections.abc import Iterable

from ..errors import DamagedStoreError
from ._database import Database
from .message_json import dump_message, load_message
from .messages import Message

__all__ = ["WorkingFile"]

_KIND, _VERSION = 0x43585746, 1
_SCHEMA = """\
CREATE TABLE message (
  position INTEGER PRIMARY KEY, pinned INTEGER NOT NULL, body TEXT NOT NULL)"""


class WorkingFile:
    """Messages in their order, each with whether it is pinned."""

    def __init__(self, path: str | os.PathLike[str], durable: bool) -> None:
        self.database = Database(
            path, kind=_KIND, version=_VERSION, schema=_SCHEMA, durable=durable
        )

    def load(self) -> list[tuple[Message, bool]]:
        """All of them; DamagedStoreError if one can't be read."""
        with self.database.read() as connection:
            rows = connection.execute(
                "SELECT body, pinned FROM message ORDER BY position"
            ).fetchall()
        try:
            return [(load_message(body), bool(pinned)) for body, pinned in rows]
        except ValueError as error:
            raise DamagedStoreError(
                f"{self.database.path!r} is damaged: {error}"
            ) from error

    def append(self, message: Message, pinned: bool) -> None:
        """Add one as the newest."""
        body = dump_message(message)
        with self.database.write() as connection:
            connection.execute(
                "INSERT INTO message (pinned, body) VALUES (?, ?)", (pinned, body)
            )

    def replace(self, messages: Iterable[tuple[Message, bool]]) -> None:
        """Store these instead of all that there were, in one transaction."""
        rows = [(pinned, dump_message(message)) for message, pinned in messages]
        with self.database.write() as connection:
            connection.execute("DELETE FROM message")
            connection.executemany(
                "INSERT INTO message (pinned, body) VALUES (?, ?)", rows
            )
