"""The small networks and the image itself as representations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import kizu
from kizu.errors import ModelFileError, UnknownName, UsageError
from kizu.nn.small_networks import NAMES
from kizu.representations.pixels import Pixels
from kizu.representations.small import Small
from kizu.representations.sources import from_card, open_representation, save_representation
from kizu.representations.stacked import Stacked


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_has_its_shape(name: str) -> None:
    stages = len(Small(name).net.channels)
    net = Small(name, levels=tuple(range(1, stages + 1))).eval()
    for level, width, stride in zip(net(images()), net.channels, net.strides, strict=True):
        assert level.shape == (2, width, 32 // stride, 32 // stride)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        # lenet: 25 (3 32 + 32 64 + 64 128); no bias, no affine norms
        ("lenet", 25 * (3 * 32 + 32 * 64 + 64 * 128)),
        # resnet18 without its classifier: torchvision's 11,176,512 with a 7 x 7 stem, less 40 of its 49 taps
        ("resnet18", 11_176_512 - 40 * 3 * 64),
    ],
)
def test_parameters_are_counted_by_hand(name: str, weights: int) -> None:
    assert sum(parameter.numel() for parameter in Small(name).net.parameters()) == weights


def test_lenet_has_nothing_with_which_to_collapse() -> None:
    """Zero weights give zero, so the centre cannot be reached by a bias: Deep SVDD's propositions."""
    net = Small("lenet")
    assert not [name for name, _ in net.net.named_parameters() if name.endswith("bias")]


@pytest.mark.parametrize("name", ["small/lenet@2,3", "small/wrn_10_4", "pixels"])
def test_saved_and_opened(name: str, tmp_path: Path) -> None:
    net = open_representation(name)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.01)
    again = kizu.representation(save_representation(net, tmp_path / "net.kizu"))
    assert again.card["name"] == net.card["name"]
    for precision in ("fp32", "bf16"):
        expected, got = (one.inference_copy(precision, "cpu")(images()) for one in (net, again))
        assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_the_seed_draws_the_weights_and_leaves_torchs_generator() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, same, other = Small("lenet", seed=0), Small("lenet", seed=0), Small("lenet", seed=1)
    assert torch.equal(before, torch.get_rng_state())
    first, second, third = (net.state_dict()["net.stages.0.0.weight"] for net in (one, same, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_pixels_are_the_image_in_any_precision() -> None:
    """Beside an encoder, as auto-encoders have it."""
    both = Stacked([open_representation("small/lenet"), Pixels()])
    for precision in ("fp32", "bf16"):
        levels = both.inference_copy(precision, "cpu")(images())
        assert torch.equal(levels[-1], images())
    assert both.offsets[-1] == 0.0


def test_bad_names_levels_and_files() -> None:
    with pytest.raises(UnknownName, match="lenet"):
        open_representation("small/lenett")
    with pytest.raises(UsageError, match="stages 1 to 3"):
        open_representation("small/lenet@4")
    net = open_representation("small/lenet")
    tensors = {name: value for name, value in net.state().items() if "stages.1" not in name}
    with pytest.raises(ModelFileError, match="do not fit"):
        from_card(net.sealed_card(), tensors)
    with pytest.raises(ModelFileError, match="levels"):
        from_card({**net.sealed_card(), "levels": [99]}, net.state())
