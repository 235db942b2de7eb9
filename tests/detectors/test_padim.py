"""PaDiM against numpy's covariance, inverted position by position in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kizu
from kizu.detectors import _position_gaussians
from kizu.detectors._position_gaussians import PositionGaussians, distances, pack, unpack
from kizu.errors import ShapeError, UsageError
from kizu.nn.patches import align_levels
from kizu.representations._open import representation


def features(count: int, D: int = 24, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, D, 3, 4, generator=generator) * torch.rand(D, 1, 1, generator=generator) * 2 + 5


def truth(known: np.ndarray, query: np.ndarray, eps: float) -> np.ndarray:
    """Mahalanobis distance at every position, as the paper's Eq. 1 and 2 say; arrays (n, D, h, w) -> (B, h, w)."""
    B, _, h, w = query.shape
    out = np.zeros((B, h, w))
    for y in range(h):
        for x in range(w):
            rows = known[:, :, y, x]
            covariance = np.cov(rows.T) if len(rows) > 1 else np.zeros((rows.shape[1],) * 2)
            inverse = np.linalg.inv(covariance + eps * np.eye(rows.shape[1]))
            difference = query[:, :, y, x] - rows.mean(0)
            out[:, y, x] = np.sqrt(np.einsum("bd,de,be->b", difference, inverse, difference))
    return out


def gaussians(known: torch.Tensor) -> PositionGaussians:
    """What was told of images, four at a time."""
    positions = PositionGaussians()
    for part in known.split(4):
        positions.update(part)
    return positions


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("whole", [5, 32])
@pytest.mark.parametrize("gather", [1, 16, 64])
@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 23, 60])
def test_both_forms_are_the_mahalanobis_distance(count: int, gather: int, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one image to many more than dimensions, in batches of 4; folded once, never before the end, or with each batch; whitened by
    halves and at once."""
    monkeypatch.setattr(_position_gaussians, "WHOLE", whole)
    monkeypatch.setattr(_position_gaussians, "GATHER", gather)
    monkeypatch.setattr(_position_gaussians, "CHUNK_BYTES_CPU", 4 * 24 * 24)  # a position a stream
    known, query = features(count), features(3, seed=1)
    mean, factor, thin = gaussians(known).finish(0.01)
    assert thin == (4 * count <= 24)
    got = distances(query.flatten(2).permute(2, 0, 1) - mean[:, None], factor.transpose(1, 2), thin, 0.01).T.reshape(3, 3, 4)
    expected = truth(known.double().numpy(), query.double().numpy(), 0.01)
    assert np.allclose(got.numpy(), expected, rtol=2e-5)
    if not thin:
        packed = gaussians(known).finish(0.01, packed=True)[1]
        assert torch.equal(packed, pack(factor))
        rounded = unpack(packed, 24)
        half = distances(query.flatten(2).permute(2, 0, 1) - mean[:, None], rounded, thin, 0.01).T.reshape(3, 3, 4)
        assert np.allclose(half.numpy(), expected, rtol=1e-3)
        assert torch.equal(rounded, factor.transpose(1, 2).half().float())


def test_the_detector_end_to_end() -> None:
    net = representation("random/resnet10t@1,2,3")
    known = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    query = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    detector = kizu.detector("padim", net, dimensions=20, sigma=0.0, image_size=32, precision="fp32").fit(known)
    frozen = net.frozen("fp32")
    chosen = [align_levels(frozen(batch), mode="nearest")[:, detector.channels_].double().numpy() for batch in (known, query)]
    grid = truth(*chosen, 0.01)
    wide = torch.nn.functional.interpolate(torch.from_numpy(grid)[:, None], size=(32, 32), mode="bilinear")[:, 0]
    prediction = detector.predict(query)
    assert torch.allclose(prediction.map.double(), wide, rtol=2e-3)
    assert torch.allclose(prediction.score.double(), wide.flatten(1).amax(1), rtol=2e-3)


def test_channels_are_a_seeded_subset() -> None:
    net = representation("random/resnet10t@1,2,3")
    images = torch.rand(3, 3, 32, 32)

    def chosen(seed: int, dimensions: int | None) -> list[int]:
        return kizu.detector("padim", net, dimensions=dimensions, seed=seed, image_size=32).fit(images).channels_.tolist()

    total = sum(net.channels)
    assert chosen(0, 20) == chosen(0, 20)
    assert chosen(0, 20) != chosen(1, 20)
    assert len(set(chosen(0, 20))) == 20
    assert chosen(0, None) == chosen(5, 10_000) == list(range(total))


def test_sizes_must_agree() -> None:
    detector = kizu.detector("padim", "random/resnet10t@1,2", dimensions=10, image_size=32).fit(torch.rand(3, 3, 32, 32))
    with pytest.raises(ShapeError, match="fitted on a grid"):
        detector.predict(torch.rand(1, 3, 64, 64))
    with pytest.raises(ShapeError, match="one size"):
        detector.clone().fit([torch.rand(1, 3, 32, 32), torch.rand(1, 3, 64, 64)])
    for knobs in ({"dimensions": 0}, {"eps": 0.0}):
        with pytest.raises(UsageError):
            kizu.detector("padim", "random/resnet10t@1,2", **knobs)
