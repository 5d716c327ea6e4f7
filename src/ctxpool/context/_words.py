"""The words of a text, as a full-text index has them."""

import itertools
import re

__all__ = ["encodable", "spaced", "terms"]

# Scripts without spaces: each character is a word, or a whole sentence would be one.
_UNSPACED = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_UNSPACED += "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
_CHARACTER = re.compile(_UNSPACED)
_WORD = re.compile(rf"(?:{_UNSPACED})+|(?:(?!{_UNSPACED})\w)+")
_MOST = 64  # words of a query


def encodable(text: str) -> bool:
    """Whether *text* has no half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def spaced(text: str) -> str:
    """*text* for the index: spaces around each character that is a word."""
    if text.isascii():
        return text
    if not encodable(text):
        text = text.encode(errors="replace").decode()
    return _CHARACTER.sub(r" \g<0> ", text)


def terms(query: str) -> list[str]:
    """The different words of *query*, lowered, the first 64. Of characters that are
    words, each pair of neighbours, as the index has it."""
    if not isinstance(query, str):
        raise TypeError(f"a query must be text, not {query!r}")
    found: dict[str, None] = {}
    for word in _WORD.findall(query.lower()):
        if _CHARACTER.match(word) and len(word) > 1:
            pairs = itertools.pairwise(word)
            found.update((f"{a}  {b}", None) for a, b in pairs)
        else:
            found[word] = None
        if len(found) >= _MOST:
            break
    return list(found)[:_MOST]
