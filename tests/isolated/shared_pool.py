"""A shared pool on its way to other processes: python shared_pool.py BACKEND WAY

Prints "good", and nothing else, if all is as it should be.
"""

import contextlib
import importlib
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np

SharedBlockPool = importlib.import_module(
    f"ctxpool._{sys.argv[1]}.shared_pool"
).SharedBlockPool


def doubled(pool, handle, parent):
    """Twice what is in a block, in a block of one's own, that travels to the parent."""
    with pool.open(handle) as block:
        answer = pool.acquire()
        np.multiply(block.array("i8"), 2, out=answer.array("i8"))
        return answer.send(to=parent)


def serve(pool, pipe, parent):
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(doubled(pool, pipe.recv(), parent))


def spawn():
    """As an argument of a process; the child may go before its answer is read."""
    pool = SharedBlockPool("64KiB", 4, on_exhausted="wait", timeout=30)
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        child = context.Process(target=serve, args=(pool, theirs, pool.participant))
        child.start()
        theirs.close()
        for n in range(5):
            block = pool.acquire()
            block.array("i8")[:] = n
            ours.send(block.send())
            if n == 4 and method != "fork":  # whose pipe the child itself keeps open
                ours.poll(30)
                child.kill()
                child.join(30)
            with pool.open(ours.recv()) as answer:
                assert set(answer.array("i8").tolist()) == {2 * n}
        ours.close()
        child.kill()
        child.join(30)
    pool.recover()
    assert pool.available == 4, pool.loans()
    pool.check()


def begin(received, number):
    global pool, parent
    pool, parent = received, number


def in_worker(handle):
    return doubled(pool, handle, parent)


def executor():
    """As an argument of an executor's initializer."""
    pool = SharedBlockPool("64KiB", 6, on_exhausted="wait", timeout=30)
    context = multiprocessing.get_context("forkserver")
    given = pool, pool.participant
    with ProcessPoolExecutor(2, context, begin, given) as workers:
        handles = []
        for n in range(3):
            block = pool.acquire()
            block.array("i8")[:] = n
            handles.append(block.send())
        answers = workers.map(in_worker, handles)
        for n, handle in enumerate(answers):
            with pool.open(handle) as answer:
                assert answer.array("i8")[-1] == 2 * n
    pool.recover()
    assert pool.available == 6, pool.loans()


def exec_():
    """By a file descriptor that a new program inherits; made by a child, which goes."""
    with SharedBlockPool(64, 2) as pool:
        block = pool.acquire()
        block.view[:2] = b"hi"
        handle = tuple(block.handle)
        program = (
            "import importlib, sys, ctxpool\n"
            f"module = importlib.import_module({type(pool).__module__!r})\n"
            f"pool = module.SharedBlockPool.from_fd({pool.fileno()})\n"
            f"block = pool.open(ctxpool.BlockHandle(*{handle}))\n"
            "assert bytes(block.view[:2]) == b'hi'\n"
            "block.view[:2] = b'ho'\n"
        )
        command = [sys.executable, "-c", program]
        subprocess.run(command, pass_fds=[pool.fileno()], check=True, timeout=30)
        assert bytes(block.view[:2]) == b"ho"
        # What is not passed on is closed: no program keeps a pool by accident.
        listed = subprocess.run(
            ["ls", "-l", "/proc/self/fd"],
            capture_output=True,
            text=True,
            close_fds=False,
        )
        assert "ctxpool" not in listed.stdout


def exit_():
    """Pools, blocks, views and arrays of which nobody takes care."""
    global kept
    pool = SharedBlockPool(64, 4, on_exhausted="wait")
    block = pool.acquire()
    kept = [pool, block, block.view, pool.acquire().array(), pool.acquire().send()]
    kept.append(kept)
    importlib.import_module("atexit").register(pool.acquire)


assert not any("ctxpool" in name for name in os.listdir("/dev/shm"))
if __name__ == "__main__":
    WAYS = {"spawn": spawn, "executor": executor, "exec": exec_, "exit": exit_}
    WAYS[sys.argv[2]]()
    assert not any("ctxpool" in name for name in os.listdir("/dev/shm"))
    print("good")
