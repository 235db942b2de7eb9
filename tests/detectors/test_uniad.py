"""UniAD: jitter, loss, map and score by their formulas, cells that keep their place, clipping, one model for
several products, resuming, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import kizu
from kizu.detectors.uniad import Rebuilding, UniAD, UniADObjective, UniADScorer
from kizu.errors import ModelFileError, UsageError
from kizu.nn.neighbour_attention import NeighbourTransformer
from kizu.protocols.unified import unified
from kizu.samples import Samples
from kizu.training import FitOptions, Position

SMALL: dict[str, Any] = {
    "image_size": 64, "batch_size": 4, "stride": 16, "neighbourhood": 3, "hidden": 16, "feedforward": 32,
    "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "learning_rate": 2e-3, "iterations": 8,
    "precision": "fp32", "training_precision": "fp32", "alignment": "grid",
}  # fmt: skip
PLACED = {"alignment": "centres"}
BASE = "random/resnet10t@2,3"


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def network(grid: tuple[int, int] = (4, 5), C: int = 10) -> Rebuilding:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        transformer = NeighbourTransformer(
            grid, 8, neighbourhood=3, heads=2, feedforward=12, layers=(1, 1), dropout=0.0
        )
        return Rebuilding(C, 8, grid, transformer).eval()


def objective(made: Rebuilding, jitter: float = 20.0, probability: float = 1.0) -> UniADObjective:
    return UniADObjective(
        made, jitter=jitter, jitter_probability=probability, learning_rate=1e-3, weight_decay=1e-4, seed=7
    )


def levels(B: int = 2, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, 6, 8, 10, generator=generator), torch.randn(B, 4, 4, 5, generator=generator)]


def test_jitter_is_as_long_as_it_should_be() -> None:
    """Its standard deviation at a cell is jitter |f| / C, whatever the others are."""
    scale = torch.tensor([0.0, 1.0, 30.0])[:, None].expand(3, 4)
    feature = (scale * torch.ones(400, 3, 4))[None]
    noisy, clean = objective(network((3, 4), 400)).prepare({"features": [feature]}, Position(0, 0, 1))
    assert torch.equal(clean, feature)
    spread = (noisy - clean)[0].std(0)
    assert torch.allclose(spread, 20.0 * feature[0].norm(dim=0) / 400, rtol=0.2)
    assert (spread[0] == 0).all()


def test_jitter_is_drawn_by_image_and_position() -> None:
    made, batch = objective(network()), {"features": levels()}
    first, again, later = (made.prepare(batch, Position(step, 2 * step, 2))[0] for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    twice = {"features": [level[:1].expand(2, -1, -1, -1) for level in levels()]}
    one, other = made.prepare(twice, Position(0, 0, 2))[0]
    assert not torch.equal(one, other)
    alone = made.prepare({"features": [level[1:] for level in levels()]}, Position(0, 1, 1))[0]
    assert torch.equal(alone[0], first[1]), "a draw is the image's own, whatever the batch"


@pytest.mark.parametrize(("probability", "least", "most"), [(1.0, 64, 64), (0.25, 6, 28), (1e-9, 0, 0)])
def test_as_many_images_are_jittered_as_was_said(probability: float, least: int, most: int) -> None:
    noisy, clean = objective(network(), probability=probability).prepare(
        {"features": levels(64)}, Position(0, 0, 64)
    )
    changed = sum(not torch.equal(*pair) for pair in zip(noisy, clean, strict=True))
    assert least <= changed <= most


def test_without_jitter_nothing_is_added() -> None:
    noisy, clean = objective(network(), jitter=0.0).prepare({"features": levels()}, Position(0, 0, 2))
    assert torch.equal(noisy, clean)


def test_the_loss_in_float64() -> None:
    made = objective(network().double())
    noisy, clean = made.prepare({"features": [level.double() for level in levels()]}, Position(0, 0, 2))
    rebuilt = made.network(noisy).detach()
    pairs = zip(rebuilt.flatten().tolist(), clean.flatten().tolist(), strict=True)
    total = sum((a - b) ** 2 for a, b in pairs)
    assert made.loss((noisy, clean))["loss"].item() == pytest.approx(total / clean.numel(), rel=1e-6)


def test_cells_keep_their_place() -> None:
    """A level that holds the pixels that its cells look around still does so on the grid."""
    detector = kizu.detector(
        "uniad", "random/resnet10t@1,2,3", **{**SMALL, **PLACED, "image_size": (96, 128)}
    )
    detector.representation.card["offsets"] = [1.5, 3.5, 7.5]
    centres = ((4.0, 1.5), (8.0, 3.5), (16.0, 7.5))
    sides = {4: (24, 32), 8: (12, 16), 16: (6, 8)}
    features = []
    for stride, offset in centres:
        h, w = sides[int(stride)]
        rows = (offset + stride * torch.arange(h))[:, None].expand(h, w)
        columns = (offset + stride * torch.arange(w)).expand(h, w)
        features.append(torch.stack([rows, columns])[None])
    grid = network((6, 8), 6).gather(features)[0]
    assert detector.grid == (6, 8)
    stride, offset = detector._centre()
    expected = offset + stride * torch.arange(8)
    for level in range(3):
        assert torch.allclose(grid[2 * level], expected[:6, None].expand(6, 8), atol=1e-4)
        assert torch.allclose(grid[2 * level + 1], expected.expand(6, 8), atol=1e-4)


def test_offsets_that_differ_are_averaged() -> None:
    detector = kizu.detector("uniad", BASE, **{**SMALL, **PLACED})
    detector.representation.card["offsets"] = [3.0, 9.0]
    assert detector._centre() == (16.0, (3.0 + 4.0 + 9.0) / 2)
    assert kizu.detector("uniad", BASE, **SMALL)._centre() is None


@torch.no_grad()
def test_map_and_score_by_their_formulas() -> None:
    made, features, size = network(), levels(), (37, 41)
    grid = torch.cat(
        [functional.interpolate(features[0], (4, 5), mode="bilinear", align_corners=False), features[1]], 1
    )
    cells = ((made(grid) - grid) ** 2).sum(1).sqrt()
    wide = functional.interpolate(cells[:, None], size, mode="bilinear", align_corners=True)[:, 0]
    map_, score = UniADScorer(made, pool=16, sigma=0.0, stride=16)(features, size)
    assert torch.allclose(map_, wide, atol=1e-5)
    means = [
        max(float(image[y : y + 16, x : x + 16].mean()) for y in range(22) for x in range(26))
        for image in wide
    ]
    assert torch.allclose(score, torch.tensor(means), atol=1e-5)
    single, largest = UniADScorer(made, pool=1, sigma=0.0, stride=16)(features, size)
    assert torch.allclose(largest, single.flatten(1).amax(1))
    _, whole = UniADScorer(made, pool=100, sigma=0.0, stride=16)(features, (37, 37))
    assert whole.shape == (2,), "a window no larger than the image"
    smooth, _ = UniADScorer(made, pool=16, sigma=2.0, stride=16)(features, size)
    assert not torch.allclose(smooth, map_, atol=1e-3)


@torch.no_grad()
def test_centres_hold_for_images_of_the_grid() -> None:
    made = network((4, 5))
    scorer = UniADScorer(made, pool=1, sigma=0.0, stride=16, centre=(16.0, 7.0))
    grid = made.gather(levels())
    cells = (made(grid) - grid).norm(dim=1)
    map_, _ = scorer(levels(), (64, 80))
    assert torch.allclose(map_[:, 7::16, 7::16], cells, atol=1e-5)
    other, _ = scorer(levels(), (128, 160))
    corners, _ = UniADScorer(made, pool=1, sigma=0.0, stride=16)(levels(), (128, 160))
    assert torch.equal(other, corners)


def test_gradients_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    def noted(self: UniADObjective, step: int, steps: int) -> None:
        norms.append(
            float(torch.stack([p.grad.norm() for p in self.parameters() if p.grad is not None]).norm())
        )

    monkeypatch.setattr(UniADObjective, "after_step", noted)
    for clip in (0.1, 1e6):
        kizu.detector("uniad", BASE, **{**SMALL, "iterations": 3, "clip": clip}).fit(images(4))
    assert norms[:3] == pytest.approx([0.1] * 3, rel=1e-3)
    assert min(norms[3:]) > 0.11


def test_the_learning_rate_falls_once() -> None:
    made = objective(network())
    assert [made.lr_scale(step, 10) for step in (0, 7, 8, 9)] == pytest.approx([1.0, 1.0, 0.1, 0.1])


def test_training_moves_all_that_is_learned() -> None:
    detector = kizu.detector("uniad", BASE, **{**SMALL, "iterations": 20}).fit(images(5))
    start = detector.network().state_dict()
    assert not [n for n, v in detector.network_.state_dict().items() if torch.equal(v, start[n])]
    assert detector.log_[-1]["loss"] < detector.log_[0]["loss"]


def test_one_model_for_several_products(tiny_planted: Samples) -> None:
    """Protocol unified: fitted once on both, a score for each."""
    names = pl.Series("category", ["left", "right"] * (len(tiny_planted) // 2))
    split = unified(Samples(tiny_planted.table.with_columns(names)))
    detector = kizu.detector("uniad", BASE, **{**SMALL, "iterations": 2}).fit(split.train)
    assert detector.images_seen_ == 24
    for name in ("left", "right"):
        assert torch.isfinite(detector.predict(split.test.where(category=name)).score).all()


def test_bf16_trains_nearly_the_same() -> None:
    half = kizu.detector("uniad", BASE, **{**SMALL, "training_precision": "bf16"}).fit(images(5))
    full = kizu.detector("uniad", BASE, **SMALL).fit(images(5))
    one, other = half.predict(images(3, 5)).score, full.predict(images(3, 5)).score
    assert not torch.equal(one, other)
    assert torch.allclose(one, other, rtol=0.05)


def test_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    """With dropout and jitter, which are functions of the position."""

    class Stop(Exception):
        pass

    def stop(step: int, fitted: UniAD) -> dict[str, float]:
        if step == 5:
            raise Stop
        return {"mean": float(fitted.predict(images(1)).score.mean())}

    whole = kizu.detector("uniad", BASE, **SMALL).fit(images(5))
    options = FitOptions(folder=tmp_path, checkpoint_every=3, evaluate=stop, evaluate_every=1)
    with pytest.raises(Stop):
        kizu.detector("uniad", BASE, **SMALL).fit(images(5), options=options)
    resumed = kizu.detector("uniad", BASE, **SMALL)
    resumed.fit(images(5), options=FitOptions(folder=tmp_path, resume=True))
    for (name, value), expected in zip(resumed._state().items(), whole._state().values(), strict=True):
        assert torch.equal(value, expected), name


def test_on_tokens_of_a_transformer(tmp_path: Path) -> None:
    """As ADPretrain uses it: residual features of a grid that needs no resizing."""
    detector = kizu.detector(
        "uniad", "random/vit_tiny_patch16_224@4,8", adaptation=kizu.Adaptation("residual", {"shots": 2}),
        **{**SMALL, "iterations": 2, "pool": 1},
    ).fit(images(5))  # fmt: skip
    loaded = kizu.load(detector.save(tmp_path / "model.kizu"))
    assert torch.equal(loaded.predict(images(2, 3)).map, detector.predict(images(2, 3)).map)


def test_a_file_with_another_grid_is_refused(tmp_path: Path) -> None:
    from kizu import store

    detector = kizu.detector("uniad", BASE, **{**SMALL, "iterations": 2}).fit(images(3))
    tensors, card = store.load(detector.save(tmp_path / "model.kizu"))
    for changed in ({"stride": 8}, {"stride": 1}, {"heads": 3}, {"encoder_layers": 1000}):
        parameters = {**card["parameters"], **changed}
        store.save(tmp_path / "wrong.kizu", tensors, {**card, "parameters": parameters}, overwrite=True)
        with pytest.raises(ModelFileError):
            kizu.load(tmp_path / "wrong.kizu")


@pytest.mark.slow
def test_it_finds_painted_flaws_with_trained_weights(tiny_planted: Samples) -> None:
    from kizu.images import open_image

    more = {"stride": 8, "hidden": 64, "feedforward": 128, "learning_rate": 3e-3, "iterations": 60}
    detector = kizu.detector("uniad", "kizu/starter@2,3", **{**SMALL, **more}).fit(tiny_planted.train)
    good = detector.predict(tiny_planted.test.normal)
    painted = torch.stack([torch.from_numpy(open_image(path)) for path in tiny_planted.test.normal.paths])
    painted = painted.permute(0, 3, 1, 2).float() / 255
    painted[:, :, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    foreign = detector.predict(painted)
    assert foreign.score.min() > good.score.max()
    assert foreign.map[:, 16:48, 16:48].mean() > foreign.map[:, :8].mean()


@pytest.mark.parametrize(
    "wrong",
    [
        {"stride": 0}, {"neighbourhood": 2}, {"neighbourhood": -1}, {"hidden": 0}, {"hidden": 15},
        {"feedforward": 0}, {"heads": 3}, {"encoder_layers": 0}, {"decoder_layers": 0}, {"dropout": 1.0},
        {"jitter": -1.0}, {"jitter_probability": 0.0}, {"jitter_probability": 1.5}, {"learning_rate": 0.0},
        {"weight_decay": -1.0}, {"clip": 0.0}, {"iterations": 0}, {"pool": 0}, {"sigma": -1.0},
        {"training_precision": "fp8"}, {"hidden": True},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        kizu.detector("uniad", BASE, **{**SMALL, **wrong})


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(UsageError, match="jitter_probability has no effect with jitter=0"):
        kizu.detector("uniad", BASE, **{**SMALL, "jitter": 0.0, "jitter_probability": 0.5})
    with pytest.raises(UsageError, match="larger images"):
        kizu.detector("uniad", BASE, **{**SMALL, "neighbourhood": 7})
    with pytest.raises(UsageError, match="larger stride"):
        kizu.detector("uniad", BASE, **{**SMALL, "image_size": 1024, "stride": 8})
