"""What every detector owes its users, on every kind of representation; a new file in detectors/ is picked up
by itself."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kizu
from kizu import registry
from kizu.detectors.base import Detector
from kizu.detectors.learned import LearnedDetector
from kizu.detectors.runtime import build, parameter_names
from kizu.errors import EmptyData, ModelFileError, NotFinite, NotFitted, ShapeError, TooFewImages, UsageError
from kizu.metrics.image_metrics import image_metrics
from kizu.representations.base import Representation
from kizu.representations.sources import open_representation, save_representation
from kizu.representations.weights import file_state
from kizu.samples import Samples
from kizu.training import FitOptions
from kizu.types import Batch

SIZE = 64
KINDS = ("random", "timm")
FOUND_BY_DEFAULT = (
    *("simplenet", "classifier", "csi", "tdg", "cflow", "differnet", "autoencoder", "vae", "uniad"),
    *("glass", "feature_norm"),
)
"""What these find is tested on the default representation, in tests/detectors: random features do not do for
them (tdg looks at no features: on the product of these tests its scores do, its maps see no flat ground)."""
BRIEF = 3
"""Steps of a training of which the way is tested, not what it finds."""
ADAPTED = ("patchcore", "padim", "gaussian", "simplenet", "feature_norm", "glass")


@pytest.fixture(scope="module")
def representations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Representation]:
    """random: drawn from a seed. timm: a network whose weights came from a file, as trained ones do, so that
    a model must carry them."""
    drawn = open_representation("random/resnet18@2,3")
    path = tmp_path_factory.mktemp("weights") / "resnet10t.safetensors"
    source = open_representation("random/resnet10t@2,3", seed=5)
    import safetensors.torch

    safetensors.torch.save_file(
        {name.removeprefix("net."): tensor for name, tensor in source.state_dict().items()}, path
    )
    assert file_state(path)
    starter = open_representation("kizu/starter@2,3")
    return {"random": drawn, "timm": open_representation(f"resnet10t:{path}@2,3"), "starter": starter}


def training(kind: type[Detector], samples: Samples) -> Samples:
    """What a detector of this kind learns from: good images, or labelled ones of both kinds."""
    if kind.supervision == "normal":
        return samples.train
    return samples.train.take(range(12)).concat(samples.test.anomalous)


def learned_from(kind: type[Detector], count: int) -> list[Batch]:
    """Random images as batches; a kind that learns from labels gets every second one as anomalous."""
    labels = None if kind.supervision == "normal" else torch.arange(count) % 2
    return [Batch(images(count), labels=labels)]


def detectors() -> list[Any]:
    """All of them; those that train a network are `slow`."""
    names = registry.names("detectors")
    return [
        pytest.param(name, marks=pytest.mark.slow)
        if issubclass(registry.load("detectors", name), LearnedDetector)
        else name
        for name in names
    ]


@pytest.fixture(scope="module", params=detectors())
def kind(request: pytest.FixtureRequest) -> type[Detector]:
    return registry.load("detectors", request.param)


@pytest.fixture(scope="module", params=KINDS)
def fitted(
    request: pytest.FixtureRequest,
    kind: type[Detector],
    representations: dict[str, Representation],
    tiny_planted: Samples,
) -> Detector:
    net = representations[request.param]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    detector = kind.tiny(net)
    assert detector.fit(training(kind, tiny_planted)) is detector
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items()), (
        "fit changed the representation"
    )
    return detector


def brief(detector: Detector) -> Detector:
    """The same, not fitted, of BRIEF steps where it trains."""
    steps = {"iterations": BRIEF} if isinstance(detector, LearnedDetector) else {}
    parameters = {**detector.parameters, **steps}
    return build(type(detector), detector.representation, parameters, adaptation=detector.adaptation)


@pytest.fixture(scope="module")
def briefly(fitted: Detector, tiny_planted: Samples) -> Detector:
    """`fitted`, or another one that was trained for BRIEF steps. Tests leave it as it is."""
    if not isinstance(fitted, LearnedDetector):
        return fitted
    return brief(fitted).fit(training(type(fitted), tiny_planted))


def skip_where_random_features_do_not_do(kind: type[Detector]) -> None:
    if kind.__module__.rpartition(".")[2] in FOUND_BY_DEFAULT:
        pytest.skip("tested on the default representation in tests/detectors")


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def test_prediction_has_the_promised_shape(fitted: Detector) -> None:
    prediction = fitted.predict(images(3))
    assert prediction.map.shape == (3, SIZE, SIZE)
    assert prediction.score.shape == (3,)
    assert prediction.map.dtype == prediction.score.dtype == torch.float32
    assert torch.isfinite(prediction.map).all()
    assert torch.isfinite(prediction.score).all()
    assert prediction.p_value is None
    assert prediction.is_anomalous is None


def test_a_planted_defect_is_found(fitted: Detector, tiny_planted: Samples) -> None:
    """Good against foreign: half the image painted over must score above every good test image."""
    skip_where_random_features_do_not_do(type(fitted))
    good = fitted.predict(tiny_planted.test.normal)
    defective = torch.stack([open_tensor(path) for path in tiny_planted.test.normal.paths])
    defective[:, :, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.8])[:, None, None]
    foreign = fitted.predict(defective)
    assert foreign.score.min() > good.score.max()
    inside, outside = foreign.map[:, 16:48, 16:48].mean(), foreign.map[:, :8].mean()
    assert inside > outside


def every_way(samples: Samples) -> list[Any]:
    """Labelled images as Samples, as batches of images, and as batches of features alone."""
    batch = Batch(images(len(samples)), labels=torch.tensor(samples.labels))
    features = Batch(features=[torch.zeros(len(samples), 8, 4, 4)], labels=batch.labels, size=(SIZE, SIZE))
    return [samples, [batch], iter(batch.split(4)), [features]]


def open_tensor(path: str) -> torch.Tensor:
    from kizu.images import open_image

    return torch.from_numpy(open_image(path)).permute(2, 0, 1).float() / 255


def test_better_than_chance_on_real_flaws(fitted: Detector, tiny_planted: Samples) -> None:
    skip_where_random_features_do_not_do(type(fitted))
    prediction = fitted.predict(tiny_planted.test)
    found = image_metrics(prediction.score, tiny_planted.test.labels)["auroc"]
    assert found > 0.55, "a method that random features do not do for joins FOUND_BY_DEFAULT above"


def test_same_data_same_result(briefly: Detector, tiny_planted: Samples) -> None:
    again = briefly.clone().fit(training(type(briefly), tiny_planted))
    assert torch.equal(again.predict(images(2)).score, briefly.predict(images(2)).score)
    assert torch.equal(again.predict(images(2)).map, briefly.predict(images(2)).map)


def test_a_batch_is_its_images(fitted: Detector) -> None:
    together, single = fitted.predict(images(4)), [fitted.predict(images(4)[i : i + 1]) for i in range(4)]
    assert torch.allclose(together.score, torch.cat([one.score for one in single]), rtol=1e-3, atol=1e-3)
    assert torch.allclose(together.map, torch.cat([one.map for one in single]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["model.kizu", "model"])
def test_save_and_load_give_the_same_output(
    fitted: Detector, tiny_planted: Samples, tmp_path: Path, name: str
) -> None:
    fitted.set_calibration(fitted.predict(tiny_planted.test.normal).score, 0.25, map_range=(0.0, 2.0))
    try:
        path = fitted.save(tmp_path / name)
        loaded = kizu.load(path)
        expected, got = fitted.predict(images(3)), loaded.predict(images(3))
    finally:
        expected_calibration, fitted.decision_ = fitted.decision_, None
    assert type(loaded) is type(fitted)
    assert loaded.parameters == fitted.parameters
    assert torch.equal(got.score, expected.score)
    assert torch.equal(got.map, expected.map)
    assert torch.equal(got.p_value, expected.p_value)
    assert torch.equal(got.is_anomalous, expected.is_anomalous)
    assert loaded.decision_.map_range == expected_calibration.map_range


def test_batches_and_tensors_are_as_good_as_files(briefly: Detector, tiny_planted: Samples) -> None:
    samples = training(type(briefly), tiny_planted)
    stacked = torch.stack([open_tensor(path) for path in samples.paths])
    whole = Batch(stacked, labels=torch.tensor(samples.labels))
    from_tensor = briefly.clone().fit(stacked if briefly.supervision == "normal" else whole)
    from_batches = briefly.clone().fit(iter(whole.split(briefly.batch_size)))
    score = briefly.predict(images(2)).score
    assert torch.allclose(from_tensor.predict(images(2)).score, score, rtol=1e-3)
    assert torch.equal(from_tensor.predict(images(2)).score, from_batches.predict(images(2)).score)


def test_misuse_teaches(fitted: Detector, tiny_planted: Samples, tmp_path: Path) -> None:
    fresh = fitted.clone()
    with pytest.raises(NotFitted, match=r"call \.fit"):
        fresh.predict(images(1))
    with pytest.raises(NotFitted):
        fresh.save(tmp_path / "m")
    if fresh.supervision == "normal":
        for flawed in every_way(tiny_planted.test):
            with pytest.raises(UsageError, match="good images only"):
                fresh.fit(flawed)
    with pytest.raises(EmptyData):
        fresh.fit([])
    with pytest.raises(UsageError, match=r"in \[0, 1\]"):
        fitted.predict(images(1) * 255)
    with pytest.raises(ShapeError, match=r"\(B, 3, H, W\)"):
        fitted.predict(torch.zeros(1, 1, SIZE, SIZE))
    with pytest.raises(UsageError, match="Divide"):
        fitted.predict(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8))


def skip_where_it_looks_at_pixels_alone(kind: type[Detector], net: Representation) -> None:
    if kind.tiny(net).representation is not net:
        pytest.skip("it takes no other representation than pixels")


def test_broken_weights_are_named(kind: type[Detector], representations: dict[str, Representation]) -> None:
    import copy

    skip_where_it_looks_at_pixels_alone(kind, representations["random"])
    broken = copy.deepcopy(representations["random"])
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(NotFinite, match="random/resnet18"):
        kind.tiny(broken).fit(learned_from(kind, 4))


def test_one_good_image_is_enough_to_begin(
    kind: type[Detector], representations: dict[str, Representation]
) -> None:
    skip_where_random_features_do_not_do(kind)
    detector = kind.tiny(representations["random"]).fit(images(1))
    same, other = detector.predict(images(1)), detector.predict(images(1, seed=9))
    assert torch.isfinite(other.score).all()
    assert other.score.item() > same.score.item()


def test_unreadable_files_cost_themselves(briefly: Detector, tiny_planted: Samples, tmp_path: Path) -> None:
    bad = tmp_path / "cut.png"
    bad.write_bytes(Path(tiny_planted.paths[0]).read_bytes()[:200])
    prediction = briefly.predict([tiny_planted.paths[0], bad, tiny_planted.paths[1]])
    assert len(prediction) == 2
    assert prediction.paths == (tiny_planted.paths[0], tiny_planted.paths[1])
    assert prediction.errors[0][0] == str(bad)
    samples = training(type(briefly), tiny_planted)
    broken = Samples(samples.table.head(1).with_columns(image=bad_column(bad)))
    again = briefly.clone().fit(samples.concat(broken))
    assert [path for path, _ in again.skipped_] == [str(bad)]


def bad_column(path: Path) -> object:
    import polars as pl

    return pl.lit(str(path))


def test_every_parameter_is_kept(kind: type[Detector], representations: dict[str, Representation]) -> None:
    detector = kind.tiny(representations["random"])
    assert set(detector.parameters) == set(parameter_names(kind)), (
        "every keyword is stored under its own name"
    )


@pytest.mark.slow
def test_a_model_with_a_wrong_shape(fitted: Detector, tmp_path: Path) -> None:
    from kizu import store

    path = fitted.save(tmp_path / "m")
    tensors, card = store.load(path)
    names = [name for name, tensor in tensors.items() if name.startswith("detector.") and tensor.ndim > 1]
    for name in names[:: -(-len(names) // 5)] if names else []:  # a network has many: five of them
        tensor = tensors[name]
        wrong = {**tensors, name: tensor[..., :-1].contiguous()}
        store.save(tmp_path / "wrong", wrong, card, overwrite=True)
        with pytest.raises((ModelFileError, ShapeError)):
            kizu.load(tmp_path / "wrong").predict(images(1))
    missing = {name: tensor for name, tensor in tensors.items() if not name.startswith("detector.")}
    store.save(tmp_path / "wrong", missing, card, overwrite=True)
    with pytest.raises(ModelFileError, match="missing"):
        kizu.load(tmp_path / "wrong")
    store.save(
        tmp_path / "wrong",
        tensors,
        {**card, "parameters": {**card["parameters"], "colour": 1}},
        overwrite=True,
    )
    with pytest.raises(ModelFileError, match="colour"):
        kizu.load(tmp_path / "wrong")


def test_numpy_images(fitted: Detector) -> None:
    array = images(1).numpy()
    assert np.allclose(fitted.predict(array).score, fitted.predict(images(1)).score)


@pytest.mark.slow
def test_representation_of_another_kind_still_fits(kind: type[Detector], tmp_path: Path) -> None:
    """A vision transformer's tokens on their grid, saved and opened again."""
    saved = save_representation(open_representation("random/vit_tiny_patch16_224@4,8"), tmp_path / "vit")
    detector = brief(kind.tiny(saved)).fit(learned_from(kind, 6))
    assert torch.isfinite(detector.predict(images(1, seed=3)).score).all()


@pytest.mark.usefixtures("two_threads")
def test_two_threads_give_the_same(fitted: Detector) -> None:
    """Batches are then split between threads, and each image is scored as alone."""
    batch = images(12)
    together = fitted.predict(batch)
    torch.set_num_threads(1)
    alone = fitted.predict(batch)
    assert torch.allclose(together.score, alone.score, rtol=1e-3, atol=1e-3)
    assert torch.allclose(together.map, alone.map, rtol=1e-3, atol=1e-3)


def test_the_scorer_is_a_plain_module(fitted: Detector) -> None:
    """FeatureMaps -> (map, score), on the CPU, without the detector: what is exported."""
    scorer = fitted.scorer().eval()
    assert isinstance(scorer, torch.nn.Module)
    features = fitted._features(Batch(images(2)))
    with torch.inference_mode():
        map_, score = scorer(features, (SIZE, SIZE))
    expected = fitted.predict(images(2))
    assert torch.allclose(map_.float(), expected.map, rtol=1e-4, atol=1e-4)
    assert torch.allclose(score.float(), expected.score, rtol=1e-4, atol=1e-4)


def test_features_alone_are_enough_or_refused(fitted: Detector) -> None:
    features = Batch(features=fitted._features(Batch(images(2))), size=(SIZE, SIZE))
    if fitted.takes_features:
        assert torch.allclose(fitted.predict([features]).score, fitted.predict(images(2)).score)
    else:
        with pytest.raises(UsageError, match="without the images"):
            fitted.predict([features])
        with pytest.raises(UsageError, match="without the images"):
            fitted.clone().fit([features])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("base", ["random", "timm", "starter"])
@pytest.mark.parametrize("name", ADAPTED)
def test_an_adapted_model_is_saved_and_opened_with_every_base(
    name: str, base: str, precision: str, representations: dict[str, Representation], tmp_path: Path
) -> None:
    small = brief(kizu.registry.load("detectors", name).tiny("random/resnet10t@2"))
    chosen = {**small.parameters, "precision": precision}
    adaptation = kizu.Adaptation("residual", {"shots": 2})
    detector = kizu.detector(name, representations[base], adaptation=adaptation, **chosen).fit(images(8))
    assert detector.representation is representations[base]
    assert detector.representation_.card["kind"] == "residual"
    loaded = kizu.load(detector.save(tmp_path / "model.kizu"))
    assert torch.equal(loaded.predict(images(3, 7)).map, detector.predict(images(3, 7)).map)
    assert loaded.clone().adaptation == adaptation
    assert loaded.clone().representation.card["kind"] == "backbone"


def test_options_without_effect_are_refused(fitted: Detector, tmp_path: Path) -> None:
    options = FitOptions(folder=tmp_path / "run")
    for useless in ({"resume": True}, {"checkpoint_every": 3}, {"evaluate_every": 3}):
        with pytest.raises(UsageError, match=r"folder|evaluate"):
            FitOptions(**useless)
    if isinstance(fitted, LearnedDetector):
        pytest.skip("it trains: options have an effect, see the tests of resuming")
    with pytest.raises(UsageError, match="one pass"):
        fitted.clone().fit(images(2), options=options)
    assert not (tmp_path / "run").exists()


def test_a_clone_starts_from_the_base(
    kind: type[Detector], representations: dict[str, Representation]
) -> None:
    net = representations["random"]
    skip_where_it_looks_at_pixels_alone(kind, net)
    if kind.supervision == "labelled":
        pytest.skip("adapted to good images of both parts in the same way")
    adaptation = kizu.Adaptation("residual", {"shots": 2})
    detector = brief(kind.tiny(net, adaptation=adaptation)).fit(images(6))
    if detector.learns_from_features:
        with pytest.raises(TooFewImages, match="smaller number of shots"):
            kind.tiny(net, adaptation="residual").fit(images(6))
    assert detector.representation is net
    assert detector.representation_ is not net
    twin = detector.clone()
    assert twin.representation is net
    assert twin.representation_ is net
    assert twin.adaptation == detector.adaptation


@pytest.mark.parametrize("name", registry.names("detectors"))
def test_a_switch_is_true_or_false(name: str) -> None:
    """A text is true to Python, whatever it says."""
    parameters = inspect.signature(registry.load("detectors", name)).parameters.values()
    for parameter in parameters:
        if isinstance(parameter.default, bool):
            with pytest.raises(UsageError, match=f"{parameter.name} is True or False"):
                kizu.detector(name, "random/resnet10t@2,3", **{parameter.name: "no"})


def test_options_of_a_fit_are_checked() -> None:
    for given in ({"evaluate": 3}, {"progress": "yes"}, {"folder": 3}, {"resume": "no", "folder": "x"}):
        with pytest.raises(UsageError, match=next(iter(given))):
            FitOptions(**given)  # type: ignore[arg-type]
