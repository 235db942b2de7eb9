"""Where cells look: measured offsets against known centres, and maps that lie where the flaw is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import kizu
from kizu.errors import ModelFileError, UsageError
from kizu.maps import interpolation, upsample
from kizu.representations.base import Representation
from kizu.representations.centres import measured_offsets
from kizu.representations.imagenet import PACKAGES
from kizu.representations.stacked import Stacked


class Known(nn.Module):
    """One convolution of a kernel of equal weights: its centre is that of the window."""

    def __init__(self, kernel: int, stride: int, before: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.before = kernel, stride, before

    def forward(self, images: Tensor) -> list[Tensor]:
        padded = functional.pad(images, (self.before, self.kernel, self.before, self.kernel))
        weight = torch.ones(2, 3, self.kernel, self.kernel)
        cells = functional.conv2d(padded, weight, stride=self.stride)
        side = images.shape[2] // self.stride
        return [cells[:, :, :side, :side]]


@pytest.mark.parametrize(
    ("kernel", "stride", "before"), [(1, 1, 0), (3, 2, 1), (4, 4, 0), (7, 4, 3), (5, 8, 0)]
)
def test_the_centre_of_a_window(kernel: int, stride: int, before: int) -> None:
    (found,) = measured_offsets(Known(kernel, stride, before), probes=2, side=64)
    assert found == pytest.approx((kernel - 1) / 2 - before, abs=0.051)


@pytest.mark.slow
@pytest.mark.parametrize("network", PACKAGES)
def test_the_tables_are_what_is_measured(network: str) -> None:
    pytest.importorskip(PACKAGES[network].module)
    net = kizu.representation(f"imagenet/{network}@1,2,3")
    assert measured_offsets(net) == pytest.approx(net.offsets, abs=1.0)


def test_the_starters_card_is_what_is_measured() -> None:
    net = kizu.representation("kizu/starter@2,3")
    assert "offsets" in net.card
    assert measured_offsets(net, probes=8) == pytest.approx(net.offsets, abs=1.0)


def test_they_are_measured_once_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kizu.representations import base

    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = kizu.detector("patchcore", "random/resnet10t@1,2", image_size=64, precision="fp32").fit(images)
    assert len(model.representation.card["offsets"]) == 2

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(base, "measured_offsets", refuse)
    again = kizu.load(model.save(tmp_path / "m.kizu"))
    assert torch.equal(again.predict(images).map, model.predict(images).map)
    grid = kizu.detector("patchcore", "random/resnet10t@1,2", image_size=64, alignment="grid").fit(images)
    assert kizu.load(grid.save(tmp_path / "g.kizu")).alignment == "grid"


def test_kinds_around_others() -> None:
    net = kizu.representation("imagenet/efficientnet_lite0@1,2")
    assert net.offsets == PACKAGES["efficientnet_lite0"].offsets[:2]
    assert Stacked([net, net]).offsets == net.offsets * 2
    images = torch.rand(2, 3, 64, 64)
    assert kizu.adapt("residual", net, images, image_size=64).offsets == net.offsets
    patches = kizu.representation("random/vit_tiny_patch16_224@3")
    assert patches.offsets == (7.5,)


def test_a_card_with_other_counts_is_refused(tmp_path: Path) -> None:
    card = {**kizu.representation("random/resnet10t@1,2").sealed_card(), "offsets": [1.0]}
    with pytest.raises(ModelFileError, match="not one offset each"):
        kizu.representations.Backbone.from_card(
            card, kizu.representation("random/resnet10t@1,2").state_dict()
        )
    with pytest.raises(UsageError, match="alignment is"):
        kizu.detector("padim", "random/resnet10t@1", alignment="corners")


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_the_grid_is_the_middle_of_each_square(stride: int) -> None:
    """torch's bilinear interpolation is the centre at (stride - 1) / 2."""
    patches = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0))
    size = (6 * stride, 5 * stride)
    middle = (float(stride), (stride - 1) / 2)
    for sigma in (0.0, 2.0):
        found = upsample(patches, size, sigma=sigma, centre=middle)
        torch.testing.assert_close(found, upsample(patches, size, sigma=sigma))


def test_a_peak_comes_to_lie_at_its_centre() -> None:
    patches = torch.zeros(1, 8, 8)
    patches[0, 3, 5] = 1.0
    found = upsample(patches, (64, 64), sigma=0.0, centre=(8.0, 2.0))
    assert divmod(int(found.argmax()), 64) == (3 * 8 + 2, 5 * 8 + 2)
    weights = interpolation(8, torch.tensor([2.25]))
    assert weights[0, 2:4].tolist() == [0.75, 0.25]


class Blurred(Representation):
    """Means of squares of 8 pixels that begin `shift` pixels further left and up than their cell's own."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.channels, self.strides, self.shift = (3,), (8,), shift
        self.card = {"name": f"blurred {shift}", "kind": "blurred", "source": "random"}

    def forward(self, images: Tensor) -> list[Tensor]:
        padded = functional.pad(images, (self.shift, 0, self.shift, 0), mode="replicate")
        side = images.shape[2] // 8
        return [functional.avg_pool2d(padded, 8, stride=8)[:, :, :side, :side]]


@pytest.mark.parametrize("shift", [0, 3, 6])
@pytest.mark.parametrize("name", ["patchcore", "padim"])
def test_the_map_of_a_flaw_lies_on_it(name: str, shift: int) -> None:
    """The centre of the map of a square flaw is its centre, wherever the network's cells look."""
    generator = torch.Generator().manual_seed(0)
    good = 0.5 + 0.02 * torch.rand(8, 3, 128, 128, generator=generator)
    flawed = good[:1].clone()
    flawed[:, :, 56:72, 48:64] = 1.0  # centre (63.5, 55.5)
    more = {"dimensions": None} if name == "padim" else {}
    net = Blurred(shift)
    assert net.offsets[0] == pytest.approx(3.5 - shift, abs=0.3)
    model = kizu.detector(name, net, image_size=128, precision="fp32", **more).fit(good)
    heat = model.predict(flawed).map[0]
    heat = (heat - heat.median()).clamp_min(0.1 * float(heat.max() - heat.median())) ** 2
    heat = heat - heat.min()
    pixels = torch.arange(128.0)
    row, column = (float((heat.sum(axis) @ pixels) / heat.sum()) for axis in (1, 0))
    assert (row, column) == pytest.approx((63.5, 55.5), abs=1.0)
