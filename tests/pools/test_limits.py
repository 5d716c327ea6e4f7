"""How much memory may be taken, and what happens to who takes more."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from ctxpool.errors import MemoryLimitError
from ctxpool.pools import limits
from ctxpool.pools.limits import (
    _cgroups,
    available_memory,
    memory_limit,
    require_memory,
)

linux = pytest.mark.skipif(
    sys.platform != "linux" or "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="RLIMIT_DATA is Linux's, and AddressSanitizer needs all there is",
)


def test_available():
    headroom = available_memory()
    assert 0 < headroom.available <= headroom.limit
    assert headroom.source in ("system", "cgroup", "RLIMIT_AS", "RLIMIT_DATA")
    assert headroom.as_dict()["source"] == headroom.source


def test_require():
    assert require_memory("1KB").available > 1000
    with pytest.raises(MemoryLimitError) as caught:
        require_memory(10**18, "the index")
    error = caught.value
    assert error.wanted == 10**18
    assert str(error).startswith("the index needs 1000000000000000000 bytes, and ")
    assert str(error.available) in str(error)
    assert isinstance(error, MemoryError)
    with pytest.raises(ValueError, match="nbytes"):
        require_memory(0)


@linux
def test_limit():
    with memory_limit("1GiB"):
        bytearray(1 << 20)
        assert available_memory().available <= 2 << 30
    beyond = r"beyond memory_limit\(67108864\)"
    with pytest.raises(MemoryLimitError, match=beyond) as e, memory_limit("64MiB"):
        np.ones(10**9)
    assert "Unable to allocate" in str(e.value)  # numpy's own words, with the size
    assert isinstance(e.value.__cause__, MemoryError)
    assert e.value.limit == 64 << 20
    assert e.value.source == "RLIMIT_DATA"
    bytearray(100 << 20)
    with pytest.raises(LookupError), memory_limit("64MiB"):
        raise LookupError


@linux
def test_limits_nest():
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_limit("64MiB"):
        inner = resource.getrlimit(resource.RLIMIT_DATA)[0]
        with memory_limit("1GiB"):
            assert resource.getrlimit(resource.RLIMIT_DATA)[0] == inner
        with memory_limit("1MiB"):
            assert resource.getrlimit(resource.RLIMIT_DATA)[0] < inner
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] == inner
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@linux
def test_a_limit_of_the_process():
    """RLIMIT_AS is seen before it is hit."""
    script = """
        import resource
        from ctxpool.errors import MemoryLimitError
        from ctxpool.pools.limits import available_memory, require_memory
        require_memory("1GiB") if available_memory().available > 2 << 30 else None
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (300 << 20),) * 2)
        found = available_memory()
        print(found.source, found.available <= 300 << 20)
        try:
            require_memory("400MiB")
        except MemoryLimitError as error:
            print(error.wanted, error.source)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["RLIMIT_AS", "True", "419430400", "RLIMIT_AS"], done


def group(folder: Path, limit, usage, names, stat):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(stat)


def test_cgroups_2(tmp_path):
    names = ("memory.max", "memory.current")
    group(tmp_path / "a", 1000, 600, names, "anon 1\ninactive_file 200\n")
    group(tmp_path / "a" / "b", "max", 500, names, "")
    (tmp_path / "self").write_text("0::/a/b\n")
    (found,) = _cgroups(tmp_path / "self", tmp_path)
    assert (found.available, found.limit, found.source) == (600, 1000, "cgroup")
    (tmp_path / "self").write_text("0::/../../outside\n")
    assert list(_cgroups(tmp_path / "self", tmp_path)) == []
    assert list(_cgroups(tmp_path / "absent", tmp_path)) == []


def test_cgroups_1(tmp_path):
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    stat = "total_inactive_file 100\n"
    group(tmp_path / "memory" / "x", 1000, 2000, names, stat)
    group(tmp_path / "memory", 2**63 - 4096, 5000, names, stat)
    (tmp_path / "self").write_text("5:cpu:/\n4:memory:/x\n1:name=systemd:/\n")
    (found,) = _cgroups(tmp_path / "self", tmp_path)
    assert (found.available, found.limit) == (0, 1000)


def test_a_system_without_such_limits(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "_STATUS", tmp_path / "absent")
    limit = memory_limit("1GiB")
    with pytest.raises(OSError, match="enforces no limit") as refused, limit:
        pytest.fail("it set no limit")
    assert refused.value.errno == errno.ENOTSUP
