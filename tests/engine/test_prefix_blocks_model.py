"""Random actions against a model that looks at whole token sequences and has no hash,
no table and no list of free blocks; and both twins, step by step."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ctxpool.errors import PoolExhaustedError

TOKENS = st.lists(st.integers(-1, 1), max_size=14)
SALTS = st.sampled_from([b"", b"other"])
WHICH = st.integers(0, 1000)


class Model:
    """What each block holds, as the tokens up to its end; the clock orders eviction."""

    def __init__(self, blocks, size):
        self.size = size
        self.users = [0] * blocks
        self.cached = {}  # block: (salt, all tokens up to its end)
        # Taken first is the least; what is not cached comes before what is.
        self.freed = [(0, block) for block in range(blocks)]
        self.clock = 0
        self.sequences = []  # (salt, tokens, blocks)

    def order(self, block):
        return (block in self.cached, self.freed[block])

    def free_blocks(self):
        return [block for block, users in enumerate(self.users) if not users]

    def found(self, salt, tokens):
        blocks = []
        known = {key: block for block, key in self.cached.items()}
        for end in range(self.size, len(tokens) + 1, self.size):
            block = known.get((salt, tuple(tokens[:end])))
            if block is None:
                break
            blocks.append(block)
        return blocks

    def take(self):
        block = min(self.free_blocks(), key=self.order)
        self.cached.pop(block, None)
        self.users[block] = 1
        return block

    def drop(self, block):
        self.users[block] -= 1
        if not self.users[block]:
            self.use(block)

    def use(self, block):
        self.clock += 1
        sign = 1 if block in self.cached else -1
        self.freed[block] = (sign * self.clock, block)

    def put(self, sequence, tokens):
        salt, have, blocks = sequence
        for token in tokens:
            if len(have) % self.size == 0:
                blocks.append(self.take())
            have.append(token)
            key = (salt, tuple(have))
            if len(have) % self.size == 0 and key not in self.cached.values():
                self.cached[blocks[-1]] = key

    def wanted(self, sequence, n):
        _, have, blocks = sequence
        more = -(-(len(have) + n) // self.size) - len(blocks)
        shared = len(have) % self.size and n and self.users[blocks[-1]] > 1
        return more + bool(shared), shared


class Machine(RuleBasedStateMachine):
    implementations = ()  # set by the test

    @initialize(
        blocks=st.integers(1, 12),
        size=st.integers(1, 4),
        verify=st.booleans(),
        events=st.sampled_from([0, 3, 10_000]),
    )
    def start(self, blocks, size, verify, events):
        self.real = [
            make(blocks, size, verify=verify, events=events)
            for make in self.implementations
        ]
        self.model = Model(blocks, size)
        self.handles = []

    def all(self, call):
        """What the implementations answer, which is one thing."""
        answers = []
        for real in self.real:
            try:
                answer = call(real)
            except PoolExhaustedError as error:
                answer = str(error)
            if isinstance(answer, tuple):
                answer = tuple(getattr(x, "tolist", lambda x=x: x)() for x in answer)
            answers.append(getattr(answer, "tolist", lambda answer=answer: answer)())
        assert all(answer == answers[0] for answer in answers), answers
        return answers[0]

    def pick(self, which):
        at = which % len(self.handles)
        return at, self.handles[at], self.model.sequences[at]

    @rule(tokens=TOKENS, salt=SALTS)
    def allocate(self, tokens, salt):
        model = self.model
        found = model.found(salt, tokens)
        wanted = -(-len(tokens) // model.size) - len(found)
        free = [block for block in model.free_blocks() if block not in found]
        answer = self.all(lambda real: real.allocate(tokens, salt=salt))
        if wanted > len(free):
            assert "no room" in answer
            return
        for block in found:
            model.users[block] += 1
        cached = len(found) * model.size
        sequence = (salt, tokens[:cached], found)
        model.put(sequence, tokens[cached:])
        model.sequences.append(sequence)
        self.handles.append(answer[0])
        assert answer[1:] == (sequence[2], cached)

    @precondition(lambda self: self.handles)
    @rule(which=WHICH, tokens=TOKENS)
    def append(self, which, tokens):
        _, handle, sequence = self.pick(which)
        model = self.model
        wanted, shared = model.wanted(sequence, len(tokens))
        answer = self.all(lambda real: real.append(handle, tokens))
        if wanted > len(model.free_blocks()):
            assert "no room" in answer
            return
        copied = None
        blocks = sequence[2]
        if shared:
            copied = blocks[-1]
            own = model.take()
            model.drop(copied)
            blocks[-1] = own
        model.put(sequence, tokens)
        assert answer == (blocks[len(blocks) - wanted :], copied)

    @precondition(lambda self: self.handles)
    @rule(which=WHICH)
    def fork(self, which):
        _, handle, (salt, tokens, blocks) = self.pick(which)
        for block in blocks:
            self.model.users[block] += 1
        self.model.sequences.append((salt, list(tokens), list(blocks)))
        self.handles.append(self.all(lambda real: real.fork(handle)))

    @precondition(lambda self: self.handles)
    @rule(which=WHICH, computed=st.none() | st.integers(0, 12))
    def free(self, which, computed):
        at, handle, (_, _, blocks) = self.pick(which)
        self.all(lambda real: real.free(handle, computed=computed))
        for i, block in reversed([*enumerate(blocks)]):
            if computed is not None and i >= computed // self.model.size:
                self.model.cached.pop(block, None)
            self.model.drop(block)
        del self.handles[at], self.model.sequences[at]

    @rule(tokens=TOKENS, salt=SALTS, touch=st.booleans())
    def find(self, tokens, salt, touch):
        name = "touch" if touch else "lookup"
        found = self.model.found(salt, tokens)
        answer = self.all(lambda real: getattr(real, name)(tokens, salt=salt))
        assert answer == len(found) * self.model.size
        if touch:
            for block in reversed(found):
                if not self.model.users[block]:
                    self.model.use(block)
        self.all(lambda real: real.hashes(tokens, salt=salt))

    @rule(n=st.integers(0, 5))
    def acquire_and_release(self, n):
        answer = self.all(lambda real: real.acquire(n))
        if n > len(self.model.free_blocks()):
            assert "not free" in answer
            return
        taken = [self.model.take() for _ in range(n)]
        assert answer == taken
        self.all(lambda real: real.release(taken))
        for block in reversed(taken):
            self.model.drop(block)

    @rule()
    def drain(self):
        self.all(lambda real: real.drain_events())

    @rule()
    def reset(self):
        assert self.all(lambda real: real.reset_prefix_cache()) == len(
            self.model.cached
        )
        self.model.cached.clear()

    @invariant()
    def same(self):
        if not hasattr(self, "model"):
            return
        model = self.model
        stats = self.all(lambda real: real.stats())
        assert stats.used == sum(map(bool, model.users))
        assert stats.cached == len(model.cached)
        assert stats.sequences == len(model.sequences)
        for handle, (_, tokens, blocks) in zip(
            self.handles, model.sequences, strict=True
        ):
            assert self.all(lambda real, h=handle: real.blocks(h)) == blocks
            assert self.all(lambda real, h=handle: real.length(h)) == len(tokens)
        for real in self.real:
            assert real._check() == 0


def run(implementations, examples):
    cls = type("_Machine", (Machine,), {"implementations": implementations})
    case = cls.TestCase
    most = min(examples, settings().max_examples)
    case.settings = settings(case.settings, max_examples=most)
    case("runTest").runTest()


def test_model(impl):
    run((impl.PrefixBlockManager,), 30)


def test_twins(twins):
    run(tuple(twin.PrefixBlockManager for twin in twins), 30)
