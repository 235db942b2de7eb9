"""Letters bind across arguments."""

import numpy as np
import pytest

from kizu.checks import check_shapes
from kizu.errors import ShapeError


@check_shapes(images="B 3 H W", masks="B H W")
def look(images: object, masks: object = None) -> str:
    return "looked"


def test_fitting_shapes_pass() -> None:
    assert look(np.zeros((2, 3, 4, 5)), np.zeros((2, 4, 5))) == "looked"
    assert look(np.zeros((2, 3, 4, 5))) == "looked"


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ((2, 4, 4, 5), (2, 4, 5), "4 where 3 is due"),
        ((2, 3, 4), (2, 4, 5), r"images must have shape \(B, 3, H, W\), got \(2, 3, 4\)"),
        ((2, 3, 4, 5), (2, 4, 6), "W is 6 here but 5 in images"),
        ((2, 3, 4, 5), (3, 4, 5), "B is 3 here but 2 in images"),
    ],
)
def test_others_say_what_is_wrong(images: tuple[int, ...], masks: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        look(np.zeros(images), np.zeros(masks))


def test_not_an_array() -> None:
    with pytest.raises(ShapeError, match="got str"):
        look("image")
    with pytest.raises(ShapeError, match="different lengths"):
        look([[1, 2], [3]])
    with pytest.raises(ShapeError, match=r"got \(2,\)"):
        look([1, 2])


def test_a_pattern_for_no_argument_is_a_mistake_of_the_author() -> None:
    with pytest.raises(TypeError, match="no argument"):
        check_shapes(nothing="B")(look)


def test_leading_dimensions() -> None:
    @check_shapes(rows="... D", weights="D")
    def weigh(rows: object, weights: object) -> None: ...

    weigh(np.zeros((2, 3, 4)), np.zeros(4))
    with pytest.raises(ShapeError):
        weigh(np.zeros((2, 3, 4)), np.zeros(3))
