"""What was experienced, found again by likeness, recency and importance."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, SupportsIndex

from .. import _arguments, parse_size
from ..errors import StoreClosedError, StoreError, ValueTooLargeError
from . import _episode_file as file
from ._closing import Closing
from ._episode_draft import Draft, drafted
from ._episode_store import EpisodeStore
from .auto_index import AutoIndex
from .embedding import Embedder, HashedEmbedder, embed_queries
from .episodes import Consolidation, Episode, EpisodicStats, Recollection
from .vectors import VectorIndex

__all__ = ["EpisodicMemory"]

_UNWRITTEN = 256  # uses that are kept in memory before they are written
_LIKE = 8  # neighbours that consolidate() looks at
Where = Mapping[str, Any] | Callable[[Episode], Any] | None


def _filter(where: Where) -> Callable[[Episode], Any]:
    if where is None:
        return lambda episode: True
    if callable(where):
        return where
    if not isinstance(where, Mapping):
        raise TypeError(f"where must be a mapping or callable, not {where!r}")
    wanted = dict(where)
    return lambda episode: all(
        key in episode.metadata and episode.metadata[key] == value
        for key, value in wanted.items()
    )


def _bound(moment: float | None, default: float) -> float:
    return default if moment is None else _arguments.number("a moment", moment)


class EpisodicMemory(Closing):
    """Texts with their vectors in one SQLite file, and their vectors in memory.

    Parameters
    ----------
    path : path or ":memory:"
    embedder : Embedder, optional
        By default a :class:`HashedEmbedder`. It is called outside any lock. One that
        learns is taught what is remembered.
    index : VectorIndex, optional
        An empty one; by default an :class:`AutoIndex`. It is filled from the file.
    max_items : int, optional
    max_bytes : int or str, optional
        Bytes of texts, metadata and vectors. When there are more episodes or bytes,
        those of least retention go, and *on_evict* is told.
    half_life : float
        Seconds after which what was not recalled since has faded by half; of what was
        recalled n times, n + 1 times as long, and longer still for what is important.
    recency_weight, importance_weight : float
        From 0, it does not matter, to 1. See :meth:`recall`.
    cache_size : int or str
        Bytes of texts that are kept in memory, beside the vectors.
    reembed : bool
        Make new vectors where the file has those of another embedder.
    on_evict : callable, optional
        ``on_evict(episodes)``: called after the fact, outside any lock.
    durable : bool
        fsync at each write: a loss of power loses nothing, either.
    clock : callable
        The time now, in seconds since the epoch.

    Raises
    ------
    StoreError
        The file is damaged, something else, or of another embedder. It is left as it
        is.

    Notes
    -----
    ``remember``: embedding, one transaction, one insertion into the index; to find
    what must go is O(n) over arrays. ``recall``: embedding, a search of the index, and
    reading the texts that are not in the cache. Uses are written with the next write,
    or at the latest after 256, or when the memory is closed.

    Vectors are kept at half precision in the file: 2 bytes a dimension. The index is
    made anew when the file is opened, and after another process wrote to it.

    **Thread-safety**: each call is atomic, except that :meth:`consolidate` is one call
    for each group that it merges.

    References
    ----------
    J. S. Park et al., "Generative Agents: Interactive Simulacra of Human Behavior",
    UIST 2023: retrieval by relevance, recency and importance.

    Examples
    --------
    >>> memory = EpisodicMemory(clock=lambda: 0.0)
    >>> _ = memory.remember("The build fails with error 137", metadata={"by": "Ada"})
    >>> _ = memory.remember("Lunch was good")
    >>> memory.recall("Which error did the build give?", 1)[0].episode.text
    'The build fails with error 137'
    >>> memory.close()
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ":memory:",
        *,
        embedder: Embedder | None = None,
        index: VectorIndex | None = None,
        max_items: SupportsIndex | None = None,
        max_bytes: SupportsIndex | str | None = None,
        half_life: float = 7 * 86400.0,
        recency_weight: float = 0.2,
        importance_weight: float = 0.2,
        cache_size: SupportsIndex | str = "8MiB",
        reembed: bool = False,
        on_evict: Callable[[list[Episode]], object] | None = None,
        durable: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.embedder: Embedder = HashedEmbedder() if embedder is None else embedder
        if not isinstance(self.embedder, Embedder):
            raise TypeError(f"an Embedder is needed, not {embedder!r}")
        if index is None:
            index = AutoIndex(self.embedder.dimensions)
        if index.dimensions != self.embedder.dimensions:
            raise ValueError(
                f"the index has {index.dimensions} dimensions, and the embedder "
                f"{self.embedder.dimensions}"
            )
        half_life = _arguments.number("half_life", half_life)
        if half_life <= 0:
            raise ValueError(f"half_life must be more than 0, not {half_life!r}")
        self._max_items = self._max_bytes = math.inf
        if max_items is not None:
            self._max_items = _arguments.count("max_items", max_items, 1, 1 << 62)
        if max_bytes is not None:
            self._max_bytes = parse_size(max_bytes, "max_bytes")
        self._recency = _arguments.fraction("recency_weight", recency_weight)
        self._importance = _arguments.fraction("importance_weight", importance_weight)
        self._on_evict, self._clock = on_evict, clock
        self._repeated = self._evicted = 0
        self._store = EpisodeStore(
            path,
            self.embedder,
            index,
            half_life=half_life,
            cache_bytes=parse_size(cache_size, "cache_size"),
            reembed=reembed,
            durable=durable,
        )

    @property
    def index(self) -> VectorIndex:
        """The vectors, by numbers of this memory's own. To be read, not changed."""
        return self._store.index

    # --- remembering -----------------------------------------------------------------

    def remember(
        self,
        text: str,
        *,
        role: str = "",
        id: str | None = None,
        importance: float = 0.5,
        metadata: Mapping[str, Any] | None = None,
        sources: Iterable[str] = (),
        at: float | None = None,
    ) -> Episode:
        """Store a text; when this returns it survives ``kill -9``.

        A text that is known, of the same role, counts as used once more: it keeps its
        id, and gets the new sources and metadata and the higher importance.

        Parameters
        ----------
        text : str
        role : str
            Who said it.
        id : str, optional
        importance : float
            From 0 to 1.
        metadata : mapping, optional
            What JSON can hold.
        sources : iterable of str
            Other ids that it goes by.
        at : float, optional
            When; default now.

        Raises
        ------
        ValueError
            The id is that of another text; the text is empty.
        ValueTooLargeError
            It is larger than all may be.
        StoreError
            It can't be written. Nothing has changed.
        """
        one = {
            "text": text,
            "role": role,
            "id": id,
            "importance": importance,
            "metadata": metadata,
            "sources": sources,
            "at": at,
        }
        return self.remember_many([one])[0]

    def remember_many(self, texts: Iterable[str | Mapping[str, Any]]) -> list[Episode]:
        """Store texts, or mappings of the arguments of :meth:`remember`, in one
        transaction: all or none. The episodes come back in the same order."""
        if isinstance(texts, str):
            raise TypeError(f"a sequence of texts is needed, not one: {texts!r}")
        now = self._clock()
        drafts = []
        for one in texts:
            draft = drafted(now, **(one if isinstance(one, Mapping) else {"text": one}))
            size = draft.size(self.embedder.dimensions)
            if size > self._max_bytes:
                raise ValueTooLargeError(
                    f"an episode of {size} bytes is more than max_bytes, "
                    f"{self._max_bytes}"
                )
            drafts.append(draft)
        return self._added(drafts)

    def _added(self, drafts: list[Draft]) -> list[Episode]:
        if not drafts:
            return []
        texts = [draft.text for draft in drafts]
        vectors = self._store.embedded(texts)
        self._teach("learn", texts)
        stored, new, gone = self._store.add(
            drafts, vectors, self._clock(), self._max_items, self._max_bytes
        )
        with self._store.current():
            self._repeated += len(drafts) - new
            self._evicted += len(gone)
        self._gone(gone)
        if gone and self._on_evict is not None:
            self._on_evict(gone)
        return stored

    def _teach(self, what: str, texts: list[str]) -> None:
        if texts and (teach := getattr(self.embedder, what, None)) is not None:
            teach(texts)

    def _gone(self, episodes: list[Episode]) -> None:
        self._teach("forget", [episode.text for episode in episodes])

    # --- recalling -------------------------------------------------------------------

    def recall(
        self,
        query: str,
        k: SupportsIndex = 10,
        *,
        threshold: float = 0.0,
        where: Where = None,
        at: float | None = None,
        count_use: bool = True,
    ) -> list[Recollection]:
        """The episodes that *query* brings to mind, the best first.

        Parameters
        ----------
        query : str
        k : int
            At most so many.
        threshold : float
            Similarity that an episode must exceed.
        where : mapping or callable, optional
            Metadata that it must have, or ``where(episode)``, which is called outside
            any lock.
        at : float, optional
            The moment that recency is seen from; default now.
        count_use : bool
            Whether being recalled makes an episode fade slower.

        Notes
        -----
        The score is similarity x recency x importance, the latter two counting by
        their weights: ``1 - weight * (1 - value)``. Park et al. add the three; here
        what has nothing to do with the query does not come for being new. Ranked are
        the 4 k + 32 most similar, and more where they do not pass *where*.
        """
        if not isinstance(query, str):
            raise TypeError(f"query must be str, not {query!r}")
        k = _arguments.count("k", k, 0, 1 << 20)
        now, least = self._when(at), _arguments.number("threshold", threshold)
        passes = _filter(where)
        vector = embed_queries(self.embedder, [query])[0]
        wanted = 4 * k + 32
        while True:
            near, more = self._store.rank(vector, wanted, least, now)
            ranked = self._scored(near)
            found: list[tuple[int, Recollection]] = []
            for n in range(0, len(ranked), k + 1):
                found += self._recollected(ranked[n : n + k + 1], passes)
                if len(found) >= k:
                    break
            if len(found) >= k or not more:
                break
            wanted *= 4
        found = found[:k]
        if count_use and found:
            unwritten = self._store.use([number for number, _ in found], now)
            if unwritten >= _UNWRITTEN:
                with contextlib.suppress(StoreError):  # a full disk still answers
                    self._store.write_uses()
        return [one for _, one in found]

    def _scored(
        self, near: list[tuple[int, float, float, float]]
    ) -> list[tuple[float, int, float, float]]:
        """Score, number, similarity and recency, the best first."""
        scored = []
        for number, similarity, recency, importance in near:
            score = similarity * (1 - self._recency * (1 - recency))
            score *= 1 - self._importance * (1 - importance)
            scored.append((score, number, similarity, recency))
        return sorted(scored, key=lambda one: (-one[0], one[1]))

    def _recollected(
        self,
        ranked: list[tuple[float, int, float, float]],
        passes: Callable[[Episode], Any],
    ) -> list[tuple[int, Recollection]]:
        with self._store.current() as connection:
            episodes = self._store.read(
                connection, [number for _, number, _, _ in ranked]
            )
        return [
            (number, Recollection(episode, similarity, recency, score))
            for score, number, similarity, recency in ranked
            if (episode := episodes.get(number)) is not None and passes(episode)
        ]

    def get(self, id: str) -> Episode | None:
        """The episode of this id, or that has it as a source; None where there is
        none."""
        with self._store.current() as connection:
            numbers = file.numbers_of(connection, [id])
            return next(iter(self._store.read(connection, numbers).values()), None)

    def episodes(
        self,
        *,
        since: float | None = None,
        before: float | None = None,
        limit: SupportsIndex = 1000,
    ) -> list[Episode]:
        """The last *limit* episodes in the order in which they were created, from
        *since* on and before *before*."""
        limit = _arguments.count("limit", limit, 0, 1 << 40)
        with self._store.current() as connection:
            found = connection.execute(
                "SELECT number FROM episode WHERE created >= ? AND created < ? "
                "ORDER BY created DESC, number DESC LIMIT ?",
                (_bound(since, -1e308), _bound(before, 1e308), limit),
            ).fetchall()
            numbers = [number for (number,) in reversed(found)]
            read = self._store.read(connection, numbers)
        return [read[number] for number in numbers]

    # --- forgetting ------------------------------------------------------------------

    def forget(self, *ids: str, before: float | None = None) -> list[Episode]:
        """Delete episodes: those of these ids, or with these sources, and those that
        were created before a moment.

        They are gone from the index and the cache, and their bytes are overwritten in
        the file and its journal. They come back for the last time.
        """
        for id in ids:
            if not isinstance(id, str):
                raise TypeError(f"an id must be str, not {id!r}")
        with self._store.current() as connection:
            numbers = file.numbers_of(connection, ids)
            if before is not None:
                numbers += [
                    number
                    for (number,) in connection.execute(
                        "SELECT number FROM episode WHERE created < ?",
                        (_arguments.number("before", before),),
                    )
                ]
            gone = self._store.remove(connection, list(dict.fromkeys(numbers)))
        self._gone(gone)
        return gone

    def consolidate(
        self,
        *,
        older_than: float = 86400.0,
        similarity: float = 0.95,
        fade_below: float = 0.0,
        limit: SupportsIndex = 1000,
        at: float | None = None,
    ) -> Consolidation:
        """Forget what has faded, and let one episode stand for its like.

        Parameters
        ----------
        older_than : float
            Seconds; what is younger stays as it is.
        similarity : float
            Episodes at least so similar are merged: the most important one stays,
            with the uses, the metadata and the ids of the others as its sources.
        fade_below : float
            Episodes with less retention are forgotten: 0, none; 0.01, what was not
            used for seven half-lives.
        limit : int
            How many are compared with their like. The next call goes on from there,
            and from the beginning when all were.
        at : float, optional
            The moment; default now.
        """
        limit = _arguments.count("limit", limit, 0, 1 << 40)
        now, alike = self._when(at), _arguments.fraction("similarity", similarity)
        least = _arguments.fraction("fade_below", fade_below)
        latest = now - _arguments.number("older_than", older_than)
        with self._store.current() as connection:
            old = {
                number
                for (number,) in connection.execute(
                    "SELECT number FROM episode WHERE created <= ?", (latest,)
                )
            }
            faded = [n for n in self._store.retention.faded(least, now) if n in old]
            gone = self._store.remove(connection, faded)
            last = file.about(connection, "consolidated") or 0
        self._gone(gone)
        todo = sorted(old.difference(faded))
        some = [number for number in todo if number > last][:limit]
        merged = 0
        for number in some:
            gone_too = self._store.merge(number, alike, old, _LIKE)
            self._gone(gone_too)
            merged += len(gone_too)
        with self._store.current(), self._store.database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO about VALUES ('consolidated', ?)",
                (some[-1] if some and some[-1] != todo[-1] else 0,),
            )
        return Consolidation(len(some), merged, len(gone))

    # --- the file --------------------------------------------------------------------

    def stats(self) -> EpisodicStats:
        """What there is."""
        with self._store.current():
            texts = self._store.texts.stats()
            return EpisodicStats(
                len(self._store.retention),
                self._store.retention.size,
                self._store.database.nbytes,
                int(getattr(self._store.index, "nbytes", 0)),
                self._repeated,
                self._evicted,
                texts.hits,
                texts.misses,
            )

    def check(self) -> None:
        """Read the whole file and verify its structure; StoreError if it is damaged."""
        self._store.database.check()

    def flush(self) -> None:
        """Write the uses that were counted; all else is written already."""
        self._store.write_uses()

    def save_to(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to a new file.

        Raises
        ------
        StoreError
            It can't be written, or there is one.
        """
        self.flush()
        self._store.database.copy(path)

    def close(self) -> None:
        """Write the uses that were counted, and close the file; a second time does
        nothing.

        Raises
        ------
        StoreError
            The uses can't be written. It is closed all the same.
        """
        try:
            self.flush()
        except StoreClosedError:
            pass
        finally:
            self._store.database.close()

    def _when(self, at: float | None) -> float:
        return _arguments.number("a moment", self._clock() if at is None else at)

    def __len__(self) -> int:
        with self._store.current():
            return len(self._store.retention)

    def __bool__(self) -> bool:
        return True

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.get(id) is not None

    def __repr__(self) -> str:
        return f"<EpisodicMemory {self._store.database.path!r}>"
