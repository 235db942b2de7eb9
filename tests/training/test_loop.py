"""The loop: what it promises of order, chance, interruption, bad numbers and bad settings."""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_objectives import BATCH, ENCODERS, STEPS, Line, noise, points, without_batch_norm
from torch import Tensor

from kizu import store
from kizu.errors import ModelFileError, NotFinite, UsageError
from kizu.launchers import launched
from kizu.training import Objective, Position, train
from kizu.training.loop import _parts
from kizu.training.prefetch import Prefetch

PLAIN: dict[str, Any] = {
    "steps": STEPS,
    "batch_size": BATCH,
    "precision": "fp32",
    "device": "cpu",
    "log_every": 1,
    "show": False,
}
CHECKPOINT = "checkpoint.kizu"


def weights(objective: Objective) -> list[Tensor]:
    return [value.clone() for value in objective.state_dict().values()]


def same(one: Objective, other: Objective) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def at_step(wanted: int, act: Callable[[Tensor], Tensor | None]) -> Callable[[int, int, Tensor], Tensor]:
    """A hook for Line: `act` on the targets of one step."""

    def at(step: int, _: int, y: Tensor) -> Tensor:
        changed = act(y) if step == wanted else None
        return y if changed is None else changed

    return at


class Dies(Exception):
    """Stands for a machine that stops."""


def die(_: Tensor) -> Tensor:
    raise Dies


def send(number: int) -> Callable[[Tensor], None]:
    return lambda _: os.kill(os.getpid(), number)


def test_it_learns_and_logs() -> None:
    line = Line()
    rows = train(line, points, **{**PLAIN, "steps": 150})
    assert rows[-1]["loss"] < rows[0]["loss"] / 50
    assert [row["step"] for row in rows] == list(range(1, 151))
    assert set(rows[0]) == {"step", "loss", "distance", "lr", "images_per_s"}
    assert rows[0]["lr"] == pytest.approx(0.01)
    assert line.training


def test_the_curve_is_that_of_a_loop_by_hand() -> None:
    rows = train(Line(), points, **PLAIN, clip=2.0)
    line = Line()
    optimiser = line.optimiser()
    for step, row in enumerate(rows):
        optimiser.param_groups[0]["lr"] = 0.02 * line.lr_scale(step, STEPS)
        position = Position(step, step * BATCH, BATCH)
        loss = line.loss(line.prepare(points(position), position))["loss"]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(line.parameters(), 2.0)
        optimiser.step()
        assert row["loss"] == pytest.approx(float(loss.detach()), rel=1e-6, abs=1e-6)


def test_rows_are_means_since_the_row_before() -> None:
    single = [row["loss"] for row in train(Line(), points, **{**PLAIN, "steps": 5})]
    rows = train(Line(), points, **{**PLAIN, "steps": 5, "log_every": 2})
    assert [row["step"] for row in rows] == [2, 4, 5]
    assert [row["loss"] for row in rows] == pytest.approx(
        [sum(single[:2]) / 2, sum(single[2:4]) / 2, single[4]]
    )


@pytest.mark.parametrize("accumulate", [2, 4])
def test_parts_of_a_batch_add_up_to_it(accumulate: int) -> None:
    whole, parts = Line(), Line()
    expected = train(whole, points, **PLAIN)
    rows = train(parts, points, accumulate=accumulate, **PLAIN)
    assert [row["loss"] for row in rows] == pytest.approx(
        [row["loss"] for row in expected], rel=1e-6, abs=1e-6
    )
    for one, other in zip(weights(whole), weights(parts), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_parts_cover_the_batch_once() -> None:
    for world, parts in ((1, 1), (2, 1), (1, 3), (2, 2), (3, 4)):
        offsets = [part for rank in range(world) for part in _parts(24, rank, world, parts)]
        assert sorted(index for first, count in offsets for index in range(first, first + count)) == list(
            range(24)
        )


def test_batches_come_in_order() -> None:
    asked: list[Position] = []

    def stream(position: Position) -> int:
        asked.append(position)
        return position.first

    with Prefetch(stream, [(0, 2), (2, 2)], 3, 5, 4) as ahead:
        got = [ahead.next() for _ in range(4)]
    assert [batch for batch, _ in got] == [12, 14, 16, 18]
    assert (
        [position for _, position in got]
        == asked
        == [Position(3, 12, 2), Position(3, 14, 2), Position(4, 16, 2), Position(4, 18, 2)]
    )


def test_the_thread_that_prepares_has_no_helpers() -> None:
    """Two teams of threads on the same cores wait for each other by spinning."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Prefetch(lambda position: torch.get_num_threads(), [(0, 2)], 0, 3, 2) as ahead:
            assert [ahead.next()[0] for _ in range(3)] == [1, 1, 1]
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_chances_belong_to_seed_and_image() -> None:
    def draws(seed: int, first: int, count: int) -> list[tuple[float, ...]]:
        return [
            tuple(torch.rand(3, generator=g).tolist()) for g in Position(7, first, count).generators(seed)
        ]

    assert draws(0, 4, 3) == draws(0, 0, 8)[4:7]
    many = [draw for seed in (0, 1, 2, 3, 4, 100, 2**31, 12345678901) for draw in draws(seed, 0, 50)]
    assert len(set(many)) == len(many), "no seed repeats another's"


def test_torchs_own_generator_is_left_alone() -> None:
    line, simsiam = Line(), without_batch_norm("simsiam")
    before = torch.random.get_rng_state()
    train(line, points, **PLAIN)
    train(simsiam, noise, **{**PLAIN, "steps": 2})
    assert torch.equal(torch.random.get_rng_state(), before)


def test_same_seed_same_weights_whatever_torchs_own_generator() -> None:
    first = without_batch_norm("moco")
    second = copy.deepcopy(first)
    for seed, objective in enumerate((first, second)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            train(objective, noise, **{**PLAIN, "steps": 3})
    assert same(first, second)


@pytest.mark.parametrize("name", [None, *ENCODERS])
@pytest.mark.slow
def test_an_interrupted_run_ends_as_a_whole_one(name: str | None, tmp_path: Path) -> None:
    stream, whole = (points, Line()) if name is None else (noise, without_batch_norm(name))
    resumed, cut = copy.deepcopy(whole), copy.deepcopy(whole)
    rows, before = train(whole, stream, **PLAIN), cut.after_step
    cut.after_step = lambda step, steps: die(torch.empty(0)) if step == 4 else before(step, steps)  # type: ignore[method-assign]
    with pytest.raises(Dies):
        train(cut, stream, folder=tmp_path, checkpoint_every=3, **PLAIN)
    assert store.load_card(tmp_path / CHECKPOINT)["step"] == 3
    again = train(resumed, stream, folder=tmp_path, checkpoint_every=3, resume=True, **PLAIN)
    assert same(resumed, whole)
    assert [(row["step"], row["loss"]) for row in again] == [(row["step"], row["loss"]) for row in rows]
    kept = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert kept == again


class Dropping(Line):
    """Draws from torch's own generator in its forward pass."""

    def loss(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, y = batch
        return super().loss((torch.nn.functional.dropout(x, 0.5), y))


def test_dropout_resumes_exactly_too(tmp_path: Path) -> None:
    whole, resumed, before = Dropping(), Dropping(), torch.random.get_rng_state()
    rows = train(whole, points, **PLAIN)
    assert len({round(row["loss"], 6) for row in rows}) == STEPS
    with pytest.raises(Dies):
        train(Dropping(at_step(4, die)), points, folder=tmp_path, checkpoint_every=2, **PLAIN)
    torch.rand(3)
    train(resumed, points, folder=tmp_path, resume=True, **PLAIN)
    assert same(resumed, whole)
    assert not same(whole, Line())
    torch.random.set_rng_state(before)


def test_a_log_cut_in_a_line_is_mended(tmp_path: Path) -> None:
    with pytest.raises(Dies):
        train(Line(at_step(4, die)), points, folder=tmp_path, checkpoint_every=2, **PLAIN)
    log = tmp_path / "log.jsonl"
    assert len(log.read_text("utf-8").splitlines()) == 4
    log.write_text(log.read_text("utf-8") + '{"step": 5, "lo', "utf-8")
    train(Line(), points, folder=tmp_path, resume=True, **PLAIN)
    assert [json.loads(line)["step"] for line in log.read_text("utf-8").splitlines()] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    first, second = Line(), Line()
    rows = train(first, points, folder=tmp_path, **PLAIN)
    assert train(second, points, folder=tmp_path, resume=True, **PLAIN) == rows
    assert same(first, second)


def test_momentum_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    train(Line(), points, folder=tmp_path, **PLAIN)
    tensors, card = store.load(tmp_path / CHECKPOINT)
    assert set(tensors) == {
        "objective.line.weight",
        "objective.line.bias",
        "optimiser.0.momentum_buffer",
        "optimiser.1.momentum_buffer",
    }
    assert card["step"] == STEPS
    assert sorted(file.name for file in tmp_path.iterdir()) == [CHECKPOINT, "log.jsonl"], (
        "no temporary is left"
    )


def test_adam_resumes_exactly(tmp_path: Path) -> None:
    class Adam(Line):
        def optimiser(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.05, betas=(0.8, 0.9), amsgrad=True)

    whole, resumed = Adam(), Adam()
    train(whole, points, **PLAIN)
    with pytest.raises(Dies):
        train(Adam(at_step(5, die)), points, folder=tmp_path, checkpoint_every=2, **PLAIN)
    train(resumed, points, folder=tmp_path, resume=True, **PLAIN)
    assert same(resumed, whole)


@pytest.mark.parametrize(
    ("number", "ends", "code"), [(signal.SIGTERM, SystemExit, 143), (signal.SIGINT, KeyboardInterrupt, None)]
)
def test_a_signal_saves_and_stops(
    number: int, ends: type[BaseException], code: int | None, tmp_path: Path
) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(ends) as stop:
        train(Line(at_step(2, send(number))), points, folder=tmp_path, **{**PLAIN, "log_every": 10})
    assert getattr(stop.value, "code", None) == code
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert store.load_card(tmp_path / CHECKPOINT)["step"] == 3, "the step is finished first"
    whole, resumed = Line(), Line()
    train(whole, points, **PLAIN)
    rows = train(resumed, points, folder=tmp_path, resume=True, **{**PLAIN, "log_every": 10})
    assert same(resumed, whole)
    assert [row["step"] for row in rows] == [3, 6]


def test_a_signal_in_the_last_step_finishes(tmp_path: Path) -> None:
    rows = train(Line(at_step(STEPS - 1, send(signal.SIGTERM))), points, folder=tmp_path, **PLAIN)
    assert rows[-1]["step"] == STEPS


def test_ctrl_c_twice_stops_at_once(tmp_path: Path) -> None:
    def twice(_: Tensor) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(Line(at_step(2, twice)), points, folder=tmp_path, **PLAIN)
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_numbers_stop_and_leave_the_batch(bad: float, tmp_path: Path) -> None:
    hook = at_step(4, lambda y: y * bad)
    with pytest.raises(
        NotFinite,
        match=r"The loss is (nan|inf) at step 4: training stopped\. The batch is in .*not_finite_0\.kizu",
    ) as said:
        train(Line(hook), points, folder=tmp_path, checkpoint_every=2, **PLAIN)
    assert "smaller learning rate" in str(said.value)
    tensors, card = store.load(tmp_path / "not_finite_0.kizu")
    assert card["step"] == 4
    position = Position(4, 4 * BATCH, BATCH)
    assert torch.equal(tensors["batch.0"], Line().prepare(points(position), position)[0])
    assert store.load_card(tmp_path / CHECKPOINT)["step"] == 4
    kept = store.load(tmp_path / CHECKPOINT)[0]
    assert all(torch.isfinite(value).all() for value in kept.values())


def test_bad_numbers_without_a_folder() -> None:
    with pytest.raises(NotFinite, match=r"at step 0: training stopped\. Try"):
        train(Line(at_step(0, lambda y: y * float("nan"))), points, **PLAIN)


def test_the_streams_own_error_comes_through() -> None:
    def broken(position: Position) -> Any:
        raise LookupError(f"no image {position.first}")

    with pytest.raises(LookupError, match="no image 0"):
        train(Line(), broken, **PLAIN)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    recipe = {"size": (32, 32), "eta": 0.1}
    train(Line(), points, folder=tmp_path, recipe=recipe, **PLAIN)
    train(Line(), points, folder=tmp_path, recipe=recipe, resume=True, **PLAIN)
    with pytest.raises(UsageError, match=r"of another recipe: eta was 0\.1 there and is 0\.2 here"):
        train(Line(), points, folder=tmp_path, recipe={**recipe, "eta": 0.2}, resume=True, **PLAIN)
    with pytest.raises(UsageError, match="another recipe: steps was 6 there and is 7 here"):
        train(Line(), points, folder=tmp_path, recipe=recipe, resume=True, **{**PLAIN, "steps": 7})
    with pytest.raises(UsageError, match="of another detector: None there, simplenet here"):
        train(
            Line(), points, folder=tmp_path, recipe={**recipe, "detector": "simplenet"}, resume=True, **PLAIN
        )
    with pytest.raises(UsageError, match="another recipe: more was None there"):
        train(Line(), points, folder=tmp_path, recipe={**recipe, "more": 1}, resume=True, **PLAIN)


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no checkpoint to resume from"):
        train(Line(), points, folder=tmp_path, resume=True, **PLAIN)
    train(Line(), points, folder=tmp_path, **PLAIN)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    for share in (0.9, 0.3, 0.0):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ModelFileError, match="damaged"):
            train(Line(), points, folder=tmp_path, resume=True, **PLAIN)
    store.save(path, {}, {"kind": "representation"}, overwrite=True)
    with pytest.raises(ModelFileError, match="holds a representation, not a checkpoint"):
        train(Line(), points, folder=tmp_path, resume=True, **PLAIN)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    train(Line(), points, folder=tmp_path, **PLAIN)
    other = Line()
    other.line = torch.nn.Linear(5, 1)
    with pytest.raises(ModelFileError, match="does not fit this run"):
        train(other, points, folder=tmp_path, resume=True, **PLAIN)


BAD = [
    ({"steps": 0}, "steps is a whole number from 1 on, got 0"),
    ({"steps": 2.5}, "steps is a whole number from 1 on, got 2.5"),
    ({"batch_size": -8}, "batch_size is a whole number"),
    ({"accumulate": True}, "accumulate is a whole number"),
    ({"checkpoint_every": 0}, "checkpoint_every is a whole number"),
    ({"log_every": -1}, "log_every is a whole number"),
    ({"devices": 0}, "devices is a whole number"),
    ({"nodes": -2}, "nodes is a whole number"),
    ({"steps": float("nan")}, "steps is a whole number"),
    ({"clip": 0.0}, "clip is a finite number, above 0; got 0.0"),
    ({"clip": float("nan")}, "clip is a finite number"),
    ({"accumulate": 3}, "A batch of 8 cannot be shared by 1 processes x 3 parts"),
    ({"precision": "fp8"}, "precision is auto, fp32 or bf16, got 'fp8'"),
    ({"device": "gpu"}, "device is auto, cpu, cuda"),
    ({"resume": True}, "resume needs the folder"),
]


@pytest.mark.parametrize(("settings", "says"), BAD)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        train(Line(), points, **{**PLAIN, **settings})


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no GPU"):
        train(Line(), points, **{**PLAIN, "device": "cuda"})


def test_who_started_us(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == (1, 1)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert launched() == (1, 1), "another launcher's variable alone says nothing"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert launched() == (4, 2)


def test_bf16_trains() -> None:
    rows = train(Line(), points, **{**PLAIN, "steps": 60, "precision": "bf16"})
    assert rows[-1]["loss"] < rows[0]["loss"] / 10
