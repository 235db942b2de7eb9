"""ADPretrain's pretraining: what it learns from, part by part; a run, resumed; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import kizu
from kizu import store
from kizu.errors import (
    EmptyData,
    MaskError,
    NotFinite,
    ShapeError,
    UnknownName,
    UsageError,
)
from kizu.losses.angle_norm import angle_loss, norm_loss
from kizu.pretraining import ADPretrain, pretrain, resume
from kizu.pretraining._labelled import LabelledImages
from kizu.pretraining._projector_job import mean_residuals
from kizu.pretraining._queries import Queries
from kizu.pretraining._residuals import FrozenFeatures, residuals
from kizu.pretraining._tokens import token_labels
from kizu.representations.projected import open_projector
from kizu.representations.residual import Residual
from kizu.samples import Samples
from kizu.training import Position

BASE = "random/resnet10t@1,2"
TINY: dict[str, Any] = {"backbone": BASE, "size": 32, "batch_size": 2, "references": 4, "shots": (1, 2)}
RUN: dict[str, Any] = {
    **TINY,
    "steps": 4,
    "device": "cpu",
    "precision": "fp32",
    "show": False,
    "log_every": 1,
}


@pytest.fixture(scope="module")
def data(tiny_planted: Samples) -> str:
    """A data set with masks."""
    return f"mvtec:{Path(tiny_planted.paths[0]).parents[3]}"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV: "nut" has good and anomalous images from two cameras, in groups of two; "bolt" has good ones
    alone. Every image is of another grey."""
    folder = tmp_path_factory.mktemp("table")
    rows = []
    for number in range(18):
        image = folder / f"{number:02}.png"
        noise = np.random.default_rng(number).integers(0, 20, (32, 32, 3))
        Image.fromarray((noise + 10 * number).astype(np.uint8)).save(image)
        label, mask = int(number in (4, 5)), None
        if label:
            mask = f"{number}_mask.png"
            values = np.zeros((32, 32), np.uint8)
            values[4 + number : 15 + number, 3:20] = 255
            Image.fromarray(values).save(folder / mask)
        nut = number < 12
        rows.append({
            "image": image.name, "mask": mask, "label": label, "category": "nut" if nut else "bolt",
            "defect": "dent" if label else "good", "view": f"C{number % 2}" if nut else None,
            "group": f"g{number // 4}" if nut else None,
        })  # fmt: skip
    pl.DataFrame(rows).write_csv(folder / "table.csv")
    return folder / "table.csv"


def images_of(table: Path, shots: int = 1, **given: Any) -> LabelledImages:
    return LabelledImages([f"folder:{table}"], side=32, shots=shots, **given)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Labels of tokens


def test_tokens_are_labelled_by_the_share_of_their_cell() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 1, 1], mask[0, 4:6, 4:8], mask[0, 6, 0] = True, True, True
    for share, due in ((0.0, [[1, 0], [1, 1]]), (1 / 16, [[0, 0], [0, 1]]), (0.5, [[0, 0], [0, 0]])):
        (coarse, fine), same = token_labels(mask, [(2, 2), (8, 8)], "share", share)
        assert coarse[0].int().tolist() == due
        assert torch.equal(fine[0], mask[0])
        assert torch.equal(same[0], coarse)


def test_the_two_rules_of_the_released_code() -> None:
    """Patches of 14 x 14 pixels: more than 32 of them for the angle, the top left one for the norm."""
    mask = torch.zeros(3, 28, 28, dtype=torch.bool)
    mask[0, 2:6, 2:10] = True  # 32 pixels
    mask[1, 2:6, 2:10], mask[1, 7, 7] = True, True  # 33
    mask[2, 14, 0] = True  # the first pixel of the lower left patch
    (angle,), (norm,) = token_labels(mask, [(2, 2)], "code", 0.125)
    assert angle.flatten(1).int().tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert norm.flatten(1).int().tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    with pytest.raises(UsageError, match=r"more than 32 pixels in a cell.*\[16, 64\]"):
        ADPretrain(**TINY, token_label="code")


# References


def test_references_are_good_others_of_the_same_camera_and_of_another_part(table: Path) -> None:
    images = images_of(table)
    for number in range(18):
        drawn = {one for seed in range(40) for one in images.references(number, 1, seeded(seed))}
        nut = number < 12
        due = {
            other
            for other in range(18)
            if other not in (4, 5, number)
            and (other < 12) == nut
            and (not nut or (other % 2 == number % 2 and other // 4 != number // 4))
        }
        assert drawn == due, number
    assert len(images.references(12, 5, seeded(0))) == 5, "without replacement, all there are"


def test_a_file_that_cannot_be_read_is_no_reference(table: Path, tmp_path: Path) -> None:
    rows = pl.read_csv(table).filter(pl.col("category") == "bolt")
    (tmp_path / "broken.png").write_text("no image")
    names = [str(table.parent / name) for name in rows["image"]]
    pl.DataFrame({"image": [*names, str(tmp_path / "broken.png")], "label": 0}).write_csv(tmp_path / "t.csv")
    images = images_of(tmp_path / "t.csv")
    drawn = {one for seed in range(30) for one in images.references(0, 2, seeded(seed))}
    assert drawn == {1, 2, 3, 4, 5}
    assert list(images.skipped) == [str(tmp_path / "broken.png")]
    assert len(images.digests()) == 6
    with pytest.raises(EmptyData, match="only 5 of the 6 good images"):
        images.references(0, 6, seeded(0))


def test_kept_features_need_no_image(table: Path) -> None:
    images = images_of(table)
    assert images.references(12, 5, seeded(0), known=[13, 14])[13] is None
    assert images.references(12, 5, seeded(0), known=[13, 14])[15] is not None


@pytest.mark.parametrize("matching", ["l2", "cosine"])
def test_residuals_are_those_of_the_representation(matching: str) -> None:
    """Each of two images with references of its own, two views; against a Residual for each image."""
    base = kizu.representation(BASE)
    views, shown = (
        torch.rand(4, 3, 32, 32, generator=seeded(0)),
        torch.rand(3, 3, 32, 32, generator=seeded(1)),
    )
    frozen = FrozenFeatures(base, "fp32")
    rows = [frozen.rows(number, image) for number, image in enumerate(shown)]
    banks = [rows[0], [torch.cat(same) for same in zip(rows[1], rows[2], strict=True)]]
    found = residuals(frozen(views), banks, matching)
    for image, bank in enumerate(banks):
        truth = Residual(base.eval(), bank, matching=matching)(views[image::2])
        for mine, theirs in zip(found, truth, strict=True):
            assert torch.allclose(mine[image::2], theirs, atol=1e-5)
    assert not found[0].is_inference()


def test_features_are_kept_within_the_budget() -> None:
    frozen = FrozenFeatures(kizu.representation(BASE), "fp32", budget=70_000)
    images = torch.rand(3, 3, 32, 32, generator=seeded(0))
    levels = [frozen.rows(number, image) for number, image in enumerate(images)]
    size = sum(level.nbytes for level in levels[0])
    assert [number in frozen for number in range(3)] == [size * (n + 1) <= 70_000 for n in range(3)]
    assert frozen.rows(0, None) is levels[0]
    with pytest.raises(KeyError, match="neither kept nor given"):
        frozen.rows(2, None)


def test_the_centre_is_the_mean_residual_of_good_images(table: Path, tmp_path: Path) -> None:
    """Two good images, each the other's only reference."""
    names = [str(table.parent / f"{number}.png") for number in (12, 13)]
    pl.DataFrame({"image": names, "label": 0}).write_csv(tmp_path / "two.csv")
    objective = ADPretrain(**{**TINY, "shots": 1, "plant": "cutpaste"})
    images = images_of(tmp_path / "two.csv")
    means = mean_residuals(objective, images, torch.device("cpu"), show=False)
    base = kizu.representation(BASE).eval()
    with torch.no_grad():
        levels = base(torch.stack([torch.from_numpy(images.image(n)).permute(2, 0, 1) / 255 for n in (0, 1)]))
    for mean, level in zip(means, levels, strict=True):
        a, b = (one.flatten(1).T.double() for one in level)
        rows = [x - other[((other - x) ** 2).sum(1).argmin()] for one, other in ((a, b), (b, a)) for x in one]
        assert torch.allclose(mean, torch.stack(rows).mean(0), atol=1e-5)
        assert mean.abs().max() > 1e-3


# Batches


def queries(table: Path, **given: Any) -> Queries:
    settings = {"shots": (1, 2), "per_step": False, "plant": "none", "plant_share": 1.0, "seed": 0}
    frozen = FrozenFeatures(kizu.representation(BASE), "fp32")
    return Queries(images_of(table), frozen, **{**settings, **given})


def test_a_batch_is_a_function_of_its_position(table: Path) -> None:
    whole = queries(table, plant="perlin")(Position(1, 4, 4))
    parts = [queries(table, plant="perlin")(Position(1, first, 2)) for first in (4, 6)]
    for name in ("images", "masks", "references"):
        assert torch.equal(whole[name], torch.cat([part[name] for part in parts])), name
    other = queries(table, plant="perlin", seed=1)(Position(1, 4, 4))
    assert not torch.equal(whole["images"], other["images"])


def test_numbers_of_shots_by_image_or_by_step(table: Path) -> None:
    def counts(per_step: bool) -> list[list[int]]:
        stream = queries(table, per_step=per_step)
        drawn = [stream(Position(step, 6 * step, 6))["references"] for step in range(8)]
        return [(found >= 0).sum(1).tolist() for found in drawn]

    by_image, by_step = counts(False), counts(True)
    assert {count for found in by_image for count in found} == {1, 2}
    assert any(len(set(found)) == 2 for found in by_image)
    assert all(len(set(found)) == 1 for found in by_step)
    assert {found[0] for found in by_step} == {1, 2}


@pytest.mark.parametrize("plant", ["smooth_blend", "cutpaste", "perlin"])
def test_defects_are_planted_where_there_are_none(table: Path, plant: str) -> None:
    stream, plain = queries(table, plant=plant), queries(table)
    batch, before = stream(Position(0, 0, 18)), plain(Position(0, 0, 18))
    changed = (batch["images"] != before["images"]).any(1)
    is_bolt = torch.tensor([stream._turns(place)[1] >= 12 for place in range(18)])
    assert not changed[~is_bolt].any()
    assert changed[is_bolt].flatten(1).any(1).sum() >= (5 if plant == "perlin" else 6), "of 6"
    assert torch.equal(batch["masks"][is_bolt], changed[is_bolt]), "to the pixel"
    assert torch.equal(batch["masks"][~is_bolt], before["masks"][~is_bolt])
    half = queries(table, plant=plant, plant_share=0.5)
    planted = torch.cat([half(Position(0, first, 18))["masks"] for first in range(0, 90, 18)])
    assert 5 < int(planted.flatten(1).any(1).sum()) - 10 < 25, "of 30 in five passes; 10 are no bolts"


def test_images_without_a_mask_may_be_left_out(table: Path, tmp_path: Path) -> None:
    source = without(table, tmp_path, mask=pl.lit(None, dtype=pl.String))
    assert images_of(table, unmasked="left_out").paths == images_of(table).paths
    left = LabelledImages([source], side=32, shots=1, unmasked="left_out")
    assert len(left) == 16
    assert not left.labels.any()


def test_references_of_all_views(table: Path) -> None:
    """Of image 0, camera C0, group g0: good nuts of other groups, of either camera."""
    nuts = [f"folder[nut]:{table}"]
    own = LabelledImages(nuts, side=32, shots=3)
    every = LabelledImages(nuts, side=32, shots=6, same_view=False)
    assert set(own.references(0, 3, seeded(0))) == {6, 8, 10}
    assert set(every.references(0, 6, seeded(0))) == {6, 7, 8, 9, 10, 11}


def test_sources_take_turns_and_categories_are_chosen(table: Path, data: str) -> None:
    images = LabelledImages([f"folder[bolt]:{table}", data], side=32, shots=1)
    assert [len(part) for part in images.tables] == [6, 48]
    assert images.names == ["folder", "mvtec"]
    stream = Queries(
        images, FrozenFeatures(kizu.representation(BASE), "fp32"), shots=(1,), per_step=False, plant="none",
        plant_share=0.5, seed=0,
    )  # fmt: skip
    assert [stream._query(place)[0] < 6 for place in range(6)] == [True, False] * 3
    with pytest.raises(UnknownName, match="Did you mean 'bolt'"):
        LabelledImages([f"folder[bolts]:{table}"], side=32, shots=1)


# The objective


def prepared(objective: ADPretrain, table: Path, count: int = 4) -> dict[str, Any]:
    stream = queries(table, per_step=objective.shots_per == "step", shots=objective.all_shots)
    places = [place for place in range(18) if stream._turns(place)[1] in (4, 5)]
    return objective.prepare(stream(Position(0, places[0] - 1, count)), Position(0, 0, count))


def test_views_keep_the_image_or_change_both(table: Path) -> None:
    batch = queries(table)(Position(0, 0, 3))
    clean = ADPretrain(**TINY, views="clean_and_augmented")
    both = ADPretrain(**TINY)
    truth = residuals(clean.base(batch["images"]), clean.banks(batch), "l2")[0]
    first, second = clean.prepare(batch, Position(0, 0, 3))["residuals"][0].chunk(2)
    assert torch.allclose(first, truth, atol=1e-6)
    assert not torch.allclose(second, truth, atol=1e-2)
    views = both.prepare(batch, Position(0, 0, 3))["residuals"][0].chunk(2)
    assert not any(torch.allclose(view, truth, atol=1e-2) for view in views)
    assert not torch.allclose(views[0], views[1], atol=1e-2)


def test_the_loss_is_the_sum_over_levels_of_pairs_at_one_position(table: Path) -> None:
    """Tokens gathered one by one."""
    objective = ADPretrain(**{**TINY, "centre": "none"}, angle_weight=0.7, temperature=0.3, radius=0.5)
    batch, due = prepared(objective, table), torch.zeros(())
    assert any(labels.any() for labels in batch["angle_labels"])
    for level, labels in zip(objective.projector(batch["residuals"]), batch["angle_labels"], strict=True):
        B, h, w = labels.shape
        places = [(b, y, x) for b in range(B) for y in range(h) for x in range(w)]
        first = torch.stack([level[b, :, y, x] for b, y, x in places])
        second = torch.stack([level[B + b, :, y, x] for b, y, x in places])
        flat = torch.stack([labels[place] for place in places])
        due = due + 0.7 * angle_loss(first, second, flat, temperature=0.3)
        due = due + norm_loss(first, flat, radius=0.5) + norm_loss(second, flat, radius=0.5)
    terms = objective.loss(batch)
    assert terms["loss"].item() == pytest.approx(due.item(), rel=1e-5)
    assert terms["loss"].item() == pytest.approx(
        0.7 * terms["loss_angle"].item() + terms["loss_norm"].item(), rel=1e-5
    )
    tokens = torch.cat([labels.flatten() for labels in batch["angle_labels"]])
    assert terms["anomalous"].item() == pytest.approx(tokens.float().mean().item())


def test_the_centre_moves_the_angles_alone(table: Path) -> None:
    objective = ADPretrain(**TINY).eval()
    batch = prepared(objective, table)
    before = objective.loss(batch)
    for centre in objective.centres:
        centre.add_(3.0)
    after = objective.loss(batch)
    assert after["loss_norm"].item() == before["loss_norm"].item()
    assert abs(after["loss_angle"].item() - before["loss_angle"].item()) > 0.1


def test_the_projected_centre_follows_the_mean_of_normal_tokens(table: Path) -> None:
    objective = ADPretrain(**TINY, centre="projected").train()
    batch = prepared(objective, table)
    level, labels = objective.projector(batch["residuals"])[1], batch["angle_labels"][1]
    rows = level.permute(0, 2, 3, 1)[~torch.cat([labels, labels])]
    for _ in range(2):  # of one batch the mean is the mean, however often
        objective.loss(batch)
        assert torch.allclose(objective.centres[1], rows.mean(0), atol=1e-4)
    assert objective.centre_steps == 2


def test_only_the_projector_learns(table: Path) -> None:
    objective = ADPretrain(**TINY)
    objective.loss(prepared(objective, table))["loss"].backward()
    assert all(name.startswith("projector.") for name, _ in objective.named_parameters())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in objective.parameters())
    assert [objective.lr_scale(step, 10) for step in (0, 6, 7, 9)] == pytest.approx([1, 1, 0.1, 0.01])


@pytest.mark.parametrize("kind", ["linear", "mlp", "self_attention", "cross_attention", "self_cross"])
def test_every_kind_of_projector(table: Path, kind: str) -> None:
    settings = {name: value for name, value in TINY.items() if name != "references"}
    if kind in ("cross_attention", "self_cross"):
        with pytest.raises(UsageError, match="2 shots at least"):
            ADPretrain(**settings, kind=kind)
        settings |= {"shots": 2}
    objective = ADPretrain(**settings, kind=kind)
    terms = objective.loss(prepared(objective, table))
    assert terms["loss"].isfinite()


# Runs


@pytest.fixture(scope="module")
def finished(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain("adpretrain", data, tmp_path_factory.mktemp("run") / "projector", **RUN)


def test_the_folder_and_its_card(finished: Path, tiny_planted: Samples) -> None:
    assert sorted(file.name for file in finished.iterdir()) == [
        store.CARD, "log.jsonl", "recipe.json", store.WEIGHTS,
    ]  # fmt: skip
    projector, card = open_projector(finished)
    assert projector.channels == (64, 128)
    assert card["name"] == f"adpretrain/{BASE}"
    assert card["trained_on"] == ["mvtec"]
    assert card["data"] == [{"name": "mvtec", "images": 48, "anomalous": 12, "categories": ["capsule"]}]
    assert set(card["images_seen"]) == {kizu.images.image_digest(path) for path in tiny_planted.paths}
    assert card["base"]["levels"] == [1, 2]
    assert [row["step"] for row in card["curve"]] == [1, 2, 3, 4]
    assert set(card["curve"][0]) == {
        "step", "loss", "loss_angle", "loss_norm", "anomalous", "lr", "images_per_s",
    }  # fmt: skip
    assert str(Path(tiny_planted.paths[0]).parents[3].parent) not in json.dumps(card)


class Dies(Exception):
    """Stands for a machine that stops."""


@pytest.mark.parametrize("centre", ["residual", "projected"])
def test_an_interrupted_run_ends_as_a_whole_one(
    data: str, finished: Path, centre: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**RUN, "centre": centre}
    whole = finished
    if centre != "residual":
        whole = pretrain("adpretrain", data, tmp_path / "whole", **given)

    def after(self: ADPretrain, step: int, steps: int) -> None:
        if step == 3:
            raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(ADPretrain, "after_step", after)
        with pytest.raises(Dies):
            pretrain("adpretrain", data, tmp_path / "cut", checkpoint_every=2, **given)
    with pytest.raises(UsageError, match="margin is 0\\.75 there, not 0\\.5"):
        resume(tmp_path / "cut", given={"margin": 0.5}, show=False)
    same = {"shots": (1, 2), "data": [data], "backbone": BASE, "radius": 0.4}
    resume(tmp_path / "cut", given=same, show=False)
    ours, theirs = (store.load_tensors(folder) for folder in (tmp_path / "cut", whole))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert resume(tmp_path / "cut", show=False) == tmp_path / "cut"


@pytest.mark.slow
def test_bf16_trains_float32_weights(data: str, finished: Path, tmp_path: Path) -> None:
    """Autocast: weights stay float32, the losses are those of float32 to its rounding."""
    out = pretrain("adpretrain", data, tmp_path / "out", **{**RUN, "precision": "bf16"})
    tensors = store.load_tensors(out)
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    curves = [store.load_card(folder)["projector"]["curve"] for folder in (out, finished)]
    assert [row["loss"] for row in curves[0]] == pytest.approx([row["loss"] for row in curves[1]], rel=0.05)


def test_a_saved_representation_is_found_from_elsewhere(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kizu.representations.sources import save_representation

    save_representation(kizu.representation(BASE), tmp_path / "rep")
    monkeypatch.chdir(tmp_path)
    given = {**RUN, "backbone": "rep@2", "steps": 1, "centre": "none", "shots": 1}
    out = pretrain("adpretrain", f"folder:{table}", tmp_path / "out", **given)
    recipe = json.loads((out / "recipe.json").read_text("utf-8"))
    assert recipe["parameters"]["backbone"] == f"{tmp_path / 'rep'}@2"
    assert recipe["data"] == [f"folder:{table}"]
    card = open_projector(out)[1]
    assert card["recipe"]["parameters"]["backbone"] == "rep@2"
    assert card["recipe"]["data"] == ["folder:table.csv"]
    assert card["base"]["levels"] == [2]


@pytest.mark.slow
def test_training_separates_planted_defects(data: str, tmp_path: Path) -> None:
    """On trained weights, tokens of the defects become longer than those of good images."""
    given = {**RUN, "backbone": "kizu/starter@2", "size": 64, "batch_size": 8, "steps": 10}
    out = pretrain("adpretrain", data, tmp_path / "out", **given, learning_rate=2e-3)
    curve = store.load_card(out)["projector"]["curve"]
    assert sum(row["loss"] for row in curve[-3:]) < 0.8 * sum(row["loss"] for row in curve[:3])


# What is refused


def without(table: Path, tmp_path: Path, **changes: Any) -> str:
    """The table, changed."""
    rows = pl.read_csv(table).with_columns(
        image=pl.lit(f"{table.parent}/") + pl.col("image"), mask=pl.lit(f"{table.parent}/") + pl.col("mask")
    )
    rows.with_columns(**changes).write_csv(tmp_path / "t.csv")
    return f"folder:{tmp_path / 't.csv'}"


def test_data_that_cannot_be_learned_from(table: Path, tmp_path: Path) -> None:
    def fails(error: type[Exception], match: str, source: str, **given: Any) -> None:
        with pytest.raises(error, match=match):
            pretrain("adpretrain", source, tmp_path / "out", **{**RUN, **given})
        assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())

    bare = without(table, tmp_path, mask=pl.lit(None, dtype=pl.String))
    fails(MaskError, r"2 anomalous images have no mask.*04\.png", bare)
    fails(UsageError, "There is no anomalous image.*plant=smooth_blend", f"folder[bolt]:{table}")
    fails(UsageError, r"8 good others.*folder/nut C0 \(3\), folder/nut C1 \(3\), folder/bolt \(5\)",
          f"folder:{table}", shots=(1, 8))  # fmt: skip
    fails(UsageError, "every category has some", f"folder[nut]:{table}", plant="cutpaste", shots=1)
    fails(UsageError, "named NAME:PATH.*got 'photos'", "photos")
    fails(UnknownName, "Did you mean 'folder'", f"foldr:{table}")
    fails(UsageError, "levels", f"folder:{table}", backbone="random/resnet10t@9")
    for name, value in (("init", "kizu/starter"), ("source_size", 64), ("half", True)):
        fails(UsageError, f"{name} has no effect on adpretrain", f"folder:{table}", **{name: value})


def test_a_loss_that_is_not_finite_stops_the_run(data: str, tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match="at step 1"):
        pretrain("adpretrain", data, tmp_path / "out", **{**RUN, "learning_rate": 1e30})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"plant_share": 0.3}, "plant_share has no effect with plant='none'"),
        ({"token_label": "code", "token_share": 0.3, "backbone": "random/resnet10t@4"}, "token_share has no"),
        ({"centre": "none", "centre_images": 5}, "centre_images has no effect"),
        ({"shots": 4, "shots_per": "step"}, "shots_per has no effect with one number of shots"),
        ({"shots": ()}, "shots are numbers of reference images"),
        ({"gate": 1}, "gate is True or False"),
        ({"views": "both"}, "views"),
        ({"base_precision": "auto"}, "base_precision"),
    ],
)
def test_parameters_without_effect_or_meaning(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ADPretrain(**{**TINY, **given})


def test_a_projector_refuses_other_levels(finished: Path) -> None:
    from kizu.representations.projected import Projected, check_base

    projector, card = open_projector(finished)
    with pytest.raises(ShapeError):
        Projected(kizu.representation("random/resnet10t@1"), projector, card=card)
    with pytest.raises(UsageError, match="was trained on"):
        check_base(card, kizu.representation("random/resnet10t@2,3"), finished)
