"""What the machine can do: which device is there, whether it multiplies bfloat16 natively, and work on
several cores at once."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from threadpoolctl import threadpool_info
from torch import Tensor

from kizu import accel
from kizu.errors import UsageError

Part = TypeVar("Part")
Result = TypeVar("Result")
MAX_CHUNK = 4
PRECISIONS = ("auto", "fp32", "bf16")
_PAUSE_SOFT = 1
"""omp_pause_soft."""
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_PROCESS = os.getpid()


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


def check_precision(precision: str) -> None:
    """Raise UsageError for a precision that does not exist."""
    if precision not in PRECISIONS:
        raise UsageError(f"precision is auto, fp32 or bf16, got {precision!r}.")


def single_threaded_pool(count: int, name: str) -> ThreadPoolExecutor:
    """A pool of `count` threads each of which computes alone.

    A thread that computes with torch gets helpers of its own, who wait for work by spinning and take the
    cores from the others (measured on two cores: training steps 1.4 to 1.8 times as long)."""
    pool, barrier = ThreadPoolExecutor(count, thread_name_prefix=name), threading.Barrier(count)
    threads = torch.get_num_threads()
    for started in [pool.submit(_work_alone, barrier) for _ in range(count)]:
        started.result()
    torch.set_num_threads(threads)  # of this thread, and of those that begin later
    return pool


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """This thread computes alone meanwhile: for many small steps, which would only keep helpers awake that
    take a core from others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's CPU generator begins at `seed` and is put back afterwards: for weights that torch draws.

    torch.manual_seed would seed the accelerators as well.

    >>> with seeded(0):
    ...     first = torch.rand(1)
    >>> with seeded(0):
    ...     bool(torch.rand(1) == first)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def device_named(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU when there is one. Raises UsageError for one that is not
    there, or of a kind on which nothing was tested."""
    try:
        device = torch.device(pick_device() if name == "auto" else name)
    except RuntimeError as error:
        raise UsageError(f"device is auto, cpu, cuda or cuda:NUMBER, got {name!r}.") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device is auto, cpu, cuda or cuda:NUMBER, got {name!r}.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {name!r}: this machine has no GPU that torch can use.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UsageError(f"device {name!r}: this machine has {count} of them, cuda:0 to cuda:{count - 1}.")
    return device


def chunk_size(images: int) -> int:
    """How many of some images a thread takes at a time: at most 4, whose maps stay in a core's cache, and two
    turns for every thread. All of them where there are too few for that, one thread, or KIZU_ACCEL=0."""
    threads = torch.get_num_threads()
    if threads == 1 or images < 2 * threads or not accel.enabled():
        return max(images, 1)
    return min(MAX_CHUNK, images // (2 * threads))


def map_chunks(
    work: Callable[[Part], Sequence[Tensor]],
    split: Callable[[int], Sequence[Part]],
    images: int,
    device: torch.device,
) -> list[Tensor]:
    """`work` on a batch of `images` images; on a CPU on a few of them at a time, in several threads.

    split(n) gives the batch in parts of n images; the tensors that `work` gives are joined along their first
    dimension. Here and in `imap_ordered` batches are split, nowhere else.
    """
    parts = thread_map(work, split(chunk_size(images) if device.type == "cpu" else max(images, 1)))
    return list(parts[0]) if len(parts) == 1 else [torch.cat(same) for same in zip(*parts, strict=True)]


def thread_map(
    work: Callable[[Part], Result], parts: Sequence[Part], *, threads: int | None = None
) -> list[Result]:
    """[work(part) for part in parts] on the CPU, in as many threads as torch computes with here, each of
    which computes alone.

    Whole parts on cores of their own wait for each other once, at the end; the steps of one computation
    spread over all cores wait at each step. With one thread, or fewer than two parts for each, it is the
    plain loop. threads: how many, for a caller who computes in `one_thread`; two parts are enough then."""
    least = 2 if threads else 2 * torch.get_num_threads()
    threads = threads or torch.get_num_threads()
    if threads == 1 or len(parts) < least:
        return [work(part) for part in parts]
    alone = _alone(work)
    release_omp_threads()
    futures = [_streams(threads, os.getpid()).submit(alone, part) for part in parts]
    try:
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def imap_ordered(work: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
    """work(part) of each part in order, as `thread_map`, while what was made before is used: streams are up
    to two parts each ahead.

    Parts are taken from their source one by one, by the thread that asks. The first error comes up in its
    turn, and ends it."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, parts)
        return
    alone = _alone(work)
    waiting: deque[Future[Result]] = deque()
    release_omp_threads()
    try:
        for part in parts:
            waiting.append(_streams(threads, os.getpid()).submit(alone, part))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def max_workers() -> int:
    """How many times at most `omp_parallel` calls."""
    threads = torch.get_num_threads()
    return threads if threads == 1 or _openmp() is not None else 2 * threads


def omp_parallel(address: int, data: int) -> None:
    """Call the compiled function at `address`, void (*)(void *), with `data` in every thread that torch
    computes with here; they share the work out among themselves.

    For work of a few milliseconds: the helpers that OpenMP keeps for this thread are still awake, and no
    thread needs Python's lock (waking a stream takes 0.3 ms, the lock 0.2). Without OpenMP the streams call
    it; a thread that comes too late must find nothing to do."""
    threads, library = torch.get_num_threads(), _openmp()
    if threads == 1:
        _FUNCTION(address)(data)
    elif library is not None:
        library.GOMP_parallel(address, data, threads, 0)
    else:
        thread_map(lambda _: _FUNCTION(address)(data), range(max_workers()))


def release_omp_threads() -> None:
    """End the helpers that OpenMP keeps for this thread: for some 20 ms they wait by spinning, and take a
    core from the streams.

    The next computation that is spread over cores starts new ones, in less than 0.1 ms. Where torch computes
    by other means, nothing."""
    library = _openmp()
    if library is not None:
        library.omp_pause_resource_all(_PAUSE_SOFT)


def _openmp() -> ctypes.CDLL | None:
    """The OpenMP with which torch computes, if it is one that can be asked. A forked process has it, but not
    its helpers: it would wait for them."""
    return _library() if os.getpid() == _PROCESS else None


@functools.cache
def _library() -> ctypes.CDLL | None:
    """GNU's OpenMP, or LLVM's, with the call of compiled programs and that of OpenMP 5.0, section 3.6."""
    found = [Path(library["filepath"]) for library in threadpool_info() if library["user_api"] == "openmp"]
    brought = [path for path in found if Path(torch.__file__).parent in path.parents]
    for path in brought or found[: len(found) == 1]:
        library = ctypes.CDLL(str(path))
        if hasattr(library, "omp_pause_resource_all") and hasattr(library, "GOMP_parallel"):
            library.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            library.GOMP_parallel.restype = None
            return library
    return None


def _alone(work: Callable[[Part], Result]) -> Callable[[Part], Result]:
    """`work` in the mode of this thread, whichever does it."""
    inference = torch.is_inference_mode_enabled()

    def alone(part: Part) -> Result:
        with torch.inference_mode(inference):
            return work(part)

    return alone


@functools.lru_cache(maxsize=1)
def _streams(threads: int, process: int) -> ThreadPoolExecutor:
    """The threads of this process (a forked one has none of its parent's)."""
    return single_threaded_pool(threads, "kizu-stream")


def _work_alone(barrier: threading.Barrier) -> None:
    """One thread for what this thread computes. torch takes the number over at the first question, so that
    comes first."""
    torch.get_num_threads()
    torch.set_num_threads(1)
    barrier.wait()
