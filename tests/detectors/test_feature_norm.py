"""FeatureNorm against norms, interpolation and smoothing in float64; and what it finds on residuals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import kizu
from kizu.detectors.feature_norm import NORMS, FeatureNormScorer, norms
from kizu.errors import ModelFileError, TooFewImages, UnknownName, UsageError
from kizu.images import open_image
from kizu.samples import Samples

LENGTHS = {
    "l2": lambda x: x,
    "sqrt": lambda x: np.sqrt(x + 1) - 1,
    "pseudo_huber": lambda x: np.sqrt(x * x + 1) - 1,
}


def levels(B: int = 2, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, 5, 4, 6, generator=generator), 3 * torch.randn(B, 8, 2, 3, generator=generator)]


def truth(level: torch.Tensor, norm: str) -> np.ndarray:
    return np.asarray(LENGTHS[norm](np.sqrt((level.numpy().astype(np.float64) ** 2).sum(1))))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_norms_by_hand(norm: str, scale: float) -> None:
    """Short ones too: 1e-8 = (1e-4)^2 is below what float32 keeps of 1 + 1e-8."""
    level = levels()[0] * scale
    assert np.allclose(norms(level, norm).numpy(), truth(level, norm), rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("standardise", [False, True])
def test_the_map_is_the_mean_of_upsampled_norms(norm: str, standardise: bool) -> None:
    from scipy.ndimage import gaussian_filter

    features = levels()
    scale = (torch.tensor([1.5, 6.0]), torch.tensor([0.5, 2.0])) if standardise else None
    map_, score = FeatureNormScorer(norm, scale, sigma=2.0)(features, (24, 36))
    wide = []
    for number, level in enumerate(features):
        values = torch.from_numpy(truth(level, norm))
        if scale is not None:
            values = (values - scale[0][number]) / scale[1][number]
        grown = functional.interpolate(values[:, None], size=(24, 36), mode="bilinear", align_corners=True)
        wide.append([gaussian_filter(one, 2.0, mode="reflect") for one in grown[:, 0].numpy()])
    expected = np.mean(wide, axis=0)
    assert np.allclose(map_.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert np.allclose(score.numpy(), expected.reshape(2, -1).max(1), rtol=1e-4)


def test_statistics_of_good_norms_and_what_reads_them(tmp_path: Path) -> None:
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"image_size": 64, "precision": "fp32", "batch_size": 4, "sigma": 0.0}
    options["alignment"] = "grid"
    plain = kizu.detector("feature_norm", "random/resnet10t@2,3", **options).fit(images)
    scaled = kizu.detector("feature_norm", "random/resnet10t@2,3", standardise=True, **options).fit(images)
    features = plain.representation_.inference_copy("fp32")(images)
    for number, level in enumerate(features):
        values = truth(level, "l2")
        assert plain.mean_[number].item() == pytest.approx(values.mean(), rel=1e-5)
        assert plain.deviation_[number].item() == pytest.approx(values.std(), rel=1e-4)
    one = kizu.detector("feature_norm", "random/resnet10t@2", standardise=True, **options).fit(images)
    raw = kizu.detector("feature_norm", "random/resnet10t@2", **options).fit(images)
    expected = (raw.predict(images).map - one.mean_) / one.deviation_
    assert torch.allclose(one.predict(images).map, expected, atol=1e-4)
    assert torch.equal(kizu.load(scaled.save(tmp_path / "m")).predict(images).map, scaled.predict(images).map)
    with pytest.raises(ModelFileError, match="not above 0"):
        scaled.clone()._restore({"mean": scaled.mean_, "deviation": torch.zeros(2)})


def test_norms_that_are_all_alike_cannot_be_standardised() -> None:
    with pytest.raises(UsageError, match="standardise=False"):
        kizu.detector("feature_norm", "pixels", standardise=True, image_size=64).fit(
            torch.zeros(2, 3, 64, 64)
        )


def test_it_finds_what_is_foreign_on_residuals(tiny_planted: Samples) -> None:
    """A square that is painted over, by trained features."""
    options: dict[str, Any] = {"image_size": 64, "sigma": 2.0, "precision": "fp32", "alignment": "grid"}
    residual = kizu.Adaptation("residual", {"shots": 8})
    detector = kizu.detector("feature_norm", "kizu/starter@2,3", adaptation=residual, **options)
    detector.fit(tiny_planted.train)
    images = [torch.from_numpy(open_image(path)) for path in tiny_planted.test.normal.paths]
    good = torch.stack(images).permute(0, 3, 1, 2).float() / 255
    painted = good.clone()
    painted[:, :, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    foreign = detector.predict(painted)
    assert foreign.score.min() > detector.predict(good).score.max()
    assert foreign.map[:, 16:48, 16:48].mean() > foreign.map[:, :8].mean()


def test_few_shot_images_may_all_be_references() -> None:
    """Table 5's setting. What learns from features is refused there: residuals of references are zero."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    parameters: dict[str, Any] = {"adaptation": "residual", "image_size": 64, "precision": "fp32"}
    detector = kizu.detector("feature_norm", "random/resnet10t@2", **parameters).fit(images)
    assert detector.representation_.card["shots"] == 2
    assert torch.allclose(detector.predict(images).score, torch.zeros(2), atol=1e-5)
    for name, more in (("feature_norm", {"standardise": True}), ("gaussian", {})):
        with pytest.raises(TooFewImages, match="all would be references"):
            kizu.detector(name, "random/resnet10t@2", **parameters, **more).fit(images)


def test_nonsense_is_refused() -> None:
    with pytest.raises(UnknownName, match="pseudo_huber"):
        kizu.detector("feature_norm", "random/resnet10t@2", norm="l1")
    with pytest.raises(UsageError, match="sigma"):
        kizu.detector("feature_norm", "random/resnet10t@2", sigma=-1.0)
