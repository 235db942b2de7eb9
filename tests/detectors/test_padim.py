"""PaDiM against numpy's covariance, inverted position by position in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import kizu
from kizu.accel import position_gaussians
from kizu.accel.nesting import cells_of, grids_of, nesting
from kizu.accel.position_gaussians import PositionGaussians, distances, unpack
from kizu.errors import ModelFileError, ShapeError, UsageError
from kizu.nn.patches import align_levels
from kizu.representations.sources import open_representation

GRIDS = {
    "nested": ((8, 4), (4, 2), (2, 1)),
    "one": ((3, 4), (3, 4)),
    "across": ((6, 5), (4, 3), (3, 2)),  # no cell of the second lies in one of the third alone
    "twice": ((4, 2), (4, 2), (2, 2), (4, 4)),
}
WIDTHS = (6, 9, 9, 4)


def features(grids: tuple[tuple[int, int], ...], count: int, seed: int = 0) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(seed)
    mix = [
        torch.eye(width) + 0.1 * torch.randn(width, width, generator=torch.Generator().manual_seed(9))
        for width in WIDTHS
    ]
    maps = [
        torch.randn(count, *grid, width, generator=make) for grid, width in zip(grids, WIDTHS, strict=False)
    ]
    return [(level @ turn + 1.0).permute(0, 3, 1, 2) for level, turn in zip(maps, mix, strict=False)]


def truth(known: np.ndarray, query: np.ndarray, eps: float) -> np.ndarray:
    """Eq. 2 by inverse matrices in float64, position by position: (B, h, w)."""
    out = np.empty((len(query), *known.shape[2:]))
    for y in range(known.shape[2]):
        for x in range(known.shape[3]):
            rows = known[:, :, y, x]
            covariance = np.cov(rows, rowvar=False) if len(rows) > 1 else np.zeros((rows.shape[1],) * 2)
            inverse = np.linalg.inv(covariance + eps * np.eye(rows.shape[1]))
            difference = query[:, :, y, x] - rows.mean(0)
            out[:, y, x] = np.sqrt(np.einsum("bd,de,be->b", difference, inverse, difference))
    return out


def gaussians(known: list[torch.Tensor], channels: list[torch.Tensor]) -> PositionGaussians:
    """What was told of images, four at a time."""
    nest = nesting(grids_of(known), tuple(len(mine) for mine in channels), torch.device("cpu"))
    positions = PositionGaussians(nest)
    for start in range(0, len(known[0]), 4):
        positions.update(cells_of([level[start : start + 4] for level in known], channels, nest))
    return positions


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("grids", GRIDS)
@pytest.mark.parametrize("whole", [5, 32])
@pytest.mark.parametrize("gather", [1, 16, 64])
@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 23, 60])
def test_both_forms_are_the_mahalanobis_distance(
    count: int, gather: int, whole: int, grids: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one image to many more than dimensions, in batches of 4; folded once, never before the end, or
    with each batch; whitened by halves and at once; levels that lie in each other, that do not, and of one
    grid."""
    monkeypatch.setattr(position_gaussians, "WHOLE", whole)
    monkeypatch.setattr(position_gaussians, "GATHER", gather)
    monkeypatch.setattr(position_gaussians, "CHUNK_BYTES_CPU", 4 * 24 * 64)  # a group a stream
    known, query = features(GRIDS[grids], count), features(GRIDS[grids], 3, seed=1)
    channels = [torch.arange(width) for width in WIDTHS[: len(known)]]
    channels[-1] = torch.tensor([1, 3])
    positions = gaussians(known, channels)
    means, factors, thin = positions.finish(0.01, torch.float32)
    rounded = gaussians(known, channels).finish(0.01)[1]
    assert all(
        torch.equal(one, exact if thin else exact.half()) for one, exact in zip(rounded, factors, strict=True)
    )
    nest, total = positions.nest, sum(len(mine) for mine in channels)
    assert thin == (4 * count <= total)
    differences = [
        cells.transpose(0, 1) - mean[:, None]
        for cells, mean in zip(cells_of(query, channels, nest), means, strict=True)
    ]
    unpacked = [factors[0].transpose(1, 2)] if thin else unpack(factors, nest)
    got = distances(differences, nest, unpacked, thin, 0.01).T
    chosen = [align_levels(levels, mode="nearest").double() for levels in (known, query)]
    kept = torch.cat([mine + sum(WIDTHS[:number]) for number, mine in enumerate(channels)])
    expected = truth(*(one[:, kept].numpy() for one in chosen), 0.01)
    assert np.allclose(got.numpy(), expected.reshape(3, -1), rtol=2e-5)


def test_the_detector_end_to_end() -> None:
    net = open_representation("random/resnet10t@1,2,3")
    known = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    query = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    detector = kizu.detector("padim", net, dimensions=20, sigma=0.0, image_size=32, precision="fp32").fit(
        known
    )
    frozen = net.inference_copy("fp32")
    chosen = [
        align_levels(frozen(batch), mode="nearest")[:, detector.channels_].double().numpy()
        for batch in (known, query)
    ]
    grid = truth(*chosen, 0.01)
    wide = torch.nn.functional.interpolate(torch.from_numpy(grid)[:, None], size=(32, 32), mode="bilinear")[
        :, 0
    ]
    prediction = detector.predict(query)
    assert torch.allclose(prediction.map.double(), wide, rtol=2e-3)
    assert torch.allclose(prediction.score.double(), wide.flatten(1).amax(1), rtol=2e-3)


def test_channels_are_a_seeded_subset() -> None:
    net = open_representation("random/resnet10t@1,2,3")
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
    assert chosen(0, None) == chosen(5, 10_000) == list(range(total))


def test_sizes_must_agree() -> None:
    detector = kizu.detector("padim", "random/resnet10t@1,2", dimensions=10, image_size=32).fit(
        torch.rand(3, 3, 32, 32)
    )
    with pytest.raises(ShapeError, match="fitted on a grid"):
        detector.predict(torch.rand(1, 3, 64, 64))
    with pytest.raises(ShapeError, match="one size"):
        detector.clone().fit([torch.rand(1, 3, 32, 32), torch.rand(1, 3, 64, 64)])
    for parameters in ({"dimensions": 0}, {"eps": 0.0}):
        with pytest.raises(UsageError):
            kizu.detector("padim", "random/resnet10t@1,2", **parameters)


@pytest.mark.parametrize("images", [3, 8])
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
        ("mean", lambda mean: mean[:-1]),
        ("factor", lambda factor: factor[:-1]),
        ("factor", lambda factor: factor[..., None]),
    ],
)
def test_a_state_that_does_not_fit_together(
    images: int, name: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """In both forms; nothing large is made of what it says."""
    detector = kizu.detector("padim", "random/resnet10t@1,2", dimensions=20, image_size=32).fit(
        torch.rand(images, 3, 32, 32)
    )
    state = detector._state()
    other = detector.clone()
    other._restore(dict(state))
    with pytest.raises(ModelFileError, match="fit together"):
        other._restore({**state, name: change(state[name])})


def test_a_image_has_the_same_map_alone_and_among_others() -> None:
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    detector = kizu.detector(
        "padim", "random/resnet10t@1,2,3", dimensions=30, image_size=32, precision="fp32"
    ).fit(images)
    together = detector.predict(images).map
    assert torch.allclose(
        torch.cat([detector.predict(one).map for one in images.split(1)]), together, atol=1e-4
    )
