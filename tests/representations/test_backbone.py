"""Backbones: levels, grids, the frozen twin, weights from files, and what happens without a network."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import kizu
from kizu.accel.batch_norm_folding import fold_batch_norms
from kizu.engine import has_bf16
from kizu.errors import ModelFileError, ShapeError, UnknownName, UsageError, WeightsUnavailable
from kizu.representations import weights as weights_module
from kizu.representations.sources import open_representation, save_representation

NETWORKS = [
    "random/resnet10t@1,3",
    "random/convnext_atto@1,2",
    "random/vit_tiny_patch16_224@3,9",
    pytest.param("random/swin_tiny_patch4_window7_224@2,3", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_and_strides_are_what_comes_out(name: str) -> None:
    net = open_representation(name).eval()
    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        maps = net(images)
    assert [level.shape[1] for level in maps] == list(net.channels)
    assert [224 // level.shape[2] for level in maps] == list(net.strides)
    frozen = net.inference_copy("fp32")(images)
    assert all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))
        for a, b in zip(frozen, maps, strict=True)
    )
    if has_bf16(torch.device("cpu")):
        half = net.inference_copy("bf16")(images)
        assert all(
            ((a - b).norm() / b.norm()).item() < 0.03 and a.dtype == torch.float32
            for a, b in zip(half, maps, strict=True)
        )


def test_a_level_is_the_stage_of_its_stride() -> None:
    import timm

    drawn = open_representation("random/resnet18@2", seed=3)
    plain = timm.create_model("resnet18", pretrained=False).eval()
    plain.load_state_dict(drawn.net.state_dict(), strict=False)
    image = torch.rand(1, 3, 64, 64)
    normal = (image - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = plain.layer2(plain.layer1(plain.maxpool(plain.act1(plain.bn1(plain.conv1(normal))))))
        assert torch.allclose(drawn.eval()(image)[0], expected, atol=1e-5)


def test_images_smaller_than_a_cell_are_refused() -> None:
    net = open_representation("random/resnet10t@2,4").inference_copy("fp32")
    assert [tuple(level.shape[2:]) for level in net(torch.rand(1, 3, 32, 40))] == [(4, 5), (1, 2)]
    with pytest.raises(ShapeError, match="40 x 31 pixels are smaller than one cell"):
        net(torch.rand(1, 3, 40, 31))
    with pytest.raises(ShapeError, match="take larger images"):
        kizu.detector("gaussian", "random/resnet10t@4", image_size=16).fit(torch.rand(3, 3, 16, 16))


def test_tokens_go_back_to_their_place() -> None:
    """A change in one corner of the image changes the first block's tokens there most."""
    net = open_representation("random/vit_tiny_patch16_224@1").eval()
    image = torch.rand(1, 3, 96, 160)
    other = image.clone()
    other[:, :, :16, -16:] = 0
    with torch.no_grad():
        change = (net(image)[0] - net(other)[0]).norm(dim=1)[0]
    assert change.shape == (6, 10)
    assert divmod(int(change.argmax()), 10) == (0, 9)
    with pytest.raises(ShapeError, match="16 x 16 patches"):
        net(torch.rand(1, 3, 100, 160))


@pytest.mark.parametrize(
    ("architecture", "own", "other"),
    [
        ("swin_tiny_patch4_window7_224@1", 224, (256, 256)),
        ("swin_tiny_patch4_window7_224@1", 224, (224, 256)),
        ("maxvit_rmlp_pico_rw_256@2", 256, (224, 224)),
        ("halonet26t@3", 256, (224, 224)),
    ],
)
def test_a_network_of_fixed_size_says_which(architecture: str, own: int, other: tuple[int, int]) -> None:
    net = open_representation(f"random/{architecture}").eval()
    with torch.no_grad():
        with pytest.raises(ShapeError, match=rf"{other[0]} x {other[1]} pixels; .* image_size={own} "):
            net(torch.rand(1, 3, *other))
        assert net(torch.rand(1, 3, own, own))[0].shape[2] * net.strides[0] == own


def test_windows_that_divide_the_image_are_enough() -> None:
    net = open_representation("random/maxvit_rmlp_pico_rw_256@1").eval()
    with torch.no_grad():
        assert net(torch.rand(1, 3, 512, 512))[0].shape[2:] == (128, 128)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_detector_on_a_network_of_fixed_size(precision: str) -> None:
    import kizu

    model = kizu.detector("gaussian", "random/swin_tiny_patch4_window7_224@1", precision=precision)
    with pytest.raises(ShapeError, match="built for 224 x 224: say image_size=224"):
        model.fit(torch.rand(2, 3, 256, 256))


def test_another_fault_of_a_network_keeps_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    net = open_representation("random/swin_tiny_patch4_window7_224@1").eval()

    def fails(images: torch.Tensor) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(net.net, "forward", fails)
    with pytest.raises(RuntimeError, match="planted"):
        net(torch.rand(1, 3, 224, 224))


def test_preferred_levels_only_count_when_none_are_named() -> None:
    assert open_representation("random/resnet10t", levels=(1, 2)).levels == (1, 2)
    assert open_representation("random/resnet10t@3", levels=(1, 2)).levels == (3,)
    assert open_representation("random/vit_tiny_patch16_224", levels=(2, 3)).levels == (6, 9)
    of_imagenet = {"levels": (1, 2, 3), "imagenet_levels": (2, 3)}
    assert open_representation("random/resnet10t", **of_imagenet).levels == (1, 2, 3)
    assert open_representation(None, **of_imagenet).levels == (2, 3)
    assert open_representation("imagenet/efficientnet_lite0@1", **of_imagenet).levels == (1,)
    assert kizu.detector("padim").representation.levels == (2, 3)
    assert kizu.detector("padim", "random/resnet10t").representation.levels == (1, 2, 3)


def test_random_weights_are_a_seed(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    one, same, other = (open_representation("random/resnet10t@2", seed=seed) for seed in (1, 1, 2))
    assert weights_module.digest(one) == weights_module.digest(same) != weights_module.digest(other)
    torch.set_rng_state(before)


def test_folding_is_the_same_function() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4)
    ).eval()
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight)
    image = torch.rand(2, 3, 9, 9)
    folded = fold_batch_norms(copy.deepcopy(net), lambda net: net(image))
    assert torch.allclose(folded(image), net(image), atol=1e-5)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]


def test_weights_from_a_file(tmp_path: Path) -> None:
    source = open_representation("random/resnet10t@1,2,3", seed=7)
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(
        {name.removeprefix("net."): tensor for name, tensor in source.state_dict().items()}, path
    )
    opened = open_representation(f"resnet10t:{path}@1,2")
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(opened.eval()(image)[0], source.eval()(image)[0])
    assert opened.card["trained_on"] == ["unknown"]
    with pytest.raises(ModelFileError, match="not those of resnet18"):
        open_representation(f"resnet18:{path}@1")
    with pytest.raises(UsageError, match="say whose they are"):
        open_representation(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelFileError, match="damaged"):
        open_representation(f"resnet10t:{path}@1,2")
    with pytest.raises(ModelFileError, match=r"safetensors files only"):
        weights_module.file_state(tmp_path / "w.pth")


def test_saved_and_opened(tmp_path: Path) -> None:
    net = open_representation("random/resnet10t@1,2,3", seed=7)
    path = save_representation(net, tmp_path / "net.kizu")
    image = torch.rand(1, 3, 64, 64)
    again = kizu.representation(path).eval()
    assert again.card["name"] == net.card["name"]
    assert all(torch.equal(a, b) for a, b in zip(again(image), net.eval()(image), strict=True))
    assert len(open_representation(f"{path}@2").eval()(image)) == 1
    with pytest.raises(UsageError, match="saved with levels"):
        open_representation(f"{path}@4")


def test_without_a_network_one_sentence_names_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "_cached", lambda hub, filename: None)
    with pytest.raises(WeightsUnavailable) as told:
        kizu.representation("timm/wide_resnet50_2.tv_in1k@2,3")
    assert "\n" not in str(told.value)
    assert weights_module.DEFAULT in str(told.value)


def test_cached_weights_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import timm

    path = tmp_path / "model.safetensors"
    net = timm.create_model("resnet10t", pretrained=False)
    safetensors.torch.save_file(
        {name: tensor.contiguous() for name, tensor in net.state_dict().items()}, path
    )
    monkeypatch.setattr(weights_module, "_cached", lambda hub, filename: str(path))
    opened = kizu.representation("timm/resnet10t.c3_in1k@2")
    assert torch.equal(opened.net.state_dict()["conv1.0.weight"], net.state_dict()["conv1.0.weight"])
    assert opened.card["trained_on"] == ["imagenet-1k"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("timm/resnet19", UnknownName, "Did you mean 'resnet18'"),
        ("timm/resnet18.nonsense", UnknownName, "timm weights"),
        ("nothing", UnknownName, "no representation named 'nothing'"),
        ("random/resnet18@7", UsageError, r"has levels \[0, 1, 2, 3, 4\]"),
        ("random/resnet18@x", UsageError, "After @ come the levels"),
        ("random/resnet18@3,2", UsageError, "rising order"),
        ("random/vit_tiny_patch16_224@13", UsageError, "blocks 1 to 12"),
    ],
)
def test_names_that_mean_nothing(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kizu.representation(name)


def test_random_weights_that_were_changed_are_saved(tmp_path: Path) -> None:
    """A pass in training mode moves the statistics of batch norm: the file of a model fitted on them did not
    open any more, for they were to be drawn again."""
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = kizu.detector("gaussian", "random/resnet10t@1", image_size=64, precision="fp32")
    model.fit(images)
    assert model.representation.state() == {}, "as they are drawn"
    model.representation.train()(images)
    model.representation.eval()
    model.fit(images)
    due = model.predict(images).score
    assert torch.equal(kizu.load(model.save(tmp_path / "m.kizu")).predict(images).score, due)


@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "mobilenetv3_small_050", "resnet10t"])
def test_stages_after_the_last_level_are_cut_off(architecture: str) -> None:
    """timm runs all stages of some networks, whichever are asked for."""
    whole = open_representation(f"random/{architecture}@1,2,3,4").eval()
    part = open_representation(f"random/{architecture}@1,2").eval()
    assert sum(map(torch.numel, part.parameters())) < 0.4 * sum(map(torch.numel, whole.parameters()))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for found, due in zip(part(image), whole(image)[:2], strict=True):
        assert torch.equal(found, due)
