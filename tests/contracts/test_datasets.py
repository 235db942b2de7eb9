"""What every data set owes: called with a path first, it gives Samples, and it names licence, citation and
home."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from trees import TREES

from kizu import registry
from kizu.loader import batches, masks_for
from kizu.samples import Samples

NAMES = registry.names("datasets")
PARAMETERS: dict[str, dict[str, object]] = {
    "planted": {"products": "all", "train": 2, "test_good": 1, "test_defective": 1, "size": 32},
}
"""Arguments that keep a data set tiny."""


@pytest.fixture(scope="module", params=NAMES)
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Samples]:
    name = request.param
    assert name in TREES, (
        f"tests/trees.py has no builder for the data set '{name}': write one and add it to TREES."
    )
    root = tmp_path_factory.mktemp(name) / "data"
    root.mkdir()
    TREES[name](root)
    return name, root, registry.load("datasets", name)(root, **PARAMETERS.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_signature_and_words(name: str) -> None:
    module = registry.module("datasets", name)
    first, *others = inspect.signature(registry.load("datasets", name)).parameters.values()
    assert first.name == "path"
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in others)
    assert all(parameter.default is not inspect.Parameter.empty for parameter in others)
    assert module.LICENCE
    assert isinstance(module.CITATION, str)
    assert isinstance(module.HOMEPAGE, str)
    assert getattr(module, "MASK_RULE", "half") in ("half", "nonzero", "folder")
    assert registry.summary("datasets", name)


def test_samples(built: tuple[str, Path, Samples]) -> None:
    name, root, samples = built
    assert isinstance(samples, Samples)
    assert len(samples)
    assert len(samples.normal)
    assert samples.table["dataset"].unique().to_list() == [name]
    for column in ("image", "mask"):
        paths = samples.table[column].drop_nulls().to_list()
        assert all(Path(path).is_file() for path in paths)
        assert all(Path(path).is_relative_to(root) for path in paths)
    assert samples.table["image"].is_unique().all()
    assert not set(samples.train.paths) & set(samples.test.paths)
    assert samples.where(split="train").anomalous.paths == []


def test_same_again(built: tuple[str, Path, Samples]) -> None:
    name, root, samples = built
    assert registry.load("datasets", name)(root, **PARAMETERS.get(name, {})) == samples
    assert registry.load("datasets", name)(str(root), **PARAMETERS.get(name, {})) == samples


def test_images_and_masks_can_be_read(built: tuple[str, Path, Samples]) -> None:
    _, _, samples = built
    assert sum(len(batch) for batch in batches(samples, image_size=(16, 16))) == len(samples)
    anomalous = samples.pixel_labelled.anomalous
    if len(anomalous):
        assert masks_for(anomalous, (32, 32)).any(axis=(1, 2)).all()
