"""Which relations belong to a text."""

import re
from collections.abc import Callable

from .embedding import Embedder, embed_queries
from .memories import Memory
from .relations import Relation
from .semantic import SemanticMemory

__all__ = ["connected", "related"]

_ME = re.compile(r"\b(?:I|me|my|mine|we|our|us)\b", re.IGNORECASE)
_MOST = 20
# A relation of an entity that the query names is relevant, whatever its words are.
_NAMED = 0.3


def connected(semantic: SemanticMemory, text: str, now: float) -> list[Relation]:
    """Relations of the entities that a text names, the surest first; of "I", the
    user's."""
    names = [entity.name for entity in semantic.mentioned(text)]
    if _ME.search(text):
        names.insert(0, "user")
    found: dict[int, Relation] = {}
    for name in names:
        for near in semantic.neighbours(name, at=now, limit=_MOST):
            found[near.relation.id] = near.relation
    return list(found.values())[:_MOST]


def related(
    semantic: SemanticMemory,
    embedder: Embedder,
    count: Callable[[str], int],
    query: str,
    now: float,
) -> list[Memory]:
    """The same, each with how near it is to a query."""
    relations = connected(semantic, query, now)
    if not relations:
        return []
    texts = [str(relation) for relation in relations]
    vectors = embed_queries(embedder, [query, *texts])
    near = (vectors[1:] @ vectors[0]).tolist()
    return [
        Memory(
            "semantic",
            text,
            count(text),
            relation.confidence * max(similarity, _NAMED),
            relation.valid_from,
            relation.sources,
        )
        for relation, text, similarity in zip(relations, texts, near, strict=True)
    ]
