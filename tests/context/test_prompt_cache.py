"""What a prompt cache serves: prefixes, thresholds, time; what a window makes of it."""

import math
import pickle

import pytest

from ctxpool.context import (
    CachePrices,
    ContextWindow,
    Message,
    MessageCounter,
    PromptCache,
)


class Letters:
    def count(self, text):
        return len(text)

    def encode(self, text):
        return list(text.encode())


COUNT = MessageCounter(Letters(), per_message=0)


def said(*texts):
    return [Message("user", text) for text in texts]


def test_a_prefix_is_served_and_the_rest_written():
    prices = CachePrices(input=2, read=1, write=3, minimum=0)
    cache = PromptCache(prices, COUNT)
    first = cache.send(said("aaaa", "bb"))
    assert (first.tokens, first.cached, first.cost, first.uncached_cost) == (
        6,
        0,
        18,
        12,
    )
    second = cache.send(said("aaaa", "bb", "c"))  # equal, not the same objects
    assert (second.stable, second.cached, second.cost) == (6, 6, 6 + 3)
    third = cache.send(said("aaaa", "x", "c"))
    assert (third.stable, third.cached) == (4, 4)
    assert cache.stats() == first + second + third
    assert cache.stats().share == 10 / 19
    assert pickle.loads(pickle.dumps(cache)).send(said("aaaa", "y")).cached == 4


def test_small_prefixes_steps_and_time():
    cache = PromptCache(CachePrices(minimum=5, step=3, ttl=10), COUNT)
    prompts = said("aaaa", "bbbb", "c")
    cache.send(prompts[:1], now=0)
    assert cache.send(prompts[:2], now=1).cached == 0  # four are too few
    assert cache.send(prompts, now=11).cached == 6  # of eight, in threes
    assert cache.send(prompts, now=21.5).cached == 0  # too late
    assert cache.send(prompts, now=30).cached == 9
    forever = PromptCache(CachePrices(minimum=0, ttl=None), COUNT)
    forever.send(prompts)
    assert forever.send(prompts, now=1e9).cached == 9


def test_what_breaking_costs():
    prices = CachePrices(input=10, read=1, write=12)
    broken = prices.breaking(dropped=50, rewritten=100)
    assert (broken.cost, broken.saving, broken.requests) == (1100, 50, 22)
    assert prices.breaking(0, 100).requests == math.inf
    assert prices.breaking(10, 0).requests == 0
    assert broken.as_dict()["requests"] == 22


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"read": -1}, "read must not be negative, not -1"),
        ({"write": math.nan}, "not nan"),
        ({"input": "1"}, "not '1'"),
        ({"step": 0}, "step must be from 1"),
        ({"minimum": -1}, "minimum"),
        ({"ttl": math.inf}, "ttl"),
    ],
)
def test_wrong_prices_are_told(settings, says):
    with pytest.raises(ValueError, match=says):
        CachePrices(**settings)


def test_wrong_arguments_are_told():
    with pytest.raises(TypeError, match="not 3"):
        PromptCache(3)
    with pytest.raises(TypeError, match="not 'x'"):
        PromptCache(counter="x")
    with pytest.raises(TypeError, match="unsupported operand"):
        PromptCache().stats() + 1


@pytest.mark.parametrize(("low", "least", "most"), [(1.0, 0, 0.2), (0.75, 0.9, 1)])
def test_a_window_that_drops_in_chunks_keeps_the_cache(low, least, most):
    """16,000 tokens, 250 a turn."""
    window = ContextWindow(16_000, tokenizer=COUNT, low_water=low)
    cache = PromptCache(counter=COUNT)
    window.append(Message("system", "s" * 500))
    for turn in range(600):
        window.append(Message("user", f"{turn:100}"))
        prompt = cache.send(window.messages())
        if window.stats().breaks == 0 and turn:
            assert prompt.stable == prompt.tokens - 250
        window.append(Message("assistant", f"{turn:150}"))
    assert least <= cache.stats().share <= most
    stats = window.stats()
    assert stats.breaks == stats.evictions > 0
