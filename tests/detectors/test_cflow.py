"""CFLOW: its loss and its map by formulas in float64, cells drawn by position, resuming, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import kizu
from kizu.detectors.cflow import CFlow, CFlowObjective, CFlowScorer, ConditionalFlows
from kizu.errors import ModelFileError, UnknownName, UsageError
from kizu.metrics import image_metrics
from kizu.nn.flows import position_encoding
from kizu.samples import Samples
from kizu.training import FitOptions, Position

SMALL: dict[str, Any] = {
    "image_size": 64, "batch_size": 4, "coupling_blocks": 2, "condition": 8, "fibres": 48, "iterations": 12,
    "learning_rate": 2e-3, "precision": "fp32", "training_precision": "fp32",
}  # fmt: skip


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def network(channels: tuple[int, ...] = (6, 4), seed: int = 0) -> ConditionalFlows:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ConditionalFlows(channels, condition=8, blocks=2, clamp=1.9)
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.requires_grad:
                    parameter += 0.2 * torch.randn_like(parameter)
    return made


def levels(B: int = 2, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, 6, 4, 5, generator=generator), torch.randn(B, 4, 2, 3, generator=generator)]


@torch.no_grad()
def density_of(z: Tensor) -> float:
    return -0.5 * float(z @ z) - 0.5 * len(z) * math.log(2 * math.pi)


def brute_force(made: ConditionalFlows, number: int, row: Tensor, code: Tensor) -> float:
    """log p / C of one row: the normal density of z, and autograd's Jacobian."""
    flow = made.flows[number]
    z = flow(row[None], code[None])[0][0]
    jacobian = torch.autograd.functional.jacobian(lambda v: flow(v[None], code[None])[0][0], row)
    return (density_of(z) + float(torch.linalg.slogdet(jacobian)[1])) / len(row)


def test_the_loss_in_float64_against_the_formula() -> None:
    made = CFlowObjective(network().double(), fibres=5, learning_rate=1e-3, seed=0)
    batch = made.prepare({"features": [level.double() for level in levels()]}, Position(0, 0, 2))
    expected = []
    for number, (rows, codes) in enumerate(batch):
        values = [brute_force(made.network, number, *pair) for pair in zip(rows, codes, strict=True)]
        expected.append(sum(-math.log(1 / (1 + math.exp(-value))) for value in values) / len(values))
    terms = made.loss(batch)
    assert terms["loss"].item() == pytest.approx(sum(expected), rel=1e-6)
    assert terms["level_2"].item() == pytest.approx(expected[1], rel=1e-6)


def test_cells_are_drawn_by_position_with_their_codes() -> None:
    """Features that say where they come from."""
    made = CFlowObjective(network(), fibres=25, learning_rate=1e-3, seed=3)
    cells = torch.arange(2 * 4 * 5).reshape(2, 1, 4, 5).float().expand(-1, 6, -1, -1)
    features = [cells, levels()[1]]
    (rows, codes), (all_rows, _) = made.prepare({"features": features}, Position(4, 8, 2))
    assert rows.shape == (25, 6)
    assert codes.shape == (25, 8)
    assert len(all_rows) == 12, "all cells where there are fewer"
    numbers = rows[:, 0].long()
    assert len(numbers.unique()) == 25
    assert {int(number) // 20 for number in numbers} == {0, 1}
    code = position_encoding(4, 5, 8)
    for number, got in zip(numbers.tolist(), codes, strict=True):
        assert torch.equal(got, code[:, number % 20 // 5, number % 5])
    again, other = (
        made.prepare({"features": features}, Position(step, 2 * step, 2))[0][0] for step in (4, 5)
    )
    assert torch.equal(again, rows)
    assert not torch.equal(other, rows)


def grids(made: ConditionalFlows, features: list[Tensor]) -> list[Tensor]:
    """log p / C of each cell, one by one."""
    found = []
    for number, level in enumerate(features):
        B, _, h, w = level.shape
        code = position_encoding(h, w, 8).double()
        values = [
            brute_force(made, number, level[b, :, y, x], code[:, y, x])
            for b in range(B) for y in range(h) for x in range(w)
        ]  # fmt: skip
        found.append(torch.tensor(values, dtype=torch.float64).reshape(B, h, w))
    return found


def wide(grid: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(grid[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]


def test_the_maps_by_their_formulas() -> None:
    made, features, size = network().double(), [level.double() for level in levels()], (11, 13)
    peaks = torch.tensor([-0.9, -1.4], dtype=torch.float64)
    relative = [grid - peak for grid, peak in zip(grids(made, features), peaks, strict=True)]
    likelihood = sum(wide(grid.exp(), size) for grid in relative)
    map_, score = CFlowScorer(made, peaks, combine="likelihoods", sigma=0.0)(features, size)
    assert torch.allclose(map_, -(likelihood / 2).log().float(), atol=1e-5)
    assert torch.equal(score, map_.flatten(1).amax(1))
    code_map = likelihood.max() - likelihood  # as released: highest minus sum
    assert torch.equal(code_map.flatten().argsort(), map_.double().flatten().argsort())
    logs, _ = CFlowScorer(made, peaks, combine="logarithms", sigma=0.0)(features, size)
    assert torch.allclose(logs, sum(wide(-grid, size) for grid in relative).float() / 2, atol=1e-5)


def test_what_is_far_beyond_stays_finite() -> None:
    made, features = network(), [1e4 * level for level in levels()]
    for combine in ("likelihoods", "logarithms"):
        map_, _ = CFlowScorer(made, torch.zeros(2), combine=combine, sigma=0.0)(features, (16, 16))
        assert torch.isfinite(map_).all()
        assert map_.min() > 50.0


@pytest.mark.parametrize("combine", ["likelihoods", "logarithms"])
def test_smoothing_comes_last(combine: str) -> None:
    from scipy.ndimage import gaussian_filter

    sharp, _ = CFlowScorer(network(), torch.zeros(2), combine=combine, sigma=0.0)(levels(), (16, 16))
    smooth, score = CFlowScorer(network(), torch.zeros(2), combine=combine, sigma=2.0)(levels(), (16, 16))
    expected = torch.from_numpy(gaussian_filter(sharp.detach().numpy(), (0, 2, 2)))
    assert torch.allclose(smooth, expected, atol=1e-5)
    assert torch.equal(score, smooth.flatten(1).amax(1))


def test_a_map_does_not_depend_on_other_test_images() -> None:
    detector = kizu.detector("cflow", "random/resnet10t@2,3", **SMALL).fit(images(5))
    beside = torch.cat([images(1, 7), torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)])
    assert torch.allclose(detector.predict(beside).map[0], detector.predict(images(1, 7)).map[0], atol=1e-4)


def test_peaks_are_the_largest_likelihoods_of_the_training_images() -> None:
    detector = kizu.detector("cflow", "random/resnet10t@2,3", **SMALL).fit(images(5))
    features = detector.representation.inference_copy("fp32", "cpu")(images(5))
    expected = torch.stack([level.amax() for level in detector.network_([f.clone() for f in features])])
    assert torch.allclose(detector.peaks_, expected, atol=1e-4)


def test_training_moves_all_that_is_learned_and_no_rotation() -> None:
    detector = kizu.detector("cflow", "random/resnet10t@2,3", **SMALL).fit(images(5))
    start = detector.network().state_dict()
    for name, value in detector.network_.state_dict().items():
        assert torch.equal(value, start[name]) == ("w_perm" in name), name
    losses = [row["loss"] for row in detector.log_]
    assert losses[-1] < losses[0]


def test_the_learning_rate_rises_and_falls() -> None:
    made = CFlowObjective(network(), fibres=5, learning_rate=1e-3, seed=0)
    factors = [made.lr_scale(step, 100) for step in range(101)]
    assert factors[7] == factors[8] == 1.0
    assert factors[0] == pytest.approx(1 / 8)
    assert factors[54] == pytest.approx(0.5, abs=1e-3)
    assert factors[100] == pytest.approx(1e-3)


def test_bf16_trains_nearly_the_same() -> None:
    half = kizu.detector("cflow", "random/resnet10t@2,3", **{**SMALL, "training_precision": "bf16"})
    half.fit(images(5))
    full = kizu.detector("cflow", "random/resnet10t@2,3", **SMALL).fit(images(5))
    one, other = half.predict(images(3, 5)).score, full.predict(images(3, 5)).score
    assert not torch.equal(one, other)
    assert torch.allclose(one, other, rtol=0.05)


def same(first: CFlow, second: CFlow) -> None:
    for (name, value), (other, expected) in zip(first._state().items(), second._state().items(), strict=True):
        assert name == other
        assert torch.equal(value, expected), name


def test_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, fitted: CFlow) -> dict[str, float]:
        if step == 7:
            raise Stop
        return {"mean": float(fitted.predict(images(1)).score.mean())}

    whole = kizu.detector("cflow", "random/resnet10t@2,3", **SMALL).fit(images(9))
    options = FitOptions(folder=tmp_path, checkpoint_every=5, evaluate=stop, evaluate_every=1)
    with pytest.raises(Stop):
        kizu.detector("cflow", "random/resnet10t@2,3", **SMALL).fit(images(9), options=options)
    resumed = kizu.detector("cflow", "random/resnet10t@2,3", **SMALL)
    resumed.fit(images(9), options=FitOptions(folder=tmp_path, resume=True))
    same(resumed, whole)


def test_on_residual_features_of_several_levels(tmp_path: Path) -> None:
    """As ADPretrain uses it."""
    detector = kizu.detector(
        "cflow", "random/vit_tiny_patch16_224@4,8,12", adaptation=kizu.Adaptation("residual", {"shots": 2}),
        **{**SMALL, "iterations": 2},
    ).fit(images(5))  # fmt: skip
    assert detector.peaks_.shape == (3,)
    loaded = kizu.load(detector.save(tmp_path / "model.kizu"))
    assert torch.equal(loaded.predict(images(2, 3)).map, detector.predict(images(2, 3)).map)
    same(loaded, detector)


def test_a_model_with_peaks_of_other_levels_is_refused(tmp_path: Path) -> None:
    from kizu import store

    detector = kizu.detector("cflow", "random/resnet10t@2,3", **{**SMALL, "iterations": 2}).fit(images(3))
    tensors, card = store.load(detector.save(tmp_path / "model.kizu"))
    store.save(tmp_path / "wrong.kizu", {**tensors, "detector.peaks": torch.zeros(3)}, card)
    with pytest.raises(ModelFileError, match="3 peaks for 2 levels"):
        kizu.load(tmp_path / "wrong.kizu")


@pytest.mark.slow
@pytest.mark.parametrize("combine", ["likelihoods", "logarithms"])
def test_it_finds_painted_flaws_with_trained_weights(combine: str, tiny_planted: Samples) -> None:
    from kizu.images import open_image

    more = {"combine": combine, "iterations": 150, "fibres": 128, "coupling_blocks": 4}
    detector = kizu.detector("cflow", "kizu/starter@2,3", **{**SMALL, **more}).fit(tiny_planted.train)
    good = detector.predict(tiny_planted.test.normal)
    painted = torch.stack([torch.from_numpy(open_image(path)) for path in tiny_planted.test.normal.paths])
    painted = painted.permute(0, 3, 1, 2).float() / 255
    painted[:, :, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    foreign = detector.predict(painted)
    assert foreign.score.min() > good.score.max()
    assert foreign.map[:, 16:48, 16:48].mean() > foreign.map[:, :8].mean()
    test = detector.predict(tiny_planted.test)
    assert image_metrics(test.score, tiny_planted.test.labels)["auroc"] > 0.65


@pytest.mark.parametrize(
    "wrong",
    [
        {"coupling_blocks": 0}, {"clamp": 0.0}, {"clamp": float("nan")}, {"condition": 0}, {"condition": 6},
        {"fibres": 0}, {"fibres": 2.5}, {"learning_rate": 0.0}, {"iterations": 0}, {"sigma": -1.0},
        {"training_precision": "fp8"}, {"coupling_blocks": True},
    ],
)  # fmt: skip
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        kizu.detector("cflow", "random/resnet10t@2", **{**SMALL, **wrong})


def test_unknown_combinations_name_the_nearest() -> None:
    with pytest.raises(UnknownName, match="likelihoods"):
        kizu.detector("cflow", "random/resnet10t@2", combine="likelihood")


def test_more_than_a_file_may_hold_is_refused_before_a_fit() -> None:
    detector = kizu.detector("cflow", "random/resnet10t@2", **{**SMALL, "coupling_blocks": 1000})
    with pytest.raises(UsageError, match="coupling_blocks"):
        detector.fit(images(2))
