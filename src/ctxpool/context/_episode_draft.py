"""An episode before it is stored: checked, and with its id."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from .. import _arguments

__all__ = ["Draft", "digest", "drafted"]


@dataclass(frozen=True, slots=True)
class Draft:
    """An episode that is not stored yet."""

    text: str
    role: str
    id: str
    importance: float
    metadata: str
    sources: tuple[str, ...]
    at: float

    def size(self, dimensions: int) -> int:
        """Bytes in the file: text, metadata and vector."""
        return len(self.text.encode()) + len(self.metadata.encode()) + 2 * dimensions


def digest(role: str, text: str) -> bytes:
    """What is equal for equal texts of the same role."""
    return blake2b(f"{role}\0{text}".encode(), digest_size=16).digest()


def drafted(
    now: float,
    *,
    text: str,
    role: str = "",
    id: str | None = None,
    importance: float = 0.5,
    metadata: Mapping[str, Any] | None = None,
    sources: Iterable[str] = (),
    at: float | None = None,
) -> Draft:
    """What the arguments of :meth:`EpisodicMemory.remember` make, or an error."""
    if isinstance(sources, str):
        raise TypeError(f"sources must be a sequence of ids, not {sources!r}")
    others = tuple(sources)
    given = [("text", text), ("role", role), *(("a source", one) for one in others)]
    if id is not None:
        given.append(("id", id))
    for name, value in given:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be str, not {value!r}")
    if not text.strip():
        raise ValueError(f"text must not be empty, not {text!r}")
    try:
        packed = json.dumps(dict(metadata or {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"metadata must be JSON: {error}") from None
    return Draft(
        text,
        role,
        id or digest(role, text).hex(),
        _arguments.fraction("importance", importance),
        packed,
        others,
        now if at is None else _arguments.number("at", at),
    )
