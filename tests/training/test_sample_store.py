"""Samples kept for many passes: bit for bit, in an order that the position decides, from disk past the
budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from kizu.errors import ShapeError, UsageError
from kizu.training import Position, SampleStore
from kizu.types import Batch


def images(count: int, seed: int = 0, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def written(image: torch.Tensor, path: Path) -> str:
    values = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(values).save(path)
    return str(path)


def test_images_come_back_bit_for_bit(tmp_path: Path) -> None:
    eight, fine = (images(3) * 255).round() / 255, images(2, seed=1)
    store = SampleStore()
    for part in (eight, fine):
        store.add(Batch(part))
    assert torch.equal(store.take([0, 2, 4]).require_images(), torch.stack([eight[0], eight[2], fine[1]]))
    kept = [sample.values for sample in store._samples]
    assert [values.dtype for values in kept if isinstance(values, torch.Tensor)] == [torch.uint8] * 3 + [
        torch.float32
    ] * 2
    path = written(eight[0], tmp_path / "a.png")
    lean = SampleStore(budget=0)
    lean.add(Batch(eight[:1], paths=(path,)))
    assert lean._samples[0].values is None
    assert torch.equal(lean.take([0]).require_images(), eight[:1])
    with pytest.raises(ShapeError, match="one size"):
        store.add(Batch(images(1, size=16)))


def test_every_image_once_in_a_pass() -> None:
    store = SampleStore()
    store.add(Batch(torch.arange(5.0).div(8).reshape(5, 1, 1, 1).expand(5, 3, 2, 2)))

    def numbers(step: int) -> list[int]:
        streamed = store.stream(Position(step, 3 * step, 3), seed=2)["images"]
        assert isinstance(streamed, torch.Tensor)
        return streamed[:, 0, 0, 0].mul(8).int().tolist()

    seen = [numbers(step) for step in range(5)]
    flat = [value for part in seen for value in part]
    assert all(sorted(flat[start : start + 5]) == list(range(5)) for start in (0, 5, 10))
    assert flat[:5] != flat[5:10] or flat[5:10] != flat[10:15]
    assert numbers(1) == seen[1]


def test_features_are_computed_once_or_again_past_the_budget(tmp_path: Path) -> None:
    calls: list[int] = []

    def extract(given: torch.Tensor) -> list[torch.Tensor]:
        calls.append(len(given))
        return [given.mean((2, 3), keepdim=True), given[:, :1]]

    eight = (images(2) * 255).round() / 255
    paths = tuple(written(image, tmp_path / f"{n}.png") for n, image in enumerate(eight))
    for budget, more in ((None, 0), (0, 2)):
        calls.clear()
        store = SampleStore(extract, budget=budget)
        store.add(Batch(eight, paths=paths))
        features = store.take([1, 0]).features
        assert features is not None
        assert torch.allclose(features[0], eight[[1, 0]].mean((2, 3), keepdim=True))
        assert torch.equal(features[1], eight[[1, 0], :1])
        assert len(calls) == 1 + more
    ready = SampleStore(extract)
    ready.add(Batch(features=[torch.ones(2, 4, 1, 1)], size=(8, 8)))
    assert "images" not in ready.stream(Position(0, 0, 2), seed=0)


def test_labels_and_masks_stay_with_their_images() -> None:
    masks = torch.rand(4, 32, 32) > 0.5
    store = SampleStore()
    store.add(Batch(images(4), labels=torch.tensor([0, 1, -1, 0]), masks=masks))
    batch = store.take([1, 3])
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 0]
    assert batch.masks is not None
    assert torch.equal(batch.masks, masks[[1, 3]])
    good = store.good()
    assert len(good) == 3
    assert torch.equal(good.take([1]).require_images(), images(4)[2:3])


def test_images_are_needed_where_there_is_nothing_to_extract_from() -> None:
    with pytest.raises(UsageError, match="without the images"):
        SampleStore().add(Batch(features=[torch.zeros(1, 2, 2, 2)], size=(8, 8)))


def test_digests_tell_images_apart(tmp_path: Path) -> None:
    eight = (images(2) * 255).round() / 255
    path = written(eight[0], tmp_path / "a.png")
    store, other = SampleStore(), SampleStore()
    store.add(Batch(eight[:1], paths=(path,)))
    store.add(Batch(eight))
    other.add(Batch(eight[:1], paths=(written(eight[0], tmp_path / "b.bmp"),)))
    first, second, third = store.digests()
    assert first == other.digests()[0]
    assert second != third
