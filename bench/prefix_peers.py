"""What PrefixBlockManager is measured against.

vLLM's own block pool and hashing, in Python, run from its sources alone: what they
import of the rest of vLLM is replaced by empty stand-ins, none of which the measured
calls use. Where the sources are is told by the environment:

    pip download --no-deps vllm==0.33.0    # the source archive is smaller than this
    CTXPOOL_VLLM=vllm-0.33.0-....whl python bench/context.py --only prefix

(a .whl, a .tar.gz or a folder that has vllm/ in it). Without them the peer is Plain,
the same structure written here in plain Python: an OrderedDict of free blocks, a dict
of hashes, sha256 over pickle.
"""

import hashlib
import os
import pickle
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

__all__ = ["VLLM", "Peer", "Plain", "peer"]

SIZE = 16


class Peer(Protocol):
    """A pool of blocks of SIZE tokens."""

    name: str

    def __init__(self, blocks: int) -> None: ...
    def get(self, n: int) -> Any: ...
    def free(self, blocks: Any) -> None: ...
    def prompt(self, tokens: list[int]) -> tuple[Any, int]: ...


def digest(parent: bytes, tokens: list[int]) -> bytes:
    return hashlib.sha256(pickle.dumps((parent, tuple(tokens), None), 5)).digest()


class Plain:
    """A block is a number; what is free stands in the order of eviction."""

    name = "plain Python"

    def __init__(self, blocks: int) -> None:
        self.queue = OrderedDict.fromkeys(range(blocks))
        self.refs = [0] * blocks
        self.hashes: list[bytes | None] = [None] * blocks
        self.cached: dict[bytes, int] = {}

    def get(self, n: int) -> list[int]:
        if n > len(self.queue):
            raise ValueError(n)
        taken = []
        for _ in range(n):
            block, _ = self.queue.popitem(last=False)
            hash_ = self.hashes[block]
            if hash_ is not None:
                del self.cached[hash_]
                self.hashes[block] = None
            self.refs[block] = 1
            taken.append(block)
        return taken

    def free(self, blocks: list[int]) -> None:
        for block in reversed(blocks):
            self.refs[block] -= 1
            if not self.refs[block]:
                self.queue[block] = None
                if self.hashes[block] is None:
                    self.queue.move_to_end(block, last=False)

    def prompt(self, tokens: list[int]) -> tuple[list[int], int]:
        hashes, parent = [], b""
        for at in range(0, len(tokens) - SIZE + 1, SIZE):
            parent = digest(parent, tokens[at : at + SIZE])
            hashes.append(parent)
        hits = []
        for hash_ in hashes:
            block = self.cached.get(hash_)
            if block is None:
                break
            hits.append(block)
        for block in hits:
            if not self.refs[block]:
                del self.queue[block]
            self.refs[block] += 1
        fresh = self.get(-(-len(tokens) // SIZE) - len(hits))
        for block, hash_ in zip(fresh, hashes[len(hits) :], strict=False):
            if hash_ not in self.cached:
                self.cached[hash_], self.hashes[block] = block, hash_
        return hits + fresh, len(hits)


class VLLM:
    """Its functions in the order in which its coordinator calls them for a request."""

    name = "vLLM"

    def __init__(self, blocks: int) -> None:
        utils, hashing = loaded("v1.core.kv_cache_utils"), loaded("utils.hashing")
        self.pool = loaded("v1.core.block_pool").BlockPool(blocks + 1, True, SIZE)
        utils.init_none_hash(hashing.sha256)
        self.hasher = utils.get_request_block_hasher(SIZE, hashing.sha256)

    def get(self, n: int) -> list[Any]:
        return self.pool.get_new_blocks(n)

    def free(self, blocks: list[Any]) -> None:
        self.pool.free_blocks(reversed(blocks))

    def prompt(self, tokens: list[int]) -> tuple[list[Any], int]:
        request = types.SimpleNamespace(
            all_token_ids=tokens,
            num_tokens=len(tokens),
            block_hashes=[],
            mm_features=[],
            lora_request=None,
            cache_salt=None,
            prompt_embeds=None,
        )
        request.block_hashes = self.hasher(request)
        hits: list[Any] = []
        for hash_ in request.block_hashes:
            found = self.pool.get_cached_block(hash_, [0])
            if not found:
                break
            hits += found
        self.pool.touch(hits)
        blocks = hits + self.pool.get_new_blocks(-(-len(tokens) // SIZE) - len(hits))
        full = len(request.block_hashes)
        self.pool.cache_full_blocks(request, blocks, len(hits), full, SIZE, 0)
        return blocks, len(hits)


class Stub(types.ModuleType):
    """A module in which there is whatever is asked for: an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda *args, **kwargs: None})


REAL = "utils.hashing", "utils.math_utils", "v1.core.kv_cache_utils"
STUBS = ["cbor2", "vllm", "vllm.config", "vllm.distributed", "vllm.envs", "vllm.logger"]
STUBS += ["vllm.distributed.kv_events", "vllm.multimodal", "vllm.multimodal.utils"]
STUBS += ["vllm.utils", "vllm.v1", "vllm.v1.core", "vllm.v1.core.kv_cache_metrics"]
STUBS += ["vllm.v1.kv_cache_interface", "vllm.v1.kv_cache_spec_registry"]
STUBS += ["vllm.v1.request", "vllm.v1.utils"]


def source(name: str) -> str:
    """The text of a module of vLLM."""
    path, inside = Path(os.environ["CTXPOOL_VLLM"]), f"vllm/{name.replace('.', '/')}.py"
    if path.is_dir():
        return (path / inside).read_text()
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(inside).decode()
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.partition("/")[2] == inside:
                file = archive.extractfile(member)
                assert file is not None
                return file.read().decode()
    raise FileNotFoundError(f"{path} has no {inside}")


def loaded(name: str) -> Any:
    full = f"vllm.{name}"
    if full not in sys.modules:
        for stub in STUBS:
            sys.modules.setdefault(stub, Stub(stub))
        for needed in REAL if name not in REAL else REAL[: REAL.index(name)]:
            loaded(needed)
        module = types.ModuleType(full)
        sys.modules[full] = module  # dataclasses look there for their module
        exec(compile(source(name), full, "exec"), module.__dict__)
    return sys.modules[full]


def peer() -> type[Peer]:
    """vLLM's pool where its sources are, else the plain one."""
    return VLLM if os.environ.get("CTXPOOL_VLLM") else Plain
