"""What "auto" precision is: measured by a clock of our own, kept by machine and network, and stored with what
was made in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import kizu
from kizu import precision, store
from kizu.errors import UsageError
from kizu.precision import FILE, Choice, choose, compare
from kizu.training import FitOptions, Objective, train
from kizu.training import checkpoint as checkpoints
from kizu.training.prefetch import Position

CPU = torch.device("cpu")


class Clock:
    """A clock that runs only while something is computed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: list[float] = []

    def __call__(self) -> float:
        return self.now

    def takes(self, *seconds: float) -> Callable[[], None]:
        """What takes so long at its first call, its second, ...; then as long as the last."""
        left = list(seconds)

        def run() -> None:
            spent = left.pop(0) if len(left) > 1 else left[0]
            self.runs.append(spent)
            self.now += spent

        return run


@pytest.fixture
def measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with bf16, a cache folder of its own, and nothing known yet."""
    monkeypatch.setenv("KIZU_PRECISION", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    monkeypatch.setattr(precision, "_KNOWN", {})
    monkeypatch.setattr(precision, "cache_folder", lambda: tmp_path / "cache" / "kizu")
    return tmp_path / "cache" / "kizu"


def faster(monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float) -> list[int]:
    """From now on a measurement gives these seconds; the list grows by one for each."""
    asked: list[int] = []

    def measured(*_: object) -> tuple[float, float]:
        asked.append(1)
        return fp32, bf16

    monkeypatch.setattr(precision, "compare", measured)
    return asked


def chosen(network: str = "net") -> Choice:
    return choose("auto", CPU, lambda: network, lambda dtype: lambda: None)


def test_two_clear_rounds_end_it() -> None:
    clock = Clock()
    found = compare(clock.takes(5e-3, 3e-3), clock.takes(9e-3, 1e-3), clock)
    assert found == pytest.approx((3e-3, 1e-3))
    assert len(clock.runs) == 6  # a round to warm up, and two


def test_nearly_equal_ones_are_run_some_times_and_the_least_counts() -> None:
    clock = Clock()
    found = compare(clock.takes(9e-3, 3e-3, 2e-3, 3.2e-3), clock.takes(9e-3, 3e-3, 4e-3, 2.1e-3, 3e-3), clock)
    assert found == pytest.approx((2e-3, 2.1e-3))
    assert len(clock.runs) == 2 * (1 + precision.ROUNDS)


def test_a_slow_network_is_run_once_each() -> None:
    clock = Clock()
    assert compare(clock.takes(3.0), clock.takes(2.0), clock) == (3.0, 2.0)
    assert len(clock.runs) == 2


@pytest.mark.parametrize(
    ("fp32", "bf16", "expected"),
    [(8e-3, 3e-3, "bf16"), (3e-3, 8e-3, "fp32"), (1.0e-3, 1.09e-3, "bf16"), (1.0e-3, 1.11e-3, "fp32")],
)
@pytest.mark.usefixtures("measures")
def test_the_faster_one_and_bf16_where_they_are_alike(
    fp32: float, bf16: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster(monkeypatch, fp32, bf16)
    assert chosen().precision == expected
    assert chosen().how.startswith("measured: ")


def test_it_is_measured_once_and_kept(measures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = faster(monkeypatch, 3e-3, 8e-3)
    first = chosen()
    assert (first.precision, first.how) == ("fp32", "measured: 3.0 ms against 8.0 ms")
    assert chosen() == first
    monkeypatch.setattr(precision, "_KNOWN", {})  # another process
    assert chosen() == first
    assert len(asked) == 1
    chosen("another network")
    assert len(asked) == 2
    monkeypatch.setattr(precision, "_KNOWN", {})
    monkeypatch.setattr(precision, "machine", lambda: "another")
    chosen()
    assert len(asked) == 3
    assert len(json.loads((measures / FILE).read_text("utf-8"))["choices"]) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kizu_format": 1, "choices": {"a": 3, "b": {}}}', "\0"])
def test_a_cache_that_cannot_be_read_is_no_error(
    content: str, measures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures.mkdir(parents=True)
    (measures / FILE).write_text(content)
    faster(monkeypatch, 3e-3, 8e-3)
    assert chosen().precision == "fp32"


def test_a_cache_that_cannot_be_written_is_no_error(measures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measures.parent.mkdir(parents=True)
    measures.write_text("a file where the folder should be")
    asked = faster(monkeypatch, 3e-3, 8e-3)
    assert chosen().precision == chosen().precision == "fp32"
    assert len(asked) == 1  # this process knows


@pytest.mark.usefixtures("measures")
def test_what_cannot_be_tried_is_bf16() -> None:
    def prepare(dtype: torch.dtype) -> Callable[[], object]:
        raise RuntimeError("images of another size")

    assert choose("auto", CPU, lambda: "net", prepare).precision == "bf16"


@pytest.mark.usefixtures("measures")
def test_what_is_said_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = faster(monkeypatch, 3e-3, 8e-3)
    assert choose("bf16", CPU, lambda: "net", lambda dtype: lambda: None).precision == "bf16"
    monkeypatch.setenv("KIZU_PRECISION", "bf16")
    assert chosen().how == "as KIZU_PRECISION says"
    monkeypatch.setenv("KIZU_PRECISION", "double")
    with pytest.raises(UsageError, match="KIZU_PRECISION is 'double'"):
        chosen()
    monkeypatch.setenv("KIZU_PRECISION", "")
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    assert chosen().precision == "fp32"
    assert not asked


@pytest.mark.usefixtures("measures")
def test_one_network_is_tried_once_however_it_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    from kizu.representations import Stacked

    asked = faster(monkeypatch, 3e-3, 8e-3)
    net = kizu.representation("random/resnet10t@1")
    assert net.choose_precision("auto", CPU).precision == "fp32"
    assert Stacked([net, kizu.representation("random/resnet10t@1")]).inference_copy().dtype == torch.float32
    assert len(asked) == 1
    kizu.representation("random/resnet10t@1,2").inference_copy()
    assert len(asked) == 2


@pytest.mark.usefixtures("measures")
def test_a_network_is_really_tried() -> None:
    found = kizu.representation("random/resnet10t@1").choose_precision("auto", CPU)
    assert found.how.startswith("measured: ")


@pytest.mark.usefixtures("measures")
def test_a_model_opens_as_it_was_fitted_on_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster(monkeypatch, 3e-3, 8e-3)
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = kizu.detector("gaussian", "random/resnet10t@1", image_size=32).fit(images)
    path = model.save(tmp_path / "model.kizu")
    card = store.load_card(path)
    assert card["precision"]["precision"] == "fp32"
    assert card["precision"]["how"] == "measured: 3.0 ms against 8.0 ms"
    assert card["parameters"]["precision"] == "auto"
    monkeypatch.setattr(precision, "_KNOWN", {})
    (precision.cache_folder() / FILE).unlink()
    asked = faster(monkeypatch, 8e-3, 3e-3)
    again = kizu.load(path)
    assert torch.equal(again.predict(images).score, model.predict(images).score)
    assert not asked
    monkeypatch.setattr(precision, "machine", lambda: "another")
    elsewhere = kizu.load(path)
    elsewhere.predict(images)
    assert elsewhere.precision_ is not None
    assert elsewhere.precision_.precision == "bf16"
    assert kizu.load(path, precision="bf16").precision == "bf16"


class Line(Objective):
    """y = a x, by gradient descent; a stumble after some steps."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 1)
        with torch.no_grad():
            self.net.weight.fill_(0.3)
            self.net.bias.zero_()

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.net(batch).float() - batch.sum(1, keepdim=True)).square().mean()}

    def optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def stream(position: Position) -> Tensor:
    return torch.stack([torch.rand(4, generator=one) for one in position.generators(0)])


@pytest.mark.usefixtures("measures")
def test_trying_a_step_changes_nothing() -> None:
    plain, tried = Line(), Line()
    before = torch.random.get_rng_state()
    train(tried, stream, steps=3, batch_size=4, device="cpu", show=False)
    assert tried.precision_ is not None
    assert tried.precision_.how.startswith("measured: ")
    assert torch.equal(torch.random.get_rng_state(), before)
    train(
        plain, stream, steps=3, batch_size=4, precision=tried.precision_.precision, device="cpu", show=False
    )
    assert torch.equal(plain.net.weight, tried.net.weight)


@pytest.mark.usefixtures("measures")
def test_a_resumed_training_keeps_its_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(folder: Path, *, stop: bool = False, resume: bool = False) -> Line:
        made = Line()

        def hook(step: int, steps: int) -> None:
            if stop and step == 4:
                raise KeyboardInterrupt

        train(
            made, stream, steps=8, batch_size=4, checkpoint_every=2, folder=folder, resume=resume,
            device="cpu", show=False, on_step_end=hook,
        )  # fmt: skip
        return made

    faster(monkeypatch, 3e-3, 8e-3)
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop=True)
    kept = checkpoints.precision_of(tmp_path / "cut")
    assert kept is not None
    assert kept.precision == "fp32"
    monkeypatch.setattr(precision, "_KNOWN", {})
    (precision.cache_folder() / FILE).unlink()
    asked = faster(monkeypatch, 8e-3, 3e-3)
    again = run(tmp_path / "cut", resume=True)
    assert not asked
    assert torch.equal(again.net.weight, whole.net.weight)


@pytest.mark.usefixtures("measures")
def test_a_resumed_fit_computes_its_features_as_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    options = {"image_size": 32, "iterations": 6, "batch_size": 4, "hidden": 8}

    def fit(folder: Path, *, stop: bool = False, resume: bool = False) -> Tensor:
        model = kizu.detector("simplenet", "random/resnet10t@1", **options)

        def progress(count: int, words: str) -> None:
            if stop and words.startswith("training, step 4"):
                raise KeyboardInterrupt

        model.fit(
            images,
            options=FitOptions(progress=progress, folder=folder, resume=resume, checkpoint_every=2),
        )
        return model.predict(images).score

    faster(monkeypatch, 3e-3, 8e-3)
    whole = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", stop=True)
    monkeypatch.setattr(precision, "_KNOWN", {})
    (precision.cache_folder() / FILE).unlink()
    asked = faster(monkeypatch, 8e-3, 3e-3)
    assert torch.equal(fit(tmp_path / "cut", resume=True), whole)
    assert not asked
