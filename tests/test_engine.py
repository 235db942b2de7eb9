"""Work on several cores at once: order, errors, and threads that compute alone."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import kizu
from kizu import engine
from kizu.engine import chunk_size, device_named, imap_ordered, max_workers, omp_parallel, thread_map
from kizu.errors import UsageError

pytestmark = pytest.mark.usefixtures("two_threads")
openmp = pytest.mark.skipif(
    engine._openmp() is None, reason="torch computes without an OpenMP that can be asked"
)


def test_answers_in_order_from_threads_that_compute_alone() -> None:
    def work(part: int) -> tuple[int, int, str]:
        return part, torch.get_num_threads(), threading.current_thread().name

    made = thread_map(work, list(range(12)))
    assert [part for part, _, _ in made] == list(range(12))
    assert {threads for _, threads, _ in made} == {1}
    assert all(name.startswith("kizu-stream") for _, _, name in made)
    assert torch.get_num_threads() == 2  # of the caller


def test_later_threads_keep_their_number_of_threads() -> None:
    thread_map(lambda part: part, list(range(4)))
    seen: list[int] = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2]


def compiled(work: Callable[[], object]) -> tuple[object, int]:
    """A stand-in for machine code: what must be kept alive, and its address."""
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda data: done.append((work(), data)))
    done: list[tuple[object, int]] = []
    return (function, done), int(ctypes.cast(function, ctypes.c_void_p).value or 0)


@openmp
def test_machine_code_is_entered_by_all_threads_at_once() -> None:
    both = threading.Barrier(2, timeout=60)

    def work() -> int:
        both.wait()  # passed only when two are at it
        return threading.get_ident()

    (_, done), address = compiled(work)
    omp_parallel(address, 77)
    assert {data for _, data in done} == {77}
    assert len({thread for thread, _ in done}) == max_workers() == 2
    assert threading.get_ident() in {thread for thread, _ in done}


def test_one_thread_enters_alone() -> None:
    (_, done), address = compiled(threading.get_ident)
    torch.set_num_threads(1)
    omp_parallel(address, 5)
    assert done == [(threading.get_ident(), 5)]
    assert max_workers() == 1


def test_without_openmp_there_are_streams_and_nobody_is_sent_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_openmp", lambda: None)
    (_, done), address = compiled(lambda: threading.current_thread().name)
    omp_parallel(address, 5)
    assert len(done) == max_workers() == 4
    assert all(str(name).startswith("kizu-stream") for name, _ in done)


@openmp
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux lists them")
def test_helpers_are_sent_home_before_streams_start() -> None:
    thread_map(lambda part: part, list(range(4)))
    before = threads_of_this_process()
    numbers = torch.arange(2_000_000.0)
    assert float((numbers + 1).sum()) > 0  # spread over two threads
    assert threads_of_this_process() == before + 1
    thread_map(lambda part: part, list(range(4)))
    assert threads_of_this_process() == before
    assert torch.equal(numbers + 1, numbers.add(1))  # and they come again


def test_in_order_of_the_source_a_few_ahead() -> None:
    taken: list[int] = []
    slow = threading.Event()

    def source() -> Iterator[int]:
        for part in range(40):
            taken.append(part)
            yield part

    def work(part: int) -> tuple[int, int, str]:
        if part == 0:
            slow.wait(60)  # those behind it are ready first
        return part, torch.get_num_threads(), threading.current_thread().name

    made = imap_ordered(work, source())
    threading.Timer(0.2, slow.set).start()
    first = next(made)
    assert len(taken) == 5  # the first, and two for each of two threads
    rest = list(made)
    assert [part for part, _, _ in (first, *rest)] == list(range(40))
    assert {threads for _, threads, _ in rest} == {1}
    assert all(name.startswith("kizu-stream") for _, _, name in rest)


def test_in_order_an_error_comes_in_its_turn_and_ends_it() -> None:
    done: list[int] = []

    def work(part: int) -> int:
        if part == 7:
            raise ValueError("the seventh")
        done.append(part)
        return part

    made = imap_ordered(work, range(1000))
    assert [next(made) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="the seventh"):
        next(made)
    assert set(range(7)) <= set(done)
    assert max(done) <= 12
    torch.set_num_threads(1)
    assert list(imap_ordered(lambda part: part + 1, range(5))) == [1, 2, 3, 4, 5]


def threads_of_this_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes that fork")
def test_a_forked_process_does_not_wait_for_its_parents_helpers() -> None:
    code = """
import ctypes, os, torch
from kizu.engine import omp_parallel, thread_map
torch.set_num_threads(2)
(torch.arange(2e6) + 1).sum()
child = os.fork()
made = thread_map(lambda part: part + 1, list(range(8)))
function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(made.append)
omp_parallel(ctypes.cast(function, ctypes.c_void_p).value, 9)
if child == 0:
    os._exit(made != [1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9])
raise SystemExit(os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=120, check=False)
    assert done.returncode == 0


def test_few_parts_and_parts_of_parts_are_a_plain_loop() -> None:
    here = threading.current_thread().name
    assert thread_map(lambda part: threading.current_thread().name, [0, 1, 2]) == [here] * 3
    inner = thread_map(
        lambda part: thread_map(lambda again: threading.current_thread().name, list(range(8))),
        list(range(4)),
    )
    assert all(len(set(names)) == 1 for names in inner)


def test_the_first_error_comes_back_and_the_threads_live_on() -> None:
    def work(part: int) -> int:
        if part == 3:
            raise ValueError("the third")
        return part

    with pytest.raises(ValueError, match="the third"):
        thread_map(work, list(range(8)))
    assert thread_map(lambda part: part, [5, 6, 7, 8]) == [5, 6, 7, 8]


@pytest.mark.parametrize("inference", [True, False])
def test_inference_mode_is_that_of_the_caller(inference: bool) -> None:
    with torch.inference_mode(inference):
        modes = thread_map(lambda part: torch.is_inference_mode_enabled(), list(range(4)))
    assert modes == [inference] * 4


@pytest.mark.parametrize(
    ("threads", "images", "some"),
    [
        (1, 16, 16),
        (2, 16, 4),
        (2, 64, 4),
        (2, 7, 1),
        (2, 3, 3),
        (4, 16, 2),
        (8, 16, 1),
        (16, 16, 16),
        (2, 0, 1),
    ],
)
@pytest.mark.usefixtures("accelerated")
def test_each_thread_takes_some_images_twice(threads: int, images: int, some: int) -> None:
    torch.set_num_threads(threads)
    assert chunk_size(images) == some


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=f"device '{name}': this machine has no GPU"):
        device_named(name)
    with pytest.raises(UsageError, match="this machine has no GPU"):
        kizu.detector("gaussian", "random/resnet10t@1", device=name).fit(torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize("name", ["gpu", "mps", "meta", "xpu", "cuda:-1", "cpu:", "", "cuda:x"])
def test_devices_that_are_none(name: str) -> None:
    with pytest.raises(UsageError, match="device is auto, cpu, cuda or cuda:NUMBER"):
        device_named(name)


def test_the_second_of_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="device 'cuda:1': this machine has 1 of them, cuda:0 to cuda:0"):
        device_named("cuda:1")
