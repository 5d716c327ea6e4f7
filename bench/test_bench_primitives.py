"""Pooled against unpooled, per operation:  pytest bench --benchmark-only

Each round is one loop of N operations (N in ``extra_info``), so pytest-benchmark's
own cost per call does not count; divide by N.
"""

import pytest
from cases import cases
from operations import Case, compile_loop

CASES = cases()


@pytest.mark.parametrize(
    "case",
    CASES,
    ids=[f"{c.primitive}-{c.operation}-{c.size}-{c.side}-{c.name}" for c in CASES],
)
def test_operation(benchmark, case: Case) -> None:
    benchmark.group = f"{case.side}: {case.group}"
    benchmark.extra_info.update(
        operations=case.ops,
        primitive=case.primitive,
        operation=case.operation,
        size=case.size,
        side=case.side,
        name=case.name,
    )
    loop = compile_loop(case)
    benchmark.pedantic(loop, args=(case.ops,), rounds=7, warmup_rounds=1)
