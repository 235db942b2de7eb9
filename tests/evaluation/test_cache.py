"""Cached features give the very numbers that images give, whatever the memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import kizu
from kizu.errors import EmptyData
from kizu.evaluation import cache as cache_module
from kizu.evaluation.cache import FeatureCache
from kizu.evaluation.predict import predict_all
from kizu.representations.sources import open_representation
from kizu.samples import Samples


@pytest.mark.parametrize("share", [0.35, 0.0])
@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.slow
def test_cached_is_computed(
    tiny_planted: Samples, share: float, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "MEMORY_SHARE", share)
    plain = kizu.detector("patchcore", "random/resnet10t@2,3", image_size=64, precision=precision).fit(
        tiny_planted.train
    )
    cache = FeatureCache()
    for _ in range(2):
        cached = plain.clone().fit(cache.require(plain, tiny_planted.train, []))
        assert torch.equal(cached.bank_, plain.bank_)
        seen = predict_all(cached, tiny_planted.test, source=cache.batches(cached, tiny_planted.test, []))
        assert seen.rows == list(range(24))
        assert torch.equal(torch.from_numpy(seen.scores), plain.predict(tiny_planted.test).score)
    assert bool(cache._maps) == (share > 0)


def test_another_representation_is_not_confused(tiny_planted: Samples) -> None:
    cache, images = FeatureCache(), tiny_planted.train.take(range(4))
    seeded = [
        open_representation("random/resnet10t@2", seed=seed) for seed in (0, 1)
    ]  # of one name, with other weights
    for net in ("random/resnet10t@1", *seeded):
        detector = kizu.detector("gaussian", net, image_size=64, precision="fp32")
        fitted = detector.fit(cache.require(detector, images, []))
        assert torch.allclose(fitted.mean_, detector.clone().fit(images).mean_, atol=1e-6)


def test_unreadable_images(tmp_path: Path, tiny_planted: Samples) -> None:
    import polars as pl

    (tmp_path / "empty.png").write_bytes(b"")
    bad = Samples(tiny_planted.train.table.head(1).with_columns(image=pl.lit(str(tmp_path / "empty.png"))))
    detector = kizu.detector("gaussian", "random/resnet10t@1", image_size=64)
    with pytest.raises(EmptyData, match="None of the 1"):
        FeatureCache().require(detector, bad, [])
    errors: list[tuple[str, str]] = []
    found = FeatureCache().require(detector, tiny_planted.train.take([0]).concat(bad), errors)
    assert [len(batch) for batch in found] == [1]
    assert [path for path, _ in errors] == bad.paths
