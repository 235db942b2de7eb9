"""Work on several cores at once: order, errors, and threads that compute alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from kizu import devices
from kizu.devices import at_once, share, side_by_side

pytestmark = pytest.mark.usefixtures("two_threads")
openmp = pytest.mark.skipif(devices._openmp() is None, reason="torch computes without an OpenMP that can be asked")


def test_answers_in_order_from_threads_that_compute_alone() -> None:
    def work(part: int) -> tuple[int, int, str]:
        return part, torch.get_num_threads(), threading.current_thread().name

    made = side_by_side(work, list(range(12)))
    assert [part for part, _, _ in made] == list(range(12))
    assert {threads for _, threads, _ in made} == {1}
    assert all(name.startswith("kizu-stream") for _, _, name in made)
    assert torch.get_num_threads() == 2  # of the caller


def test_later_threads_keep_their_number_of_threads() -> None:
    side_by_side(lambda part: part, list(range(4)))
    seen: list[int] = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2]


@openmp
def test_a_team_works_at_once_in_order_each_alone() -> None:
    both = threading.Barrier(2, timeout=60)

    def work(part: int) -> tuple[int, int, list[bool], int]:
        both.wait()  # passed only when two are at it
        inner = [threading.get_ident() == other for other in at_once(lambda _: threading.get_ident(), [0, 1, 2, 3])]
        return part, threading.get_ident(), inner, share(16)

    made = at_once(work, list(range(8)))
    assert [part for part, *_ in made] == list(range(8))
    assert len({thread for _, thread, _, _ in made}) == 2
    assert threading.get_ident() in {thread for _, thread, _, _ in made}
    assert all(all(inner) and some == 16 for _, _, inner, some in made)  # nothing is spread further
    assert share(16) == 4


@openmp
@pytest.mark.parametrize("inference", [True, False])
def test_a_team_computes_with_torch_in_the_callers_mode(inference: bool) -> None:
    rows = torch.randn(8, 300, 300, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(inference):
        made = at_once(lambda part: (part @ part.T, torch.is_inference_mode_enabled()), list(rows))
    assert [mode for _, mode in made] == [inference] * 8
    assert torch.allclose(torch.stack([product for product, _ in made]), rows @ rows.mT, atol=1e-3)


@openmp
def test_an_error_in_a_team_comes_back_and_ends_it() -> None:
    done: list[int] = []

    def work(part: int) -> int:
        if part == 3:
            raise KeyboardInterrupt
        done.append(part)
        return part

    with pytest.raises(KeyboardInterrupt):
        at_once(work, list(range(1000)))
    assert len(done) < 900
    assert at_once(lambda part: part, [5, 6]) == [5, 6]


def test_without_openmp_there_are_streams_and_nobody_is_sent_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_openmp", lambda: None)
    names = at_once(lambda part: threading.current_thread().name, list(range(8)))
    assert all(name.startswith("kizu-stream") for name in names)


@openmp
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux lists them")
def test_helpers_are_sent_home_before_streams_start() -> None:
    side_by_side(lambda part: part, list(range(4)))
    before = threads_of_this_process()
    numbers = torch.arange(2_000_000.0)
    assert float((numbers + 1).sum()) > 0  # spread over two threads
    assert threads_of_this_process() == before + 1
    side_by_side(lambda part: part, list(range(4)))
    assert threads_of_this_process() == before
    assert torch.equal(numbers + 1, numbers.add(1))  # and they come again


def threads_of_this_process() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes that fork")
def test_a_forked_process_does_not_wait_for_its_parents_helpers() -> None:
    code = """
import os, torch
from kizu.devices import at_once, side_by_side
torch.set_num_threads(2)
(torch.arange(2e6) + 1).sum()
child = os.fork()
made = [work(lambda part: part + 1, list(range(8))) for work in (side_by_side, at_once)]
if child == 0:
    os._exit(made != [list(range(1, 9))] * 2)
raise SystemExit(os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=120, check=False)
    assert done.returncode == 0


def test_few_parts_and_parts_of_parts_are_a_plain_loop() -> None:
    here = threading.current_thread().name
    assert side_by_side(lambda part: threading.current_thread().name, [0, 1, 2]) == [here] * 3
    inner = side_by_side(lambda part: side_by_side(lambda again: threading.current_thread().name, list(range(8))), list(range(4)))
    assert all(len(set(names)) == 1 for names in inner)


def test_the_first_error_comes_back_and_the_threads_live_on() -> None:
    def work(part: int) -> int:
        if part == 3:
            raise ValueError("the third")
        return part

    with pytest.raises(ValueError, match="the third"):
        side_by_side(work, list(range(8)))
    assert side_by_side(lambda part: part, [5, 6, 7, 8]) == [5, 6, 7, 8]


@pytest.mark.parametrize("inference", [True, False])
def test_inference_mode_is_that_of_the_caller(inference: bool) -> None:
    with torch.inference_mode(inference):
        modes = side_by_side(lambda part: torch.is_inference_mode_enabled(), list(range(4)))
    assert modes == [inference] * 4


@pytest.mark.parametrize(
    ("threads", "images", "some"),
    [(1, 16, 16), (2, 16, 4), (2, 64, 4), (2, 7, 1), (2, 3, 3), (4, 16, 2), (8, 16, 1), (16, 16, 16), (2, 0, 1)],
)
def test_each_thread_takes_some_images_twice(threads: int, images: int, some: int) -> None:
    torch.set_num_threads(threads)
    assert share(images) == some
