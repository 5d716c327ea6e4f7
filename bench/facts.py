"""The labelled texts of tests/data/facts: each a text, and what it says.

Below the line ``=== facts`` stands a fact a line: wordings, with bars between them,
that are near to one another where the fact is stated. The texts were written for this.
Every second one, by name, served to choose the scorer's weights; the others did not.
"""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Labelled", "labelled_texts"]

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "data" / "facts"


@dataclass(frozen=True)
class Labelled:
    name: str
    text: str
    facts: tuple[tuple[str, ...], ...]
    held_out: bool


def labelled_texts() -> list[Labelled]:
    found = []
    for i, path in enumerate(sorted(FOLDER.glob("*.txt"))):
        text, _, labels = path.read_text(encoding="utf-8").partition("\n=== facts\n")
        facts = tuple(
            tuple(wording.strip() for wording in line.split(" | "))
            for line in labels.splitlines()
        )
        found.append(Labelled(path.stem, text, facts, i % 2 == 1))
    return found
