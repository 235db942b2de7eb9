"""Reverse distillation and ReContrast: where gradients go, what each variant of the ablation is, and that
training can stop and go on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import kizu
from kizu import maps, store
from kizu.detectors._objective import ReconstructionObjective
from kizu.detectors.reconstruction import ReconstructionDetector, has_both_signs
from kizu.detectors.recontrast import ABLATIONS, ReContrast
from kizu.detectors.reverse_distillation import ReverseDistillation
from kizu.errors import NotFinite, NotFitted, UnknownName, UsageError
from kizu.evaluation.cache import FeatureCache
from kizu.losses.cosine import cosine, distance_map
from kizu.nn.batch_norm import StableBatchNorm2d
from kizu.representations.base import Representation
from kizu.representations.sources import open_representation, save_representation
from kizu.samples import Samples
from kizu.training import FitOptions, Position
from kizu.types import Batch

FAST: dict[str, Any] = {
    "iterations": 3, "batch_size": 3, "embedding_width": 8, "image_size": 32, "precision": "fp32",
    "training_precision": "fp32",
}  # fmt: skip


@pytest.fixture(scope="module")
def net() -> Representation:
    return open_representation("random/resnet10t@1,2,3")


def images(count: int = 5, seed: int = 0, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def detector(net: Representation, **parameters: Any) -> ReContrast:
    return kizu.detector("recontrast", net, **{**FAST, **parameters})


def distillation(net: Representation, **parameters: Any) -> ReverseDistillation:
    return kizu.detector("reverse_distillation", net, **{**FAST, **parameters})


def objective(made: ReconstructionDetector) -> ReconstructionObjective:
    trained = made.objective(made.network()).train()
    assert isinstance(trained, ReconstructionObjective)
    return trained


def gradients(
    made: ReconstructionObjective, given: torch.Tensor, alpha: float | None = None
) -> list[torch.Tensor | None]:
    """Of the trained encoder's parameters."""
    made.zero_grad()
    made.loss((given, alpha))["loss"].backward()
    return [parameter.grad for parameter in made.encoder.parameters()]


def cut_input(made: ReconstructionObjective) -> None:
    """Let no gradient through the rebuilder's input: what is left reaches the encoder directly."""
    made.net.embedding.register_forward_pre_hook(lambda _, args: ([level.detach() for level in args[0]],))


# -- where gradients go --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", list(ABLATIONS))
def test_stop_gradient_leaves_the_encoder_nothing_but_the_way_through_the_decoder(
    net: Representation, variant: str
) -> None:
    made = objective(detector(net, **ABLATIONS[variant]))
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gradients(made, images(2)))
    cut_input(made)
    direct = gradients(made, images(2))
    if ABLATIONS[variant]["stop_gradient"]:
        assert all(grad is None for grad in direct)
    else:
        assert sum(float(grad.abs().sum()) for grad in direct if grad is not None) > 0


@pytest.mark.parametrize("variant", ["D", "E"])
def test_the_gradient_is_that_of_constant_targets(net: Representation, variant: str) -> None:
    made = objective(detector(net, batch_norm="eval", **ABLATIONS[variant])).double()
    given = images(2).double()
    frozen_maps = [level.clone().double() for level in made._frozen(given.float())] if made._frozen else []
    made._frozen = (lambda _: frozen_maps) if frozen_maps else None
    got = gradients(made, given)
    targets = [level.detach() for level in made.encoder(given)]
    made.zero_grad()
    trained = made.encoder(given)
    if variant == "D":
        total = sum(cosine(a, b) for a, b in zip(made.net(trained), targets, strict=True))
    else:
        like_frozen, like_trained = made.net.cross_reconstruct(trained, frozen_maps)
        pairs = [*zip(like_frozen, frozen_maps, strict=True), *zip(like_trained, targets, strict=True)]
        total = sum(cosine(a, b) for a, b in pairs) / 2
    total.backward()
    for grad, parameter in zip(got, made.encoder.parameters(), strict=True):
        assert torch.allclose(grad, parameter.grad, atol=1e-12)


def test_the_frozen_half_sends_the_encoder_nothing(net: Representation) -> None:
    """In E the trained encoder learns from rebuilding the frozen features, not from being rebuilt."""
    made = objective(detector(net, batch_norm="eval", **ABLATIONS["E"])).eval()
    (like_frozen, frozen), (like_trained, trained) = made.pairs(images(2))
    parameters = list(made.encoder.parameters())
    first = torch.autograd.grad(
        sum(cosine(a, b) for a, b in zip(like_frozen, frozen, strict=True)), parameters, retain_graph=True
    )
    assert all(grad.abs().sum() > 0 for grad in first)
    second = sum(cosine(a, b.detach()) for a, b in zip(like_trained, trained, strict=True))
    assert all(grad.abs().sum() == 0 for grad in torch.autograd.grad(second, parameters))


def test_mining_changes_gradients_not_the_loss(net: Representation) -> None:
    made = objective(detector(net))
    state = copy.deepcopy(made.state_dict())
    losses, grads = [], []
    for alpha in (None, -30.0, 1.0):
        made.load_state_dict(state)
        losses.append(float(made.loss((images(2), alpha))["loss"].detach()))
        grads.append(
            torch.cat([grad.flatten() for grad in gradients(made, images(2), alpha) if grad is not None])
        )
    assert losses[0] == losses[1] == losses[2]
    assert torch.equal(grads[0], grads[1]), "at minus infinity nothing is easy"
    assert grads[2].norm() < grads[0].norm()


def test_alpha_follows_the_schedule(net: Representation) -> None:
    made = objective(detector(net, iterations=1000))
    assert [made.prepare({"images": images(1)}, Position(step, 0, 1))[1] for step in (0, 50, 100, 999)] == [
        -3.0,
        -1.0,
        1.0,
        1.0,
    ]
    assert (
        objective(detector(net, iterations=1000, alpha=0.5, ramp=0.2)).prepare(
            {"images": images(1)}, Position(100, 0, 1)
        )[1]
        == -1.25
    )
    assert (
        objective(detector(net, hard_mining=False)).prepare({"images": images(1)}, Position(2, 0, 1))[1]
        is None
    )


# -- the ablation--------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_each_variant_minimises(net: Representation) -> None:
    given = images(3)
    frozen = net.inference_copy("fp32")(given)
    for scope in ("regional", "global"):
        made = distillation(net, loss=scope)
        run = objective(made)
        expected = sum(
            cosine(a, b, scope=scope)
            for a, b in zip(run.net([level.clone() for level in frozen]), frozen, strict=True)
        )
        assert run.loss((given, None))["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert run.encoder is None
        assert made.contrastive is False
    for variant, pairs in (("C", 1), ("D", 1), ("C+cp", 2), ("E-gl", 2), ("E", 2), ("full", 2)):
        run = objective(detector(net, **ABLATIONS[variant]))
        assert len(run.pairs(given)) == pairs
        assert (run.net.projections is None) == (pairs == 1)
        assert run.rules.scope == ("regional" if variant == "E-gl" else "global")
        assert (run.rules.alpha is not None) == (variant == "full")


@pytest.mark.slow
@pytest.mark.parametrize("variant", list(ABLATIONS))
def test_every_variant_fits_saves_and_opens(net: Representation, variant: str, tmp_path: Path) -> None:
    made = detector(net, **ABLATIONS[variant]).fit(images())
    loaded = kizu.load(made.save(tmp_path / "m.kizu"))
    assert torch.equal(loaded.predict(images(2)).map, made.predict(images(2)).map)
    assert len(made.log_) == 1
    assert set(made.log_[0]) == {"step", "loss", "diversity", "lr", "images_per_s"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reverse_distillation", "recontrast"])
def test_a_network_of_linear_bottlenecks_is_rebuilt_with_both_signs(name: str, tmp_path: Path) -> None:
    """EfficientNet: the decoder must reach negative features, before a file is written and after."""
    net = open_representation("random/tf_efficientnet_lite0@1,2,3")
    made = kizu.detector(name, net, **FAST).fit(images())
    loaded = kizu.load(made.save(tmp_path / "m.kizu"))
    assert torch.equal(loaded.predict(images(2)).map, made.predict(images(2)).map)
    for model in (made, loaded):
        rebuilder = model.network_.rebuilder
        levels = rebuilder.decoder(rebuilder.embedding(net(images(2))), net(images(2)))
        assert all((level < 0).any() for level in levels)


def test_the_probe_of_signs_is_small_whatever_a_file_says(
    net: Representation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The side of images may come from a stranger's file: 8,192 pixels would take gigabytes."""
    sides: list[int] = []
    forward = type(net).forward

    def noted(self: Representation, given: torch.Tensor) -> list[torch.Tensor]:
        sides.append(max(given.shape[2:]))
        return forward(self, given)

    monkeypatch.setattr(type(net), "forward", noted)
    assert not has_both_signs(net, 8192), "what leaves a ReLU is not negative"
    assert has_both_signs(open_representation("random/tf_efficientnet_lite0@2,3"), 8192)
    assert max(sides) <= 256
    assert has_both_signs(open_representation("random/swin_tiny_patch4_window7_224@1"), 512), "of one size"


@pytest.mark.slow
@pytest.mark.parametrize("alignment", ["grid", "centres"])
def test_the_map_is_the_sum_of_the_chosen_pairs(net: Representation, alignment: str) -> None:
    made = detector(net, alignment=alignment).fit(images())
    as_released = {"align_corners": True}
    ways = [as_released] * 3
    if alignment == "centres":
        ways = [{"centre": centre} for centre in zip(net.strides, net.offsets, strict=True)]
    given = images(2, seed=5)
    trained, frozen = made.encoder_.inference_copy("fp32")(given), net.inference_copy("fp32")(given)
    with torch.inference_mode():
        like_frozen, like_trained = made.network_.rebuilder.cross_reconstruct(trained, frozen)
    parts = {"trained": (like_trained, trained), "frozen": (like_frozen, frozen)}

    def total(*names: str) -> torch.Tensor:
        grids = [[distance_map(a, b) for a, b in zip(*parts[name], strict=True)] for name in names]
        return sum(
            maps.upsample(grid, (32, 32), sigma=4.0, **way)
            for levels in grids
            for grid, way in zip(levels, ways, strict=True)
        )

    for choice, names in (("all", ("trained", "frozen")), ("trained", ("trained",)), ("frozen", ("frozen",))):
        made.map_pairs = choice
        made._prepare_scoring()
        got = made.predict(given)
        assert torch.allclose(got.map, total(*names), atol=1e-4)
        assert torch.equal(got.score, got.map.flatten(1).amax(1))
    for rule in ("mean", "top"):
        made.score_rule = rule
        made._prepare_scoring()
        assert torch.equal(made.predict(given).score, maps.image_score(made.predict(given).map, rule))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recontrast", "reverse_distillation"])
def test_the_landscape_of_the_map_has_the_model_in_its_middle(net: Representation, name: str) -> None:
    made = kizu.detector(name, net, **FAST).fit(images())
    assert isinstance(made, ReconstructionDetector)
    before = made.predict(images(2)).map
    offsets, values = made.map_landscape(images(2), steps=3, seed=1)
    assert offsets.tolist() == [-0.5, 0.0, 0.5]
    assert values[1, 1].item() == pytest.approx(before.double().mean().item(), rel=1e-6)
    assert values.unique().numel() == 9
    assert torch.equal(made.predict(images(2)).map, before)
    assert torch.equal(made.map_landscape(images(2), steps=3, seed=1)[1], values)
    with pytest.raises(NotFitted):
        made.clone().map_landscape(images(2))


# -- the trained encoder -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_batch_norm_modes(net: Representation) -> None:
    def statistics(made: ReContrast) -> torch.Tensor:
        return torch.cat(
            [value.flatten() for name, value in made.encoder_.state_dict().items() if "running" in name]
        )

    before = torch.cat([value.flatten() for name, value in net.state_dict().items() if "running" in name])
    kept = {
        mode: detector(net, batch_norm=mode, **({"reset_every": 0} if mode == "stable" else {})).fit(images())
        for mode in ("eval", "train", "stable")
    }
    assert torch.equal(statistics(kept["eval"]), before)
    assert not torch.allclose(statistics(kept["train"]), before)
    assert not torch.allclose(statistics(kept["stable"]), before)
    for made in kept.values():
        assert not [module for module in made.encoder_.modules() if isinstance(module, StableBatchNorm2d)]
    run = objective(detector(net, batch_norm="stable"))
    assert [module for module in run.encoder.modules() if isinstance(module, StableBatchNorm2d)]
    assert not [module for module in run.net.modules() if isinstance(module, StableBatchNorm2d)]
    assert not objective(detector(net, batch_norm="eval")).encoder.training


def test_rates_resets_and_pauses(net: Representation) -> None:
    made = objective(detector(net, reset_every=4, pause=2, learning_rate=2e-3, encoder_learning_rate=1e-5))
    optimiser = made.optimiser()
    assert [group["lr"] for group in optimiser.param_groups] == [2e-3, 1e-5]
    assert {(group["betas"], group["weight_decay"]) for group in optimiser.param_groups} == {
        ((0.9, 0.999), 1e-5)
    }
    assert isinstance(optimiser, torch.optim.AdamW)
    assert [made.lr_scale(step, 12)[1] for step in range(12)] == [1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1]
    made.loss((images(2), None))["loss"].backward()
    optimiser.step()
    for step in range(3):
        made.after_step(step, 12)
        assert optimiser.state
    made.after_step(3, 12)
    assert not optimiser.state
    with pytest.raises(UsageError, match="reset_every has no effect"):
        detector(net, batch_norm="train", reset_every=4, pause=2)
    unstable = objective(detector(net, batch_norm="train"))
    assert unstable.rules.reset_every == 0
    assert unstable.lr_scale(4, 12) == [1.0, 1.0]


def test_the_older_recipe(net: Representation) -> None:
    optimiser = objective(distillation(net, recipe="rd4ad")).optimiser()
    assert type(optimiser) is torch.optim.Adam
    assert [(group["lr"], group["betas"], group["weight_decay"]) for group in optimiser.param_groups] == [
        (5e-3, (0.5, 0.999), 0.0)
    ]
    assert objective(distillation(net, learning_rate=0.1)).optimiser().param_groups[0]["lr"] == 0.1


@pytest.mark.slow
def test_the_adapted_encoder_is_a_representation(net: Representation, tmp_path: Path) -> None:
    made = detector(net, encoder_learning_rate=1e-3)
    with pytest.raises(NotFitted):
        made.adapted_representation()
    adapted = made.fit(images()).adapted_representation()
    given = images(2)
    assert not torch.allclose(adapted(given)[0], copy.deepcopy(net).eval()(given)[0])
    opened = open_representation(save_representation(adapted, tmp_path / "adapted")).eval()
    assert all(torch.equal(a, b) for a, b in zip(opened(given), adapted(given), strict=True))
    assert opened.card["adapted_from"] == net.card["name"]
    assert opened.card["adapted_on"] == 5
    judged = kizu.detector("patchcore", tmp_path / "adapted", image_size=32, coreset=0.5).fit(given)
    assert judged.representation.levels == (2, 3)
    again = kizu.load(judged.save(tmp_path / "p.kizu"))
    assert torch.equal(again.predict(given).score, judged.predict(given).score)


@pytest.mark.slow
def test_training_in_bf16(net: Representation) -> None:
    """Autocast: weights and their updates stay float32, the way down is much the same."""
    half, whole = (
        detector(net, training_precision=precision, iterations=6).fit(images())
        for precision in ("bf16", "fp32")
    )
    assert {value.dtype for value in half.network_.state_dict().values() if value.is_floating_point()} == {
        torch.float32
    }
    assert half.log_[-1]["loss"] == pytest.approx(whole.log_[-1]["loss"], rel=0.05)
    assert torch.isfinite(half.predict(images(2)).map).all()


# -- stopping and going on -----------------------------------------------------------------------------------


def stopped_at(made: ReContrast, step: int, given: torch.Tensor, folder: Path) -> None:
    """Fit until Ctrl-C comes during `step`."""
    import signal

    def progress(done: int, said: str) -> None:
        if said.startswith(f"training, step {step} "):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        made.fit(given, options=FitOptions(progress=progress, folder=folder))


@pytest.mark.slow
def test_an_interrupted_training_goes_on_exactly(net: Representation, tmp_path: Path) -> None:
    parameters = {"iterations": 7, "reset_every": 4}
    whole = detector(net, **parameters).fit(images(), options=FitOptions(folder=tmp_path / "whole"))
    stopped_at(detector(net, **parameters), 3, images(), tmp_path / "half")
    resumed = detector(net, **parameters).fit(
        images(), options=FitOptions(folder=tmp_path / "half", resume=True)
    )
    assert torch.equal(resumed.predict(images(2, 8)).map, whole.predict(images(2, 8)).map)
    assert all(torch.equal(value, resumed._state()[name]) for name, value in whole._state().items())
    with pytest.raises(UsageError, match="another recipe"):
        detector(net, iterations=8).fit(images(), options=FitOptions(folder=tmp_path / "half", resume=True))


@pytest.mark.slow
def test_divergence_stops_and_keeps_the_last_good_state(
    net: Representation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"iterations": 6}
    real = ReconstructionObjective.loss

    def poisoned(self: ReconstructionObjective, batch: Any) -> dict[str, torch.Tensor]:
        terms = real(self, batch)
        return {**terms, "loss": terms["loss"] * float("nan") if self.poison else terms["loss"]}  # type: ignore[attr-defined]

    def watched(self: ReconstructionObjective, step: int, steps: int) -> None:
        self.poison = step == 4  # type: ignore[attr-defined]

    made = detector(net, **parameters)
    with monkeypatch.context() as patched:
        patched.setattr(ReconstructionObjective, "poison", False, raising=False)
        patched.setattr(ReconstructionObjective, "loss", poisoned)
        patched.setattr(ReconstructionObjective, "after_step", watched)
        with pytest.raises(NotFinite, match="step 5"):
            made.fit(images(), options=FitOptions(folder=tmp_path, checkpoint_every=2))
    assert not made.fitted_
    with pytest.raises(NotFitted):
        made.predict(images(1))
    tensors, card = store.load(tmp_path / "checkpoint.kizu")
    assert card["step"] == 4
    assert all(value.isfinite().all() for value in tensors.values() if value.is_floating_point())
    assert (tmp_path / "not_finite_0.kizu").exists()
    healed = detector(net, **parameters).fit(images(), options=FitOptions(folder=tmp_path, resume=True))
    assert torch.equal(
        healed.predict(images(1)).map, detector(net, **parameters).fit(images()).predict(images(1)).map
    )


# -- images and misuse ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_features_alone_are_not_enough(net: Representation) -> None:
    features = net.inference_copy("fp32")(images(2))
    with pytest.raises(UsageError, match="without the images"):
        detector(net).fit([Batch(features=features, size=(32, 32))])
    both = detector(net).fit([Batch(images(4), features=net.inference_copy("fp32")(images(4)))])
    assert torch.equal(both.predict(images(1)).map, detector(net).fit(images(4)).predict(images(1)).map)


def test_the_cache_of_experiments_hands_it_images(net: Representation, tiny_planted: Samples) -> None:
    batches = list(FeatureCache().batches(detector(net, image_size=64), tiny_planted.train, []))
    assert sum(len(batch) for batch in batches) == len(tiny_planted.train)
    assert all(batch.features is None and batch.images.std() > 0 for batch in batches)


def test_misuse_is_refused(net: Representation) -> None:
    wrong = (
        {"loss": "local"},
        {"batch_norm": "instance"},
        {"map_pairs": "both"},
        {"score_rule": "median"},
        {"decoder": "paper"},
    )
    for parameters in wrong:
        with pytest.raises(UnknownName, match=next(iter(parameters))):
            detector(net, **parameters)
    for parameters in (
        {"iterations": 0},
        {"embedding_width": 0},
        {"map_pairs": "frozen", "contrastive_pairs": False},
        {"reset_every": -3},
        {"pause": -9},
        {"alpha": float("nan")},
        {"ramp": -1.0},
        {"learning_rate": 0.0},
        {"encoder_learning_rate": float("inf")},
        {"weight_decay": -1e-5},
        {"sigma": -1.0},
        {"alpha": 0.5, "hard_mining": False},
        {"ramp": 0.5, "hard_mining": False},
        {"pause": 5, "batch_norm": "eval"},
        {"training_precision": "fp8"},
    ):
        with pytest.raises(UsageError, match=next(iter(parameters))):
            detector(net, **parameters)
    with pytest.raises(UnknownName, match="recipe"):
        distillation(net, recipe="sgd")
    for parameters in ({"alpha": float("nan"), "hard_mining": True}, {"alpha": 0.5}, {"learning_rate": -1.0}):
        with pytest.raises(UsageError, match=next(iter(parameters))):
            distillation(net, **parameters)
    with pytest.raises(UsageError, match="larger images"):
        detector(net, batch_size=1).fit(images(2))


def test_the_global_generator_is_left_alone(net: Representation) -> None:
    made = detector(net)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    made.network()
    assert torch.equal(torch.rand(1), expected)
