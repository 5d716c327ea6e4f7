"""What the rules find in a text, and what they make of hostile ones."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpool.context import Fact, Mention, extract_facts

SAID = {
    "My name is Ada Lovelace.": ("user", "name", "Ada Lovelace"),
    "Please call me Bob!": ("user", "name", "Bob"),
    "I live in Lisbon and the weather is nice": ("user", "lives_in", "Lisbon"),
    "Actually, I moved to Berlin in May 2024.": ("user", "lives_in", "Berlin"),
    "I'm working for nobody. I work for Acme Corp.": ("user", "works_at", "Acme Corp"),
    "I prefer tea over coffee.": ("user", "prefers", "tea"),
    "The port of the billing server is 8080.": ("billing server", "port", "8080"),
    "Bob's email is bob@x.org.": ("Bob", "email", "bob@x.org"),
    "ContextWindow depends on TokenWindow, a ring.": (
        *("ContextWindow", "depends_on", "TokenWindow"),
    ),
    "timeout = 30 s": ("timeout", "value", "30 s"),
    "Postgres is a database.": ("Postgres", "is", "database"),
    "The nightly job runs on worker-7.": ("nightly job", "runs_on", "worker-7"),
    "We've joined Globex.": ("user", "works_at", "Globex"),
    "Ada is an engineer. She lives in Paris.": ("Ada", "lives_in", "Paris"),
}


def facts(text, **options):
    return [f for f in extract_facts(text, **options) if isinstance(f, Fact)]


@pytest.mark.parametrize("text", SAID, ids=range(len(SAID)))
def test_what_is_said(text):
    found = {(f.subject, f.predicate, f.object) for f in facts(text)}
    assert SAID[text] in found


@pytest.mark.parametrize(
    "text",
    [
        "Do I live in Lisbon?",
        "I am going home.",
        "It is late.",
        "",
        "...",
        "I have to.",
    ],
)
def test_what_says_nothing(text):
    assert facts(text) == []


def test_denied_and_hedged():
    (denied,) = facts("Our API no longer uses Redis.")
    assert denied.negated
    assert denied.object == "Redis"
    (denied,) = facts("I don't like mushrooms.")
    assert denied.negated
    assert denied.predicate == "likes"
    sure, doubtful = facts("Ada uses vim. Maybe Bob uses emacs.")
    assert doubtful.confidence < sure.confidence


def test_who_speaks():
    (fact,) = facts("I live in Rome.", speaker="ann")
    assert fact.subject == "ann"


def test_what_is_mentioned():
    text = (
        "Ada Lovelace wrote `parse it` and parse_size() on 2024-05-03 in /usr/lib/x; "
        "12.5 MB at https://x.org/a, ask bob@x.org about GPT-4."
    )
    found = {m.name: m.kind for m in extract_facts(text) if isinstance(m, Mention)}
    assert found == {
        "Ada Lovelace": "name",
        "parse it": "identifier",
        "parse_size()": "identifier",
        "2024-05-03": "date",
        "/usr/lib/x": "identifier",
        "12.5 MB": "quantity",
        "https://x.org/a": "address",
        "bob@x.org": "address",
        "GPT-4": "identifier",
    }


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_any_text(text):
    for found in extract_facts(text):
        if isinstance(found, Fact):
            assert found.subject
            assert found.predicate
            assert found.object
            assert 0 <= found.confidence <= 1
        else:
            assert found.name


PIECES = ["a", "a.", "1,", "A ", " ", "/a", "a1-", "I am ", "the ", ".'", "my a-", "`"]
PIECES += ["a@", "x==", "http://", ",,", "$1.", "Aa'", "Aa of ", "a_", "a::", "\n", "é"]


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_time_is_linear(piece):
    """Twenty times as long takes no more than some twenty times as long."""

    def taken(n):
        text, start = piece * n, time.perf_counter()
        extract_facts(text)
        return time.perf_counter() - start

    short = min(taken(500) for _ in range(3))
    assert taken(10_000) < 100 * short + 0.5


def test_no_text():
    with pytest.raises(TypeError, match="not 7"):
        extract_facts(7)
