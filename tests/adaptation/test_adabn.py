"""AdaBN: the statistics against their definition, weights untouched, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import kizu
from kizu.adaptation.base import Adaptation
from kizu.errors import NotFinite, UnknownName, UsageError
from kizu.representations.base import Representation
from kizu.representations.sources import open_representation, save_representation
from kizu.training import Position, SampleStore
from kizu.types import Batch
from kizu.views.affine import affine


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def store(count: int = 4) -> SampleStore:
    good = SampleStore()
    good.add(Batch(images(count)))
    return good


def network() -> Representation:
    return open_representation("random/resnet10t@2,3").eval()


def norms(net: Representation) -> list[nn.BatchNorm2d]:
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_first_norm_has_the_statistics_of_what_it_sees() -> None:
    """One batch of 8 copies: mean and unbiased variance of the first convolution's output."""
    base = network()
    adapted = Adaptation("adabn", {"strength": 1.0, "copies": 2}, seed=3).adapt(base, store())
    seed = int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(3)))
    shown = torch.cat([images(4), images(4)])
    draws = Position(0, 0, 8).generators(seed)
    copies = affine(shown, generator=draws, blur_chance=0.5, grey_chance=0.2)
    seen: list[Tensor] = []
    hook = norms(base)[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        base(copies)
    hook.remove()
    first = norms(adapted)[0]
    assert torch.allclose(first.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert torch.allclose(first.running_var, seen[0].var((0, 2, 3)), rtol=1e-4, atol=1e-6)


def test_strength_goes_from_the_old_statistics_to_the_new() -> None:
    base, good = network(), store()
    made = [Adaptation("adabn", {"strength": s, "copies": 2}).adapt(base, good) for s in (0.0, 0.25, 1.0)]
    for old, none, some, all_ in zip(norms(base), *(norms(net) for net in made), strict=True):
        assert torch.equal(none.running_mean, old.running_mean)
        mixed = 0.75 * old.running_mean + 0.25 * all_.running_mean
        assert torch.allclose(some.running_mean, mixed, rtol=1e-4, atol=1e-6)


def test_weights_and_the_base_stay_and_a_file_keeps_it(tmp_path: Path) -> None:
    base = network()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    adapted = Adaptation("adabn").adapt(base, store())
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    pairs = zip(base.parameters(), adapted.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not any(norm.training for norm in norms(adapted))
    again = kizu.representation(save_representation(adapted, tmp_path / "net.kizu"))
    for precision in ("fp32", "bf16"):
        expected, got = (one.inference_copy(precision, "cpu")(images(2, 7)) for one in (adapted, again))
        assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_a_channel_without_variance_keeps_the_pretrained_one() -> None:
    base, flat = network(), SampleStore()
    flat.add(Batch(torch.full((2, 3, 64, 64), 0.5)))
    adapted = Adaptation("adabn", {"strength": 1.0, "augmentation": "affine"}).adapt(base, flat)
    assert all(bool((norm.running_var > 0).all()) for norm in norms(adapted))
    assert all(bool(level.isfinite().all()) for level in adapted(images(1)))


def test_it_is_one_pass_and_takes_one_image() -> None:
    assert not Adaptation("adabn").trains
    fitted = kizu.detector("gaussian", network(), adaptation="adabn", image_size=64).fit(images(1))
    assert torch.isfinite(fitted.predict(images(2, 3)).score).all()


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="strength"):
        Adaptation("adabn", {"strength": 1.5})
    with pytest.raises(UsageError, match="copies"):
        Adaptation("adabn", {"copies": 0})
    with pytest.raises(UnknownName, match="augmentation"):
        Adaptation("adabn", {"augmentation": "none"})
    with pytest.raises(UsageError, match="no batch norms"):
        Adaptation("adabn").adapt(open_representation("small/ssim_ae"), store())
    broken = network()
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(NotFinite, match="random/resnet10t"):
        Adaptation("adabn").adapt(broken, store())
