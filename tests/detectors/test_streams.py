"""Batches that a CPU looks at in streams: the answers are those of one image after the other."""

from __future__ import annotations

import pytest
import torch

import kizu
from kizu.errors import NotFinite, ShapeError
from kizu.representations.backbone import Backbone
from kizu.types import Batch

pytestmark = pytest.mark.usefixtures("accelerated", "two_threads")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each pass through a network had."""
    seen: list[int] = []
    forward = Backbone.forward

    def counted(self: Backbone, images: torch.Tensor) -> list[torch.Tensor]:
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Backbone, "forward", counted)
    return seen


def test_features_of_a_batch_are_those_of_its_images(parts: list[int]) -> None:
    extractor = kizu.representation("random/resnet18@2,3").inference_copy("fp32")
    images = torch.rand(11, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    together = extractor(images)
    assert sorted(parts) == [1, 2, 2, 2, 2, 2]
    assert [tuple(level.shape) for level in together] == [(11, 128, 8, 8), (11, 256, 4, 4)]
    for number in range(11):
        for level, alone in zip(together, extractor(images[number : number + 1]), strict=True):
            torch.testing.assert_close(level[number : number + 1], alone, rtol=1e-4, atol=1e-5)


def test_patchcore_scores_a_batch_as_its_images(parts: list[int]) -> None:
    make = torch.Generator().manual_seed(1)
    good, images = (torch.rand(count, 3, 64, 64, generator=make) for count in (6, 40))
    detector = kizu.detector(
        "patchcore", "random/resnet18", image_size=64, precision="fp32", coreset=0.5, batch_size=40
    ).fit(good)
    parts.clear()
    together = detector.predict(images)
    assert parts == [4] * 10
    for number in (0, 1, 17, 39):
        alone = detector.predict(images[number : number + 1])
        torch.testing.assert_close(together.score[number : number + 1], alone.score, rtol=1e-4, atol=0)
        torch.testing.assert_close(together.map[number : number + 1], alone.map, rtol=1e-4, atol=1e-4)


def test_an_error_in_a_stream_is_the_users() -> None:
    extractor = kizu.representation("random/vit_tiny_patch16_224@6").inference_copy("fp32")
    with pytest.raises(ShapeError, match="patches"):
        extractor(torch.rand(16, 3, 60, 60))


def test_a_broken_image_is_named_from_its_stream() -> None:
    make = torch.Generator().manual_seed(2)
    detector = kizu.detector(
        "patchcore", "random/resnet18", image_size=64, precision="fp32", coreset=1.0
    ).fit(torch.rand(2, 3, 64, 64, generator=make))
    images = torch.rand(12, 3, 64, 64, generator=make)
    features = [level.clone() for level in detector._features(Batch(images))]
    features[1][9, 3] = float("nan")
    batch = Batch(
        images,
        paths=tuple(f"image {number}" for number in range(12)),
        rows=tuple(range(12)),
        features=features,
    )
    parts = batch.split(5)
    assert [part.paths[0] for part in parts] == ["image 0", "image 5", "image 10"]
    assert [part.rows for part in parts] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (10, 11)]
    assert parts[1].features is not None
    torch.testing.assert_close(parts[1].features[0], features[0][5:10])
    with pytest.raises(NotFinite, match="image 9"):
        detector.predict([batch])
