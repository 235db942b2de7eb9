"""What the machine can do: which device is there, whether it multiplies bfloat16 natively, and work on several cores at once."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Made = TypeVar("Made")
TOGETHER = 4


@functools.cache
def has_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic is native there."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def pick_device() -> str:
    """The GPU when there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def solo_threads(count: int, name: str) -> ThreadPoolExecutor:
    """A pool of `count` threads each of which computes alone.

    A thread that computes with torch gets helpers of its own, who wait for work by spinning and take the cores from the others
    (measured on two cores: training steps 1.4 to 1.8 times as long).
    """
    pool, barrier = ThreadPoolExecutor(count, thread_name_prefix=name), threading.Barrier(count)
    threads = torch.get_num_threads()
    for started in [pool.submit(_work_alone, barrier) for _ in range(count)]:
        started.result()
    torch.set_num_threads(threads)  # of this thread, and of those that begin later
    return pool


def share(images: int) -> int:
    """How many of some images a thread should take at a time: at most 4, whose maps stay in a core's cache, and two turns for every thread.

    All of them where there are too few images for that, or one thread (as in `side_by_side` itself).
    """
    threads = torch.get_num_threads()
    return max(images, 1) if threads == 1 or images < 2 * threads else min(TOGETHER, images // (2 * threads))


def side_by_side(work: Callable[[Part], Made], parts: Sequence[Part]) -> list[Made]:
    """[work(part) for part in parts] on the CPU, in as many threads as torch computes with here, each of which computes alone.

    Whole parts on cores of their own wait for each other once, at the end; the steps of one computation spread over all cores wait at
    each step. With one thread, or fewer than two parts for each, it is the plain loop.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) < 2 * threads:
        return [work(part) for part in parts]
    inference = torch.is_inference_mode_enabled()

    def alone(part: Part) -> Made:
        with torch.inference_mode(inference):
            return work(part)

    futures = [_streams(threads, os.getpid()).submit(alone, part) for part in parts]
    try:
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise


@functools.lru_cache(maxsize=1)
def _streams(threads: int, process: int) -> ThreadPoolExecutor:
    """The threads of this process (a forked one has none of its parent's)."""
    return solo_threads(threads, "kizu-stream")


def _work_alone(barrier: threading.Barrier) -> None:
    """One thread for what this thread computes. torch takes the number over at the first question, so that comes first."""
    torch.get_num_threads()
    torch.set_num_threads(1)
    barrier.wait()
