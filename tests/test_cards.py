"""What a card may say: a valid one of each kind passes, and each field out of its bounds is named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from torch import nn

import kizu
from kizu import cards, registry, store
from kizu.detectors.simplenet import SimpleNet
from kizu.errors import ModelFileError, UsageError
from kizu.representations.sources import open_representation, save_representation

NET = "random/test_resnet@1,2"


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated PatchCore on residuals, as a folder."""
    from kizu.adaptation.base import Adaptation

    detector = kizu.detector("patchcore", NET, adaptation=Adaptation("residual", {"shots": 1}), image_size=64)
    detector.fit(images(4)).set_calibration([0.1, 0.2, 0.3, 0.4], 0.25)
    return detector.save(tmp_path_factory.mktemp("model") / "model")


def changed(card: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy of the card with another value at a dotted place."""
    card = copy.deepcopy(card)
    *owners, last = place.split(".")
    owner = card
    for name in owners:
        owner = owner[name]
    owner[last] = value
    return card


def test_fields_of_another_kind_are_documentation(model: Path, tmp_path: Path) -> None:
    tensors, card = store.load(model)
    for value in (1, "x", {"a": 1}, [1]):
        path = store.save(
            tmp_path / "m", tensors, changed(card, "representation.base.parts", value), overwrite=True
        )
        assert len(kizu.load(path).predict(images(1))) == 1


DEEP: dict[str, Any] = {"kind": "stacked", "name": "x", "parts": [{"kind": "other", "name": "x"}] * 9}
FAULTS = [
    ("detector", "../../x", "detector"),
    ("detector", 3, "detector"),
    ("images", -1, "images"),
    ("images", 1.0, "images"),
    ("images", True, "images"),
    ("size", [64], "size"),
    ("size", [64, 64.5], "size.1"),
    ("seen", {"fitted": []}, "seen.calibrated is not there"),
    ("seen.fitted", ["xyz"], "seen.fitted.0"),
    ("calibration", 1, "calibration is 1"),
    ("parameters.sigma", 1000.5, "parameters.sigma is 1000.5"),
    ("parameters.neighbourhood", 10**6, "parameters.neighbourhood"),
    ("parameters.dimensions", 10**9, "parameters.dimensions"),
    ("parameters.batch_size", 10**9, "parameters.batch_size"),
    ("parameters.batch_size", 65_536, "parameters"),  # times 64 x 64 pixels it is just as much as may be
    ("parameters.image_size", [8192, 8192], "parameters"),
    ("parameters.image_size", [64, 10**6], "parameters.image_size.1"),
    ("parameters.seed", -1, "parameters.seed"),
    ("parameters.memory", 1e13, "parameters.memory"),
    ("parameters.selection", "x" * 201, "parameters.selection"),
    ("parameters.projection", "128", "parameters.projection"),
    ("adaptation.name", "os.system", "adaptation.name"),
    ("adaptation.parameters", {"shots": {"a": [1]}}, "adaptation.parameters.shots"),
    ("calibration.false_alarm_rate", 1.5, "calibration.false_alarm_rate"),
    ("calibration.method", "none", "calibration.method"),
    ("calibration.map_range", [0.0], "calibration.map_range"),
    ("representation.kind", ["backbone"], "representation.kind"),
    ("representation.shots", "many", "representation.shots"),
    ("representation.base.architecture", "hf-hub:timm/resnet18.a1_in1k", "representation.base.architecture"),
    ("representation.base.architecture", "local-dir:/tmp/net", "representation.base.architecture"),
    ("representation.base.levels", [], "representation.base.levels"),
    ("representation.base.levels", [2.0], "representation.base.levels.0"),
    ("representation.base.source", "hub", "representation.base.source"),
    ("representation.base.seed", 2**63, "representation.base.seed"),
    ("representation.base.name", None, "representation.base.name"),
    ("representation.base", {**DEEP, "parts": [DEEP, DEEP]}, "more than 16 representations"),
]


@pytest.mark.parametrize(("place", "value", "said"), FAULTS)
def test_a_field_out_of_its_bounds_is_named(
    model: Path, tmp_path: Path, place: str, value: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the weights are even read."""
    tensors, card = store.load(model)
    card = changed(card, place, value)
    if (place, value) == ("parameters.batch_size", 65_536):
        card["parameters"]["image_size"] = [64, 65]
    path = store.save(tmp_path / "spoiled", tensors, card)
    monkeypatch.setattr(store, "load_tensors", lambda path: pytest.fail("the weights were read"))
    with pytest.raises(ModelFileError, match=rf"spoiled.*{said.replace('.', '[.]')}"):
        kizu.load(path)


@pytest.mark.parametrize(
    "field", ["detector", "parameters", "adaptation", "calibration", "images", "size", "seen"]
)
def test_a_field_that_is_not_there(model: Path, field: str) -> None:
    card = store.load_card(model)
    del card[field]
    with pytest.raises(ModelFileError, match=f"the card's {field} is not there"):
        cards.check(card, "detector", model)


def test_the_card_itself_passes_and_may_say_more(model: Path) -> None:
    card = store.load_card(model)
    cards.check(card, "detector", model)
    cards.check({**card, "notes": {"by": ["me"]}}, "detector", model)
    cards.check(changed(card, "parameters.batch_size", 65_536), "detector", model)
    with pytest.raises(ModelFileError, match=r"holds a detector, not a representation"):
        cards.check(card, "representation", model)


@pytest.mark.parametrize("name", registry.names("detectors"))
def test_the_parameters_of_every_detector_pass(name: str) -> None:
    kind = registry.load("detectors", name)
    for detector in (kind("pixels" if name == "tdg" else NET), kind.tiny(NET)):
        cards.check_parameters(detector.parameters)


def test_a_fit_that_could_not_be_opened_again_is_refused_before_it() -> None:
    detector = kizu.detector("gaussian", NET, sigma=5000.0)
    with pytest.raises(UsageError, match=r"The parameter sigma is 5000[.]0 .*less than or equal to 1000"):
        detector.fit("a folder that is not there")


# Sizes in the card and in the tensors


def test_a_bank_of_another_width(model: Path, tmp_path: Path) -> None:
    tensors, card = store.load(model)
    path = store.save(tmp_path / "m", tensors, changed(card, "parameters.dimensions", 4096))
    with pytest.raises(ModelFileError, match=r"bank must have shape \(N, 4096\)"):
        kizu.load(path)


@pytest.mark.parametrize("hidden", [8, 65_536])
def test_a_network_of_another_width_takes_no_memory(hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = SimpleNet(NET, hidden=4), SimpleNet(NET, hidden=hidden)
    small._set_network(small.network(), 1)
    built, network = [], SimpleNet.network

    def noted(self: SimpleNet) -> nn.Module:
        built.append(torch.get_default_device().type)
        return network(self)

    monkeypatch.setattr(SimpleNet, "network", noted)
    with pytest.raises(ModelFileError, match=r"discriminator[.]0[.]weight must have shape"):
        large._restore(small._state())
    assert built == ["meta"]


def test_an_architecture_that_the_weights_are_not_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    path = save_representation(open_representation(trained(tmp_path)), tmp_path / "saved")
    tensors, card = store.load(path)
    store.save(path, tensors, changed(card, "representation.architecture", "resnet152"), overwrite=True)
    create, places = timm.create_model, []

    def noted(*arguments: Any, **settings: Any) -> Any:
        places.append(torch.get_default_device().type)
        return create(*arguments, **settings)

    monkeypatch.setattr(timm, "create_model", noted)
    with pytest.raises(ModelFileError, match="not those of resnet152"):
        open_representation(path)
    assert set(places) == {"meta"}


def test_a_network_larger_than_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6))
    with pytest.raises(UsageError, match=r"test_resnet takes 2 x 0[.]00 GiB of memory .* GiB are free"):
        open_representation(NET)


def trained(folder: Path) -> str:
    """A network with weights of a file."""
    import safetensors.torch

    state = open_representation(NET).state_dict()
    safetensors.torch.save_file(
        {name.removeprefix("net."): value for name, value in state.items()}, folder / "w.safetensors"
    )
    return f"test_resnet:{folder / 'w.safetensors'}@1,2"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.fill_(torch.nan), "holds NaN"),
        (lambda value: value.long(), None),
        (lambda value: value.half(), None),
    ],
)
def test_weights_of_other_numbers(
    tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor], said: str | None
) -> None:
    """Other types are converted; NaN is found when the file is opened, not when it is used."""
    detector = kizu.detector("gaussian", trained(tmp_path), image_size=64).fit(images(3))
    tensors, card = store.load(detector.save(tmp_path / "m"))
    for name in ("representation.net.conv1.0.weight", "detector.mean"):
        spoiled = {**tensors, name: change(tensors[name].clone())}
        path = store.save(tmp_path / "spoiled", spoiled, card, overwrite=True)
        if said:
            with pytest.raises(ModelFileError, match=f"{name}.*{said}"):
                kizu.load(path)
        else:
            assert kizu.load(path).predict(images(1)).score.isfinite().all()
