"""The compressor: how hard, within what, and when a summarizer fails."""

import asyncio
import importlib.util
import math
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpool.context import AdaptiveCompressor, HeuristicTokenizer, Message
from ctxpool.context.compression import Compressed
from ctxpool.context.fact_retention import retention, states

count = HeuristicTokenizer().count
NOTE = (
    "Hi all, hope you are well! As you know, the nightly build was red. "
    "The linker ran out of memory at 3.9 GB in stage 7. "
    "I think that nobody really looked at it over the weekend."
)
LIGHT = (
    "the nightly build was red. The linker ran out of memory at 3.9 GB in stage 7. "
    "nobody looked at it over the weekend."
)
LINKER = "The linker ran out of memory at 3.9 GB in stage 7."


def check(done: Compressed, text: str) -> None:
    assert done.original_length == len(text)
    assert done.original_tokens == count(text)
    assert done.length == len(done.text)
    assert done.tokens == count(done.text)
    assert done.lossy == (done.text != text)
    for start, end, at in done.spans:
        assert done.text[at : at + end - start] == text[start:end]


@settings(max_examples=60)
@given(st.text(max_size=200), st.floats(0, 2), st.none() | st.integers(0, 60))
def test_whatever_is_asked_for(text: str, pressure: float, tokens: int | None) -> None:
    compressor = AdaptiveCompressor(threshold=0.8, ratio=0.3)
    done = compressor.compress(text, pressure=pressure, tokens=tokens, sources=["m1"])
    check(done, text)
    assert done.sources == ("m1",)
    if tokens is not None:
        assert done.tokens <= tokens
    elif pressure >= 0.8:
        assert done.tokens <= done.original_tokens * 0.3
    assert (done.level == "none") == (not done.lossy)


def test_by_pressure() -> None:
    compressor = AdaptiveCompressor(threshold=0.8, ratio=0.4)
    light = compressor.compress(NOTE, pressure=0.79)
    assert (light.text, light.level, light.lossy) == (LIGHT, "light", True)
    hard = compressor.compress(NOTE, pressure=0.8)
    assert (hard.text, hard.level, hard.lossy) == (LINKER, "aggressive", True)
    assert hard.spans == ((67, 118, 0),) or NOTE[slice(*hard.spans[0][:2])] == LINKER
    assert hard.ratio == count(LINKER) / count(NOTE)
    plain = compressor.compress("The disk is full.", pressure=0.1)
    assert (plain.level, plain.lossy, plain.ratio) == ("none", False, 1.0)
    assert hard.as_dict()["level"] == "aggressive"


def test_by_budget_no_harder_than_it_must_be() -> None:
    compressor = AdaptiveCompressor()
    levels = [
        compressor.compress(NOTE, tokens=tokens).level
        for tokens in (count(NOTE), count(NOTE) - 1, count(LIGHT), count(LIGHT) - 1)
    ]
    assert levels == ["none", "light", "light", "aggressive"]
    assert compressor(NOTE, count(LINKER)) == LINKER
    assert compressor.compress(NOTE, tokens=0).text == ""
    # Below the threshold, and yet within the budget.
    assert compressor.compress(NOTE, pressure=0.1, tokens=20).tokens <= 20


def test_an_importance_of_ones_own() -> None:
    compressor = AdaptiveCompressor(
        ratio=0.4, importance=lambda pieces: ["weekend" in t for t in pieces.texts]
    )
    assert "weekend" in compressor.compress(NOTE, pressure=1).text


# --- summarizers ---------------------------------------------------------------------


def test_a_summary() -> None:
    asked: list[tuple[Sequence[Message], int]] = []

    def summarizer(messages: Sequence[Message], tokens: int) -> str:
        asked.append((messages, tokens))
        return "Build red: linker out of memory."

    compressor = AdaptiveCompressor(ratio=0.4, summarizer=summarizer)
    done = compressor.compress(NOTE, pressure=1, sources=("a", "b"))
    assert (done.level, done.lossy, done.spans) == ("summary", True, ())
    assert done.sources == ("a", "b")
    ((messages, tokens),) = asked
    assert [message.content for message in messages] == [NOTE]
    assert tokens == int(count(NOTE) * 0.4)
    assert compressor.compress(NOTE, pressure=0).level == "light"
    assert len(asked) == 1


def answer_late(answer: object) -> Callable[..., Awaitable[Any]]:
    async def summarizer(messages: Sequence[Message], tokens: int) -> Any:
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return summarizer


def answer_now(answer: object) -> Callable[..., Any]:
    def summarizer(messages: Sequence[Message], tokens: int) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return summarizer


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (OSError("no net"), OSError, "no net"),
        (None, TypeError, "not None"),
        (" \n", ValueError, "blank"),
        ("much too long " * 50, ValueError, "more than"),
    ],
)
def test_what_a_summarizer_does_wrong(
    answer: object, error: type[Exception], says: str, late: bool
) -> None:
    make = answer_late if late else answer_now
    compressor = AdaptiveCompressor(ratio=0.4, summarizer=make(answer))
    done = asyncio.run(compressor.compress_async(NOTE, pressure=1))
    assert (done.text, done.level) == (LINKER, "aggressive")
    assert isinstance(done.error, error)
    assert says in str(done.error)
    if not late:
        now = compressor.compress(NOTE, pressure=1)
        assert (now.text, str(now.error)) == (done.text, str(done.error))


def test_a_late_summary() -> None:
    compressor = AdaptiveCompressor(summarizer=answer_late("red"))
    done = asyncio.run(compressor.compress_async(NOTE, pressure=1))
    assert (done.text, done.level) == ("red", "summary")
    assert asyncio.run(compressor.compress_async(NOTE, pressure=0)).level == "light"
    with pytest.raises(TypeError, match="await compress_async"):
        compressor.compress(NOTE, pressure=1)


def test_interrupts_and_cancellations_reach_the_caller() -> None:
    def interrupted(messages: Sequence[Message], tokens: int) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        AdaptiveCompressor(summarizer=interrupted).compress(NOTE, pressure=1)

    async def main() -> None:
        async def for_ever(messages: Sequence[Message], tokens: int) -> str:
            await asyncio.Event().wait()
            return ""

        compressor = AdaptiveCompressor(summarizer=for_ever)
        task = asyncio.create_task(compressor.compress_async(NOTE, pressure=1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_summarizer_that_calls_the_compressor() -> None:
    def summarizer(messages: Sequence[Message], tokens: int) -> str:
        return AdaptiveCompressor()(messages[0].content, tokens)

    done = AdaptiveCompressor(ratio=0.4, summarizer=summarizer).compress(
        NOTE, pressure=1
    )
    assert (done.text, done.level) == (LINKER, "summary")


# --- arguments, threads --------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: AdaptiveCompressor(1.5), ValueError, "threshold .* not 1.5"),
        (lambda: AdaptiveCompressor(math.nan), ValueError, "not nan"),
        (lambda: AdaptiveCompressor("high"), TypeError, "not 'high'"),  # type: ignore[arg-type]
        (lambda: AdaptiveCompressor(ratio=0), ValueError, "ratio .* not 0"),
        (lambda: AdaptiveCompressor(count=3), TypeError, "count .* not 3"),  # type: ignore[arg-type]
        (lambda: AdaptiveCompressor(summarizer="x"), TypeError, "not 'x'"),  # type: ignore[arg-type]
        (lambda: AdaptiveCompressor().compress("x"), TypeError, "pressure or tokens"),
        (lambda: AdaptiveCompressor().compress(b"x", tokens=1), TypeError, "b'x'"),  # type: ignore[arg-type]
        (lambda: AdaptiveCompressor().compress("x", pressure=-1), ValueError, "-1"),
        (lambda: AdaptiveCompressor().compress("x", tokens=-1), ValueError, "-1"),
        (lambda: AdaptiveCompressor(count=lambda t: -4).compress("x", tokens=1),
         ValueError, "-4"),
    ],
)  # fmt: skip
def test_bad_arguments(
    call: Callable[[], object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        call()


def test_threads_share_one() -> None:
    compressor = AdaptiveCompressor(ratio=0.4)
    start = threading.Barrier(4)
    found: list[str] = []

    def work() -> None:
        start.wait(10)
        found.extend(compressor.compress(NOTE, pressure=1).text for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [LINKER] * 80


# --- facts ---------------------------------------------------------------------------


def test_states() -> None:
    assert states("The build FAILED: e42", ("failed", "E42"))
    assert not states("failed" + " " * 300 + "E42", ("failed", "E42"))
    assert states("failed x failed" + " " * 200 + "E42", ("failed", "E42"))
    assert states("E42" + " " * 300 + "E42 failed", ("E42", "failed"))
    assert retention("", []) == 1.0
    with pytest.raises(TypeError, match="not 'failed'"):
        states("x", "failed")
    with pytest.raises(TypeError, match=r"not \(\)"):
        states("x", ())


def labelled() -> list[Any]:
    path = Path(__file__).resolve().parents[2] / "bench" / "facts.py"
    if not path.is_file():
        pytest.skip("needs the checkout")
    spec = importlib.util.spec_from_file_location("ctxpool_bench_facts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclass
    spec.loader.exec_module(module)
    found: list[Any] = module.labelled_texts()
    return found


def test_facts_are_kept_better_than_by_truncation() -> None:
    texts = labelled()
    assert len(texts) >= 12
    compressor = AdaptiveCompressor(ratio=0.5)
    light = hard = cut = 0.0
    for one in texts:
        assert len(one.facts) >= 8
        assert retention(one.text, one.facts) == 1.0, one.name
        light += retention(compressor.compress(one.text, pressure=0).text, one.facts)
        hard += retention(compressor.compress(one.text, pressure=1).text, one.facts)
        cut += retention(one.text[: len(one.text) // 2], one.facts)
    assert light == len(texts)
    assert hard > 1.4 * cut
