"""What the job is asked to do."""

from dataclasses import asdict, dataclass
from typing import Any

from .errors import UsageError

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of ``ctxpool run`` that change what is measured.

    Attributes
    ----------
    block_size : int
        Bytes of a block, and of a chunk: the most that is read at once.
    blocks : int
        Blocks in the pool.
    in_flight : int
        Chunks whose buffers are held at once.
    window, last, step : int
        Tokens in the window, in the short look back, and added at a time.
    cache : int
        Chunks whose tokens are kept.
    tokenizer : str
        ``"auto"``, ``"bpe"`` or ``"words"``.
    tokens : str
        How tokens are kept: ``"list"`` or ``"array"``.
    unpooled_buffer, unpooled_window : str
        How the unpooled side works: ``"bytearray"`` or ``"numpy"``; ``"deque"`` or
        ``"concatenate"``.
    revisit : float
        Later visits per first visit of a file, on average.
    repeat, seed : int
        Runs through all files; the seed of the order of later visits.
    gc : bool
        Whether the garbage collector stays on.
    """

    block_size: int = 65_536
    blocks: int = 16
    in_flight: int = 4
    window: int = 32_768
    last: int = 4_096
    step: int = 1_024
    cache: int = 512
    tokenizer: str = "auto"
    tokens: str = "list"
    unpooled_buffer: str = "bytearray"
    unpooled_window: str = "deque"
    revisit: float = 1.0
    repeat: int = 1
    seed: int = 0
    gc: bool = True

    def __post_init__(self) -> None:
        if self.in_flight > self.blocks:
            raise UsageError(
                f"--in-flight {self.in_flight} holds more blocks than "
                f"--blocks {self.blocks} gives"
            )
        for option in ("last", "step"):
            tokens = getattr(self, option)
            if tokens > self.window:
                raise UsageError(
                    f"--{option} {tokens} is more than --window {self.window} holds"
                )

    def as_dict(self) -> dict[str, Any]:
        """The options by name."""
        return asdict(self)
