"""PaDiM against numpy's covariance, inverted position by position in float64; with its fast twin on and
off."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kizu
from kizu.accel.nested_gaussians import NestedGaussians
from kizu.detectors.padim import (
    MahalanobisDistance,
    PaDiM,
    PositionGaussians,
    channels_by_level,
    choose_channels,
    covariance,
    embed,
    whitening,
)
from kizu.detectors.runtime import Runtime
from kizu.errors import ModelFileError, NotFinite, ShapeError, UsageError
from kizu.nn.patches import align_levels
from kizu.representations.base import Representation
from kizu.representations.sources import open_representation

EPS = 0.01


@pytest.fixture(scope="module")
def net() -> Representation:
    return open_representation("random/resnet10t@1,2")


@pytest.fixture(scope="module")
def three_levels() -> Representation:
    return open_representation("random/resnet10t@1,2,3")


@pytest.fixture(params=["0", "1"], ids=["reference", "twin"])
def both_forms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The reference and its twin in accel/ (held equal to each other in
    tests/accel/test_nested_gaussians.py)."""
    monkeypatch.setenv("KIZU_ACCEL", request.param)
    return str(request.param)


def truth(known: np.ndarray, query: np.ndarray, eps: float) -> np.ndarray:
    """Eq. 2 by inverse matrices in float64, position by position: (B, h, w)."""
    out = np.empty((len(query), *known.shape[2:]))
    for y in range(known.shape[2]):
        for x in range(known.shape[3]):
            rows = known[:, :, y, x]
            spread = np.cov(rows, rowvar=False) if len(rows) > 1 else np.zeros((rows.shape[1],) * 2)
            inverse = np.linalg.inv(spread + eps * np.eye(rows.shape[1]))
            difference = query[:, :, y, x] - rows.mean(0)
            out[:, y, x] = np.sqrt(np.einsum("bd,de,be->b", difference, inverse, difference))
    return out


@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_mean_covariance_cholesky(count: int) -> None:
    """The maths in float64, from one image to many more than dimensions, to the truth: condition numbers here
    are below 1e4, so that digits 1e-16 apart become 1e-12."""
    generator = torch.Generator().manual_seed(0)
    known, query = (
        [
            torch.randn(n, 5, 4, 6, generator=generator).double() + 1,
            torch.randn(n, 3, 2, 3, generator=generator).double(),
        ]
        for n in (count, 3)
    )
    channels = torch.tensor([7, 6, 4, 2, 1, 0])
    of_levels = channels_by_level(channels, [5, 3])
    rows = embed(choose_channels(known, of_levels)).transpose(0, 1)  # (P, n, D)
    mean = rows.mean(1)
    spread = covariance(rows.mT @ rows, mean, count)
    W = whitening(spread, EPS)
    assert torch.equal(W, W.tril())
    got = MahalanobisDistance(mean, W)(choose_channels(query, of_levels))
    aligned = [align_levels(levels, mode="nearest")[:, channels].numpy() for levels in (known, query)]
    assert np.allclose(got.numpy(), truth(*aligned, EPS), rtol=1e-10)


def test_the_reference_learns_in_a_stream() -> None:
    """Batches of any size give what all images at once give."""
    levels = [torch.randn(11, 3, 3, 3, generator=torch.Generator().manual_seed(0))]
    learned = []
    for size in (1, 4, 11):
        gaussians = PositionGaussians(EPS)
        for part in levels[0].split(size):
            gaussians.update([part])
        gaussians.finalize()
        learned.append(gaussians.tensors())
    for other in learned[1:]:
        assert all(torch.allclose(learned[0][name], other[name], rtol=2**-10) for name in other)


@pytest.mark.usefixtures("both_forms")
def test_the_detector_end_to_end(three_levels: Representation) -> None:
    net = three_levels
    known = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    query = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    detector = kizu.detector(
        "padim", net, dimensions=20, sigma=0.0, image_size=32, precision="fp32", alignment="grid"
    ).fit(known)
    extractor = net.inference_copy("fp32")
    chosen = [
        align_levels(extractor(batch), mode="nearest")[:, detector.channels_].double().numpy()
        for batch in (known, query)
    ]
    grid = truth(*chosen, 0.01)
    wide = torch.nn.functional.interpolate(torch.from_numpy(grid)[:, None], size=(32, 32), mode="bilinear")[
        :, 0
    ]
    prediction = detector.predict(query)
    assert torch.allclose(prediction.map.double(), wide, rtol=2e-3)
    assert torch.allclose(prediction.score.double(), wide.flatten(1).amax(1), rtol=2e-3)


def test_channels_are_a_seeded_subset(three_levels: Representation) -> None:
    net = three_levels
    images = torch.rand(3, 3, 32, 32)

    def chosen(seed: int, dimensions: int | None) -> list[int]:
        return (
            kizu.detector("padim", net, dimensions=dimensions, seed=seed, image_size=32)
            .fit(images)
            .channels_.tolist()
        )

    total = sum(net.channels)
    assert chosen(0, 20) == chosen(0, 20)
    assert chosen(0, 20) != chosen(1, 20)
    assert len(set(chosen(0, 20))) == 20
    assert chosen(0, None) == chosen(5, 10_000) == list(reversed(range(total)))


@pytest.mark.usefixtures("both_forms")
def test_sizes_must_agree(net: Representation) -> None:
    detector = kizu.detector("padim", net, dimensions=10, image_size=32).fit(torch.rand(3, 3, 32, 32))
    with pytest.raises(ShapeError, match="fitted on a grid"):
        detector.predict(torch.rand(1, 3, 64, 64))
    with pytest.raises(ShapeError, match="one size"):
        detector.clone().fit([torch.rand(1, 3, 32, 32), torch.rand(1, 3, 64, 64)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("dimensions", value) for value in (0, -3, 2.5, math.nan)),
        *(("eps", value) for value in (0.0, -1.0, 1e-12, math.nan, math.inf)),
        *(("sigma", value) for value in (-1.0, math.nan, math.inf)),
    ],
)
def test_values_that_cannot_be_meant(name: str, value: Any, net: Representation) -> None:
    with pytest.raises(UsageError, match=name):
        kizu.detector("padim", net, **{name: value})


@pytest.mark.parametrize("images", [3, 8])
@pytest.mark.parametrize(("written", "read"), [("0", "1"), ("1", "0")])
def test_a_model_file_of_either_form_is_read_by_the_other(
    images: int, written: str, read: str, net: Representation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few images the twin keeps them and the reference W, rounded: the distance moves by about 1e-3."""
    monkeypatch.setenv("KIZU_ACCEL", written)
    known, query = torch.rand(images, 3, 32, 32), torch.rand(2, 3, 32, 32)
    detector = kizu.detector("padim", net, dimensions=20, image_size=32, precision="fp32")
    expected = detector.fit(known).predict(query)
    detector.save(tmp_path / "model")
    monkeypatch.setenv("KIZU_ACCEL", read)
    other = kizu.load(tmp_path / "model")
    assert type(other.gaussians_) is not type(detector.gaussians_)
    got = other.predict(query)
    assert torch.allclose(got.map, expected.map, rtol=1e-5 if images == 8 else 3e-3)
    other.save(tmp_path / "again")
    assert torch.equal(kizu.load(tmp_path / "again").predict(query).map, got.map)


@pytest.fixture(
    scope="module", params=itertools.product("01", (3, 8)), ids=lambda form: "-".join(map(str, form))
)
def fitted(request: pytest.FixtureRequest, net: Representation) -> PaDiM:
    """By the reference (0) and by its twin (1), of few images and of more. Tests leave it as it is."""
    form, images = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIZU_ACCEL", form)
        return PaDiM(net, dimensions=20, runtime=Runtime(image_size=32)).fit(torch.rand(images, 3, 32, 32))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("grids", lambda grids: grids[:1]),
        ("grids", lambda grids: grids * 2),
        ("grids", lambda grids: grids * 10**6),
        ("grids", lambda grids: grids * 0),
        ("channels", lambda channels: channels + 10_000),
        ("channels", lambda channels: channels[:0]),
        ("channels", lambda channels: channels[:-1]),
        ("channels", lambda channels: channels[:1].expand(len(channels))),
        ("mean", lambda mean: mean[:-1]),
        ("factor", lambda factor: factor[..., :-1]),
        ("factor", lambda factor: factor[..., None]),
        ("factor", lambda factor: factor * math.nan),
    ],
)
def test_a_state_that_does_not_fit_together(
    fitted: PaDiM,
    name: str,
    change: Callable[[torch.Tensor], torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing large is allocated because of what it says."""
    monkeypatch.setenv("KIZU_ACCEL", "1" if isinstance(fitted.gaussians_, NestedGaussians) else "0")
    state, other = fitted._state(), fitted.clone()
    other._restore(dict(state))
    mean, factor = sorted(key for key in state if key not in ("channels", "grids"))
    key = {"mean": mean, "factor": factor}.get(name, name)
    with pytest.raises(ModelFileError):
        other._restore({**state, key: change(state[key])})


def test_numbers_of_another_type(fitted: PaDiM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may hold channels in 16 bits, where an index takes 64, and all else in float64."""
    monkeypatch.setenv("KIZU_ACCEL", "1" if isinstance(fitted.gaussians_, NestedGaussians) else "0")
    state, other = fitted._state(), fitted.clone()
    other._restore(
        {
            name: value.double() if value.is_floating_point() else value.short()
            for name, value in state.items()
        }
    )
    other.fitted_ = True
    other._prepare_scoring()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(other.predict(images).score, fitted.predict(images).score)


@pytest.mark.usefixtures("both_forms")
def test_an_image_has_the_same_map_alone_and_among_others(three_levels: Representation) -> None:
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    detector = kizu.detector("padim", three_levels, dimensions=30, image_size=32, precision="fp32").fit(
        images
    )
    together = detector.predict(images).map
    assert torch.allclose(
        torch.cat([detector.predict(one).map for one in images.split(1)]), together, atol=1e-4
    )


class Scaled(Representation):
    """Features of a given deviation and mean; rank: how many channels are independent."""

    def __init__(self, deviation: float, mean: float = 0.0, rank: int = 32) -> None:
        super().__init__()
        self.channels, self.strides = (8, 16, 32), (4, 8, 16)
        self.card = {"name": "scaled", "kind": "scaled", "levels": [1, 2, 3]}
        self.deviation, self.mean, self.rank = deviation, mean, rank

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        levels = []
        for width, stride in zip(self.channels, self.strides, strict=True):
            grid = (images.shape[2] // stride, images.shape[3] // stride)
            seeds = [int(image.sum() * 1000) % 100_000 for image in images]
            noise = [
                torch.randn(width, *grid, generator=torch.Generator().manual_seed(seed)) for seed in seeds
            ]
            channels = torch.arange(width) % self.rank
            levels.append(torch.stack(noise)[:, channels] * self.deviation + self.mean)
        return levels

    def inference_copy(self, precision: str = "fp32", device: str = "cpu") -> Scaled:  # type: ignore[override]
        return self


@pytest.mark.parametrize(("deviation", "rank"), [(430.0, 32), (430.0, 1), (5000.0, 1), (1e-20, 32), (0.0, 1)])
@pytest.mark.parametrize("count", [4, 12])
def test_features_of_any_size(
    deviation: float, rank: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Covariances far larger than eps: sums in float32 have no Cholesky factor. The twin, in both its forms,
    agrees with the reference, which sums in float64."""
    images = torch.rand(count + 3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    scores = {}
    for value in ("0", "1"):
        monkeypatch.setenv("KIZU_ACCEL", value)
        model = PaDiM.tiny(Scaled(deviation, rank=rank)).fit(images[:count])
        scores[value] = model.predict(images[count:]).score
    assert scores["0"].isfinite().all()
    assert torch.allclose(scores["0"], scores["1"], rtol=0.05), "rows are stored in float32"
    assert (scores["0"] > 2.0).all() == (deviation > 1), "distances of images that were not learned"


@pytest.mark.usefixtures("both_forms")
@pytest.mark.parametrize(
    ("deviation", "mean", "message"),
    [(1e15, 0.0, "Set a larger eps"), (1.0, 1e6, "scaled gives features .* past what 16 bits hold")],
)
def test_features_that_are_too_large(deviation: float, mean: float, message: str) -> None:
    images = torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with pytest.raises(NotFinite, match=message):
        PaDiM.tiny(Scaled(deviation, mean, rank=1)).fit(images)


@pytest.mark.usefixtures("both_forms")
@pytest.mark.parametrize(("images", "dimensions"), [(9, None), (40, 6)])
def test_separate_levels_in_float64(
    images: int, dimensions: int | None, three_levels: Representation, tmp_path: Path
) -> None:
    """ADPretrain's PaDiM: a Gaussian a position and level, the mean of the levels' upsampled distances. Of
    few images and of more than four times the channels: both forms of the twin."""
    generator = torch.Generator().manual_seed(0)
    known, query = (torch.rand(n, 3, 32, 32, generator=generator) for n in (images, 2))
    options: dict[str, Any] = {"image_size": 32, "precision": "fp32", "alignment": "grid", "sigma": 0.0}
    detector = kizu.detector("padim", three_levels, levels="separate", dimensions=dimensions, **options).fit(
        known
    )
    extractor, total = three_levels.inference_copy("fp32"), torch.zeros(2, 32, 32, dtype=torch.float64)
    chosen = channels_by_level(detector.channels_, three_levels.channels)
    for learned, asked, channels in zip(extractor(known), extractor(query), chosen, strict=True):
        assert len(channels) == (dimensions or learned.shape[1])
        kept = [level[:, channels].double().numpy() for level in (learned, asked)]
        grid = torch.from_numpy(truth(*kept, 0.01))[:, None]
        total += torch.nn.functional.interpolate(grid, size=(32, 32), mode="bilinear", align_corners=True)[
            :, 0
        ]
    prediction = detector.predict(query)
    assert torch.allclose(prediction.map.double(), total / 3, rtol=3e-3)
    assert torch.equal(prediction.score, prediction.map.flatten(1).amax(1))
    opened = kizu.load(detector.save(tmp_path / "model"))
    assert torch.equal(opened.predict(query).map, prediction.map)


def test_a_separate_model_that_lacks_a_level(three_levels: Representation) -> None:
    options: dict[str, Any] = {"image_size": 32, "dimensions": 5, "levels": "separate"}
    fitted = kizu.detector("padim", three_levels, **options).fit(torch.rand(3, 3, 32, 32))
    state = fitted._state()
    first = sorted(name for name in state if name.startswith("level_2"))[0]
    with pytest.raises(ModelFileError, match="missing"):
        fitted.clone()._restore({name: value for name, value in state.items() if name != first})
    with pytest.raises(ModelFileError, match="fit together"):
        fitted.clone()._restore({**state, "channels": state["channels"][:5]})
    with pytest.raises(UsageError, match="joined"):
        kizu.detector("padim", three_levels, levels="each")
