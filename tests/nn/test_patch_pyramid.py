"""Transformations and the pyramid of patches, each against an independent computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kizu.errors import UnknownName
from kizu.nn.patch_pyramid import FIELD, REACH, PatchPyramid, patch_network, pyramid_sizes, resized
from kizu.nn.transformations import Transformation, every_one, transform, transformations, undo


def images(count: int = 1, side: int = 20, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, side, side, generator=generator, dtype=torch.float64)


# -- transformations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "count"), [("colour", 54), ("grey", 42)])
def test_the_lists_have_the_paper_s_length_and_no_twins(kind: str, count: int) -> None:
    chosen = transformations(kind)
    assert len(chosen) == len(set(chosen)) == count
    shown = every_one(images(), chosen, 0.15).flatten(1)
    distances = torch.cdist(shown, shown) + torch.eye(count) * 9
    assert distances.min() > 1e-3, "two of them give the same image"


def test_what_the_lists_hold() -> None:
    """Of the released code: all turns and flips with shifts to the right and down, 10 further shifts, and
    without colour 8 turns and flips and 4 shifts."""
    colour = transformations("colour")
    grey = [one for one in colour if one.grey]
    assert (len(grey), sum(one.shifts for one in grey)) == (12, 4)
    assert sum(one.turns > 0 for one in colour if not one.grey) == 24
    assert sum(-1 in (one.right, one.down) and not one.grey for one in colour) == 10
    assert transformations("grey") == tuple(one for one in colour if not one.grey)
    with pytest.raises(UnknownName, match="colour"):
        transformations("color")


@pytest.mark.parametrize("one", transformations("colour"))
def test_a_transformation_by_numpy(one: Transformation) -> None:
    """20 pixels: a shift is 3; symmetric padding is the mirror at the border."""
    given = images()
    expected = given[0].numpy()
    if one.flip:
        expected = expected[:, :, ::-1]
    wide = np.pad(expected, ((0, 0), (3, 3), (3, 3)), mode="symmetric")
    top, left = 3 - 3 * one.down, 3 - 3 * one.right
    expected = wide[:, top : top + 20, left : left + 20]
    expected = np.rot90(expected, one.turns, (1, 2))
    if one.grey:
        luma = 0.299 * expected[0] + 0.587 * expected[1] + 0.114 * expected[2]
        expected = np.stack([luma] * 3)
    shown = transform(given, one, 0.15)
    np.testing.assert_allclose(shown[0].numpy(), expected, atol=1e-12)
    if not one.shifts and not one.grey:
        assert torch.equal(undo(shown[0], one)[0], given[0])


def test_gradients_pass_through_all_of_them() -> None:
    """Linear maps: the gradient of <w, T x> is T's transpose, by finite differences."""
    given = images(1, 7).requires_grad_(True)
    weights = torch.randn(54, 3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    chosen = transformations("colour")
    (every_one(given, chosen) * weights).sum().backward()
    assert given.grad is not None
    nudge = torch.zeros_like(given)
    nudge[0, 1, 2, 5] = 1.0
    with torch.no_grad():
        slope = ((every_one(given + nudge, chosen) - every_one(given, chosen)) * weights).sum()
    assert given.grad[0, 1, 2, 5].item() == pytest.approx(slope.item())


# -- the pyramid ---------------------------------------------------------------------------------------------


def test_sizes_of_the_paper_and_others() -> None:
    made = pyramid_sizes((128, 128), coarsest=25, finest=64, factor=0.75)
    assert made == [(side, side) for side in (25, 32, 40, 51, 64)]
    assert made == pyramid_sizes((256, 256), coarsest=25, finest=64, factor=0.75)
    assert pyramid_sizes((128, 256), coarsest=25, finest=64, factor=0.75) == [(25, 50), (32, 64)]
    assert pyramid_sizes((40, 40), coarsest=25, finest=64, factor=0.75)[-1] == (40, 40)
    assert pyramid_sizes((64, 64), coarsest=64, finest=64, factor=0.75) == [(64, 64)]
    for side in range(26, 200):
        sizes = [h for h, _ in pyramid_sizes((side, side), coarsest=25, finest=side, factor=0.75)]
        assert sizes[0] == 25
        assert sizes == sorted(sizes)
        step = (25 / side) ** (1 / (len(sizes) - 1))
        assert step >= 0.75 - 1e-9
        assert math.ceil(math.log(25 / side) / math.log(0.75) - 1e-9) == len(sizes) - 1


def pyramid(width: int = 4) -> PatchPyramid:
    torch.manual_seed(0)
    return PatchPyramid([(12, 12), (15, 15), (18, 18)], width=width, classes=5).double().eval()


def test_networks_look_at_eleven_pixels() -> None:
    net = patch_network(3, 4, 2).double().eval()
    given = images(1, 20).requires_grad_(True)
    out = net(given)
    assert out.shape == (1, 2, 10, 10)
    out[0, 0, 4, 5].backward()
    assert given.grad is not None
    rows, columns = torch.where(given.grad[0].abs().sum(0) > 0)
    assert (rows.min(), rows.max()) == (4, 4 + FIELD - 1)
    assert (columns.min(), columns.max()) == (5, 5 + 2 * REACH)


def test_a_generator_adds_to_the_image_below() -> None:
    """tanh of the network on noise + image + plane, all padded by zeros, by hand."""
    scale = pyramid()[0]
    noise, below = images(2, 12, 1) - 0.5, images(2, 12, 2)
    numbers = torch.tensor([0, 3])
    seen = torch.zeros(2, 4, 22, 22, dtype=torch.float64)
    seen[:, :3, 5:17, 5:17] = noise + below
    seen[1, 3] = 3.0
    expected = torch.tanh(scale.generator(seen)) + below
    assert torch.allclose(scale.generate(noise, below, numbers), expected, atol=1e-12)


def test_reconstruction_and_strengths_scale_by_scale() -> None:
    net, numbers = pyramid(), torch.tensor([0, 1])
    reals = [resized(images(2, 18) * 2 - 1, size) for size in net.sizes]
    with torch.no_grad():
        rebuilt, strengths = net.reconstruct(reals, numbers, 2, 0.1)
        first = resized(net[0].generate(net[0].fixed, torch.zeros_like(reals[0]), numbers), (15, 15))
        rmse = [(reals[1][i] - first[i]).pow(2).mean().sqrt() for i in range(2)]
        second = net[1].generate(0.1 * torch.stack(rmse)[:, None, None, None] * net[1].fixed, first, numbers)
    assert torch.allclose(rebuilt, resized(second, (18, 18)), atol=1e-12)
    assert [strength.shape for strength in strengths] == [(2, 1, 1, 1)] * 3
    assert torch.equal(strengths[0], torch.ones(2, 1, 1, 1, dtype=torch.float64))
    assert torch.allclose(strengths[1].flatten(), 0.1 * torch.stack(rmse), atol=1e-12)


def test_random_noise_has_the_strength_of_its_scale() -> None:
    net, numbers = pyramid(), torch.zeros(64, dtype=torch.int64)
    strengths = [torch.full((64, 1, 1, 1), value, dtype=torch.float64) for value in (1.0, 0.3, 0.2)]
    with torch.no_grad():
        below, noise = net.draw(strengths, numbers, 2, torch.Generator().manual_seed(5))
        again, _ = net.draw(strengths, numbers, 2, torch.Generator().manual_seed(5))
        nothing, first = net.draw(strengths, numbers, 0, torch.Generator().manual_seed(5))
    assert below.shape == (64, 3, 18, 18)
    assert noise.std().item() == pytest.approx(0.2, rel=0.02)
    assert torch.equal(below, again)
    assert not nothing.any()
    assert first.shape == (64, 1, 12, 12)  # the same in all channels


def test_a_scale_goes_on_from_the_one_below_where_it_is_as_wide() -> None:
    torch.manual_seed(0)
    net = PatchPyramid([(12, 12)] * 5, width=4, classes=5)
    assert [scale.generator[0].weight.shape[0] for scale in map(net.__getitem__, range(5))] == [4] * 4 + [8]
    before = net[4].generator[0].weight.clone()
    net[1].continue_from(net[0])
    net[4].continue_from(net[3])
    assert torch.equal(net[1].discriminator[-1].weight, net[0].discriminator[-1].weight)
    assert not torch.equal(net[1].fixed, net[0].fixed)
    assert torch.equal(net[4].generator[0].weight, before)
    assert PatchPyramid([(12, 12)] * 13, width=64, classes=2)[12].generator[0].weight.shape[0] == 128
