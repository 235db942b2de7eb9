"""Upsampling and smoothing against torch's interpolate and scipy's gaussian_filter, in turn."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from kizu.errors import ShapeError, UsageError
from kizu.maps import image_score, upsample


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sigma", [0.0, 1.3, 4.0])
@pytest.mark.parametrize("size", [(64, 64), (50, 90), (9, 7), (3, 4)])
def test_equals_the_two_steps_in_turn(size: tuple[int, int], sigma: float, align_corners: bool) -> None:
    scores = torch.rand(3, 7, 9, generator=torch.Generator().manual_seed(0)) * 10
    wide = torch.nn.functional.interpolate(
        scores[:, None].double(), size=size, mode="bilinear", align_corners=align_corners
    )[:, 0].numpy()
    expected = np.stack(
        [gaussian_filter(one, sigma, mode="reflect", truncate=4.0) if sigma else one for one in wide]
    )
    assert np.allclose(
        upsample(scores, size, sigma=sigma, align_corners=align_corners).numpy(), expected, atol=2e-5
    )


def test_a_batch_is_its_images() -> None:
    scores = torch.rand(4, 5, 6)
    together = upsample(scores, (40, 48))
    assert together.dtype == torch.float32
    assert all(
        torch.allclose(together[i], upsample(scores[i : i + 1], (40, 48))[0], atol=1e-6) for i in range(4)
    )


def test_image_scores() -> None:
    maps = torch.arange(200.0).reshape(1, 10, 20)
    assert image_score(maps).item() == 199
    assert image_score(maps, "mean").item() == 99.5
    assert image_score(maps, "top", share=0.02).item() == np.mean([199, 198, 197, 196])
    assert image_score(maps, "top", share=1e-9).item() == 199
    with pytest.raises(UsageError, match="'max', 'mean' or 'top'"):
        image_score(maps, "median")


def test_bad_shapes() -> None:
    with pytest.raises(ShapeError):
        upsample(torch.zeros(3, 4), (8, 8))
    with pytest.raises(UsageError, match="sigma"):
        upsample(torch.zeros(1, 3, 4), (8, 8), sigma=-1.0)


def test_what_is_kept_serves_where_gradients_are() -> None:
    """The matrices of a size are made once, maybe in inference mode, whose tensors autograd refuses."""
    with torch.inference_mode():
        upsample(torch.rand(1, 5, 6), (11, 13), sigma=1.0)
    scores = torch.rand(1, 5, 6, requires_grad=True)
    upsample(scores, (11, 13), sigma=1.0).sum().backward()
    assert scores.grad is not None
