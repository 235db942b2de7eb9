"""kizu/starter: the embedded weights are there, small, named, and need no package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import kizu
from kizu.errors import UsageError
from kizu.representations.sources import STARTER_FOLDER, open_representation


def test_it_is_small_and_says_what_it_was_trained_on() -> None:
    size = sum(file.stat().st_size for file in STARTER_FOLDER.iterdir())
    assert size <= 12 * 2**20
    card = kizu.representation("kizu/starter").card
    assert card["trained_on"]
    assert card["recipe"]["objective"]
    assert "curve" not in card, "the loss curve stays in the file"


def test_detectors_take_the_levels_that_they_prefer_and_it_has() -> None:
    for name, levels in (("patchcore", "2,3"), ("padim", "1,2,3"), ("gaussian", "3")):
        card = kizu.detector(name, "kizu/starter").representation.card
        assert card["name"] == f"kizu/starter@{levels}"
    assert open_representation("kizu/starter@1").channels == (64,)
    with pytest.raises(UsageError, match="levels"):
        open_representation("kizu/starter@4")


def test_it_opens_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr("socket.create_connection", refuse)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    levels = kizu.representation("kizu/starter").eval()(images)
    assert [tuple(level.shape) for level in levels] == [(2, 64, 16, 16), (2, 128, 8, 8), (2, 256, 4, 4)]
    assert all(bool(level.isfinite().all()) for level in levels)


def test_a_model_on_it_is_kept_in_half_without_loss(tmp_path: Path) -> None:
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    model = kizu.detector("gaussian", "kizu/starter", image_size=64, precision="fp32").fit(images)
    path = model.save(tmp_path / "model.kizu")
    assert path.stat().st_size < 8 * 2**20
    again = kizu.load(path)
    assert torch.equal(again.predict(images).score, model.predict(images).score)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            again.representation.state_dict().values(),
            model.representation.state_dict().values(),
            strict=True,
        )
    )
