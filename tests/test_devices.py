"""Work on several cores at once: order, errors, and threads that compute alone."""

from __future__ import annotations

import threading

import pytest
import torch

from kizu.devices import share, side_by_side

pytestmark = pytest.mark.usefixtures("two_threads")


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
