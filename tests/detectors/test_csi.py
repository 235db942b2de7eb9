"""CSI: its loss and its score against slow definitions, duplicates, what it finds, resuming, and nonsense."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import kizu
from kizu.detectors._csi_parts import CSIObjective
from kizu.detectors.csi import CSI, FLOOR
from kizu.errors import ModelFileError, ShapeError, UnknownName, UsageError
from kizu.images import open_image
from kizu.losses import nt_xent
from kizu.metrics import image_metrics
from kizu.samples import Samples
from kizu.training import FitOptions, Position
from kizu.views import strong

SMALL: dict[str, Any] = {
    "image_size": 32, "batch_size": 3, "iterations": 6, "dimensions": 8, "copies": 2, "sigma": 1.0,
    "precision": "fp32", "training_precision": "fp32",
}  # fmt: skip
NET = "small/lenet"


def images(count: int, seed: int = 0, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def detector(**given: Any) -> CSI:
    made: CSI = kizu.detector("csi", NET, **{**SMALL, **given})
    return made


def objective(**given: Any) -> CSIObjective:
    made = detector(**given)
    return made.objective(made.network())


def position(step: int = 3) -> Position:
    return Position(step, 3 * step, 3)


def test_views_in_every_turn_are_functions_of_the_position() -> None:
    made, batch = objective(), {"images": images(3)}
    views, groups = made.prepare(batch, position())
    assert views.shape == (24, 3, 32, 32)
    assert len(set(groups.tolist())) == 12, "every image in every turn is another one"
    again, other = (made.prepare(batch, position(step))[0] for step in (3, 4))
    assert torch.equal(views, again)
    assert not torch.equal(views, other)


def test_a_turn_comes_before_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    from kizu.detectors import _csi_parts

    monkeypatch.setattr(_csi_parts, "strong", lambda images, **_: images)
    views, _ = objective().prepare({"images": images(3)}, position())
    for number, view in enumerate(views):
        assert torch.equal(view, torch.rot90(images(3)[number % 3], number // 3 % 4, (1, 2)))


@torch.no_grad()
def test_the_loss_in_float64_against_the_formula() -> None:
    """Eq. 5 to 7: every view finds its partner among all others, and its turn."""
    made = objective().double().eval()
    views, groups = made.prepare({"images": images(3).double()}, position())
    head = made.network.head
    pooled = torch.stack([made.network.encoder(view[None])[0][0].mean((1, 2)) for view in views])
    z = (pooled @ head.projection[0].weight.T + head.projection[0].bias).clamp(min=0)
    z = z @ head.projection[2].weight.T + head.projection[2].bias
    z = z / z.norm(dim=1, keepdim=True)
    contrast = shift = 0.0
    for i in range(24):
        partner = (i + 12) % 24
        others = sum(math.exp(float(z[i] @ z[j]) / 0.5) for j in range(24) if j != i)
        contrast -= (float(z[i] @ z[partner]) / 0.5 - math.log(others)) / 24
        logits = head.turn.weight @ pooled[i] + head.turn.bias
        shift -= float(logits.log_softmax(0)[i % 12 // 3]) / 24
    found = made.loss((views, groups))
    assert float(found["loss"]) == pytest.approx(contrast + shift, rel=1e-9)
    assert float(found["contrast"]) == pytest.approx(contrast, rel=1e-9)


@torch.no_grad()
def test_copies_of_one_image_are_no_negatives_of_each_other() -> None:
    twice = images(3)[[0, 1, 0]]
    mask, code = (objective(duplicates=name).double().eval() for name in ("mask", "negatives"))
    views, groups = mask.prepare({"images": twice.double()}, position())
    for turn in range(4):
        a, b, c = groups[3 * turn : 3 * turn + 3].tolist()
        assert a == c != b
    pooled = mask.network.encoder(views)[0].mean((2, 3))
    first, second = mask.network.head(pooled)[0].chunk(2)
    z = functional.normalize(torch.cat([first, second]), dim=1)
    label, total = torch.cat([groups, groups]), 0.0
    for i in range(24):
        partner = (i + 12) % 24
        kept = [j for j in range(24) if j == partner or (j != i and label[j] != label[i])]
        total -= float((z[i] @ z[partner]) / 0.5 - torch.logsumexp(z[kept] @ z[i] / 0.5, 0)) / 24
    assert float(mask.loss((views, groups))["contrast"]) == pytest.approx(total, rel=1e-9)
    plain = float(nt_xent(first, second, temperature=0.5).detach())
    assert float(code.loss((views, groups))["contrast"]) == pytest.approx(plain, rel=1e-9)
    assert plain > total


@torch.no_grad()
def test_without_duplicates_the_mask_changes_nothing() -> None:
    losses = []
    for name in ("mask", "negatives"):
        made = objective(duplicates=name).double().eval()
        losses.append(float(made.loss(made.prepare({"images": images(3).double()}, position()))["loss"]))
    assert losses[0] == losses[1]


def looks(fitted: CSI, image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean projections (4, d) and logits (4, 4) of one image, copy by copy, in float64."""
    net = fitted.network_
    projected, logits = torch.zeros(4, 8).double(), torch.zeros(4, 4).double()
    for number in range(max(fitted.copies, 1)):
        draws = torch.Generator().manual_seed((fitted.seed * 2_654_435_761 + number) % 2**32)
        for turn in range(4):
            view = torch.rot90(image[None], turn, (2, 3))
            view = strong(view, generator=draws, recipe="csi_fixed") if fitted.copies else view
            with torch.no_grad():
                z, s = net.head(net.encoder(view)[0].mean((2, 3)))
            projected[turn] += z[0].double() / max(fitted.copies, 1)
            logits[turn] += s[0].double() / max(fitted.copies, 1)
    return projected, logits


@pytest.mark.parametrize("copies", [0, 2])
def test_the_score_by_hand(copies: int) -> None:
    good, batch = images(5), images(3, 9)
    fitted = detector(copies=copies, seed=4).fit(good)
    seen = [looks(fitted, image) for image in good]
    for image, score in zip(batch, fitted.predict(batch).score, strict=True):
        z, s = looks(fitted, image)
        normal = 0.0
        for turn in range(4):
            lengths = [float(one[turn].norm()) for one, _ in seen]
            near = max(float(z[turn] @ one[turn] / one[turn].norm()) for one, _ in seen)
            right = sum(float(logits[turn, turn]) for _, logits in seen) / 5
            normal += near / (sum(lengths) / 5) + float(s[turn, turn]) / max(right, FLOOR)
        assert float(score) == pytest.approx(-normal / 4, rel=1e-4)


def test_the_bank_has_unit_length_and_one_row_an_image() -> None:
    fitted = detector().fit(images(5))
    assert fitted.bank_.shape == (4, 5, 8)
    assert torch.allclose(fitted.bank_.norm(dim=2), torch.ones(4, 5), atol=1e-5)


def upright(count: int, seed: int) -> Tensor:
    """Bright above, dark below, with noise: images that know where up is."""
    ramp = torch.linspace(0.8, 0.2, 32)[None, None, :, None]
    return (ramp + 0.15 * (images(count, seed) - 0.5)).clamp(0, 1)


def test_turned_images_are_found_and_so_is_their_place() -> None:
    fitted = detector(iterations=60, batch_size=8, copies=1).fit(upright(24, 0))
    assert fitted.log_[-1]["correct"] > 0.5, "views of a corner tell no turn"
    good, turned = fitted.predict(upright(12, 1)), fitted.predict(upright(12, 2).rot90(2, (2, 3)))
    assert turned.score.min() > good.score.max()
    foreign = upright(8, 4)
    foreign[:, :, 18:30, 18:30] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    changed = (fitted.predict(foreign).map - fitted.predict(upright(8, 4)).map).abs().mean(0)
    assert changed[18:30, 18:30].mean() > 2 * changed[:8, :8].mean()


@pytest.mark.slow
def test_it_finds_planted_flaws_with_trained_weights(tiny_planted: Samples) -> None:
    """Half the image painted over scores above every good test image, and where it is painted."""
    chosen = {"image_size": 64, "batch_size": 8, "iterations": 30, "copies": 1, "dimensions": 128}
    fitted = kizu.detector("csi", "kizu/starter@3", **{**SMALL, **chosen}).fit(tiny_planted.train)
    test = fitted.predict(tiny_planted.test)
    assert image_metrics(test.score, tiny_planted.test.labels)["auroc"] > 0.55
    good = fitted.predict(tiny_planted.test.normal)
    painted = torch.stack([torch.from_numpy(open_image(path)) for path in tiny_planted.test.normal.paths])
    painted = painted.permute(0, 3, 1, 2).float() / 255
    painted[:, :, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    foreign = fitted.predict(painted)
    assert foreign.score.min() > good.score.max()
    assert foreign.map[:, 16:48, 16:48].mean() > foreign.map[:, :8].mean()


def test_an_image_is_scored_as_alone_and_as_after_opening(tmp_path: Path) -> None:
    fitted, batch = detector().fit(images(5)), images(4, 7)
    together = fitted.predict(batch)
    loaded = kizu.load(fitted.save(tmp_path / "model.kizu")).predict(batch)
    assert torch.equal(loaded.score, together.score)
    assert torch.equal(loaded.map, together.map)
    for number in range(4):
        alone = fitted.predict(batch[number : number + 1])
        assert torch.allclose(alone.score[0], together.score[number], rtol=1e-4, atol=1e-5)
        assert torch.allclose(alone.map[0], together.map[number], rtol=1e-3, atol=1e-4)


def test_an_empty_bank_is_refused(tmp_path: Path) -> None:
    from kizu import store

    path = detector().fit(images(3)).save(tmp_path / "m")
    tensors, card = store.load(path)
    tensors["detector.bank"] = tensors["detector.bank"][:, :0].contiguous()
    store.save(tmp_path / "wrong", tensors, card)
    with pytest.raises(ModelFileError):
        kizu.load(tmp_path / "wrong")


def test_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, _: object) -> dict[str, float]:
        if step == 4:
            raise Stop
        return {}

    whole = detector().fit(images(5))
    options = FitOptions(folder=tmp_path, checkpoint_every=3, evaluate=stop, evaluate_every=4)
    with pytest.raises(Stop):
        detector().fit(images(5), options=options)
    resumed = detector().fit(images(5), options=FitOptions(folder=tmp_path, resume=True))
    for (name, value), (other, expected) in zip(
        resumed._state().items(), whole._state().items(), strict=True
    ):
        assert name == other
        assert torch.equal(value, expected), name


def test_images_that_cannot_be_turned() -> None:
    with pytest.raises(ShapeError, match="square"):
        detector().fit(torch.rand(3, 3, 32, 40))
    with pytest.raises(ShapeError, match="square"):
        detector().fit(images(3)).predict(torch.rand(1, 3, 32, 40))


@pytest.mark.parametrize(
    "wrong",
    [
        {"dimensions": 0}, {"temperature": 0.0}, {"duplicates": "no"}, {"copies": -1},
        {"learning_rate": 0.0}, {"weight_decay": 0.0}, {"sigma": -1.0}, {"iterations": 0},
        {"training_precision": "fp8"}, {"seed": -1},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((UsageError, UnknownName), match=next(iter(wrong))):
        detector(**wrong)


def test_half_precision_scores_nearly_the_same_and_after_opening_the_very_same(tmp_path: Path) -> None:
    given: dict[str, Any] = {**{}, "training_precision": "bf16"}
    half = detector(**given, precision="bf16").fit(images(6))
    loaded = kizu.load(half.save(tmp_path / "model.kizu"))
    found = half.predict(images(3, 5))
    assert torch.equal(loaded.predict(images(3, 5)).map, found.map)
    full = kizu.load(tmp_path / "model.kizu", precision="fp32").predict(images(3, 5))
    assert torch.allclose(full.score, found.score, rtol=0.05, atol=0.05)
