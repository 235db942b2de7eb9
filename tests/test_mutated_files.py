"""Spoiled model files of every kind: each loads and works, or is refused by an error of kizu's own.

KIZU_MUTATED_FILES is how many (200 when unset), or the range of seeds FIRST:END, for a run in pieces. A fault
is printed with its seed: that seed and the next, FIRST:END, repeat it."""

from __future__ import annotations

import collections
import json
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mutations
import pytest
import safetensors.torch
import torch
from PIL import Image

import kizu
from kizu import registry, store
from kizu.adaptation.base import Adaptation
from kizu.detectors.base import Detector
from kizu.detectors.learned import LearnedDetector
from kizu.detectors.runtime import build
from kizu.errors import ImageError, KizuError
from kizu.images import open_image
from kizu.nn.projector import Projector
from kizu.representations.projected import Projected
from kizu.representations.residual import Residual
from kizu.representations.sources import open_representation, save_representation
from kizu.representations.stacked import Stacked
from kizu.training import FitOptions, SampleStore
from kizu.types import Batch

SECONDS = 10
"""Of computing, for one file."""
GROWTH = 2**30
"""Bytes by which the process may grow at its peak: a card of 16 MiB takes 400 MB to read."""
SIDE = 64


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def learned_from(detector: Detector) -> list[Batch]:
    labels = None if detector.supervision == "normal" else torch.arange(6) % 2
    return [Batch(images(6), labels=labels)]


def small(
    name: str, net: Any, *, steps: int = 2, adaptation: Adaptation | None = None, **parameters: Any
) -> Detector:
    """A detector that is fitted in a moment."""
    kind = registry.load("detectors", name)
    tiny = kind.tiny(net, adaptation=adaptation)
    brief = {"iterations": steps} if isinstance(tiny, LearnedDetector) else {}
    made: Detector = build(
        kind, tiny.representation, {**tiny.parameters, **brief, **parameters}, adaptation=tiny.adaptation
    )
    return made


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[mutations.Parts]:
    """Every detector with trained weights and calibrated, and on residuals of random ones; the other form of
    PaDiM's file; every kind of representation; a checkpoint."""
    folder = tmp_path_factory.mktemp("models")
    state = {
        name.removeprefix("net."): value
        for name, value in open_representation("random/test_resnet@1,2", seed=5).state_dict().items()
    }
    safetensors.torch.save_file(state, folder / "test_resnet.safetensors")
    trained = open_representation(f"test_resnet:{folder / 'test_resnet.safetensors'}@1,2")
    drawn = open_representation("random/test_resnet@1,2")
    made: list[mutations.Parts] = []

    def keep(what: str, path: Path) -> None:
        made.append(mutations.of(path, what))

    for name in registry.names("detectors"):
        plain = small(name, trained)
        plain.fit(learned_from(plain))
        plain.set_calibration(plain.predict(images(20, seed=1)).score, 0.1, map_range=(0.0, 2.0))
        keep(name, plain.save(folder / f"{name}.kizu"))
        adapted = small(name, drawn, adaptation=Adaptation("residual", {"shots": 2}))
        if name not in ("classifier", "tdg"):
            adapted.fit(learned_from(adapted))
            keep(f"{name} on residuals", adapted.save(folder / f"{name}_residual.kizu"))
    few = small("padim", trained, dimensions=8)
    keep("padim of few channels", few.fit(images(6)).save(folder / "padim_few.kizu"))
    kinds = {
        "random": drawn,
        "trained": trained,
        "transformer": open_representation("random/test_vit@2,4"),
        "residual": Residual(trained, [torch.rand(9, width) for width in trained.channels]),
        "stacked": Stacked([drawn, trained]),
        "projected": Projected(trained, Projector(trained.channels, references=5)),
        "aligned": aligned(drawn),
    }
    for what, net in kinds.items():
        keep(what, save_representation(net, folder / f"{what}.kizu"))
    keep("checkpoint", interrupted(folder / "run", drawn))
    return made


def aligned(net: Any) -> Any:
    """Residuals to images that are chosen for each image."""
    good = SampleStore()
    good.add(Batch(images(4)))
    given = {"references": "aligned", "shots": 2, "grid": 2, "centres": 2}
    return Adaptation("residual", given).adapt(net, good)


def interrupted(folder: Path, net: Any) -> Path:
    """A checkpoint of step 1 of 2."""
    small("simplenet", net, steps=1).fit(images(6), options=FitOptions(folder=folder))
    tensors, card = store.load(folder / "checkpoint.kizu")
    card["recipe"] |= {"iterations": 2, "steps": 2}
    return store.save(folder / "checkpoint.kizu", tensors, card, overwrite=True)


def use(model: mutations.Parts, path: Path) -> None:
    """Load a file as what it was, and look at one image."""
    kind = json.loads(model.card)["kind"]
    if kind == "detector":
        kizu.load(path, device="cpu").predict(images(1))
    elif kind == "representation":
        open_representation(path).inference_copy("fp32", "cpu")(images(1))
    else:
        folder = path.parent / "run"
        folder.mkdir()
        path.rename(folder / "checkpoint.kizu")
        options = FitOptions(folder=folder, resume=True)
        small("simplenet", "random/test_resnet@1,2", steps=2).fit(images(6), options=options)


@pytest.fixture
def alarm() -> Iterator[None]:
    """What hangs is stopped."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGPROF, stop)
    yield
    limit(0)
    signal.signal(signal.SIGPROF, before)


def limit(seconds: float) -> None:
    """Stop what computes for longer from now on; 0 lifts it. Waiting for a busy machine does not count."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seeds() -> range:
    first, colon, end = os.environ.get("KIZU_MUTATED_FILES", "200").partition(":")
    return range(int(first), int(end)) if colon else range(int(first))


@pytest.mark.slow
def test_what_was_not_spoiled_works(models: list[mutations.Parts], tmp_path: Path) -> None:
    """Folders and zips in turn."""
    for number, model in enumerate(models):
        place = tmp_path / str(number)
        place.mkdir()
        use(model, model.written(place, as_folder=number % 2 == 0 and model.what != "checkpoint"))


@pytest.mark.slow
@pytest.mark.usefixtures("alarm")
def test_spoiled_files(models: list[mutations.Parts], tmp_path: Path) -> None:
    use(models[0], models[0].written(tmp_path, as_folder=False))
    before, slowest, largest = peak(), (0.0, ""), (0, "")
    outcomes: collections.Counter[str] = collections.Counter()
    faults = []
    for seed in seeds():
        place = tmp_path / str(seed)
        place.mkdir()
        model, other = models[seed % len(models)], models[(seed // len(models)) % len(models)]
        said, path = mutations.spoiled(model, other, seed, place)
        start, high = time.process_time(), peak()
        limit(SECONDS)
        try:
            use(model, path)
            outcome = "loaded"
        except KizuError as error:
            outcome = type(error).__name__
        except BaseException as error:
            outcome = f"FAULT {type(error).__name__}"
            faults.append(f"seed {seed}: {said}: {type(error).__name__}: {str(error)[:200]}")
            print(faults[-1], flush=True)
        limit(0)
        outcomes[outcome] += 1
        slowest = max(slowest, (time.process_time() - start, f"{seed}: {said}"))
        largest = max(largest, (peak() - high, f"{seed}: {said}"))
        shutil.rmtree(place)
        growth = peak() - before
        if seed == seeds()[-1] or not (seed + 1) % 250:
            figures = {"slowest": slowest, "largest_step": largest, "growth": growth, **outcomes}
            print(f"FIGURES up to seed {seed}", json.dumps(figures, ensure_ascii=False), flush=True)
    assert not faults, "\n".join(faults)
    assert growth < GROWTH, largest


@pytest.mark.slow
@pytest.mark.usefixtures("alarm")
@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd metadata, and reads on
def test_spoiled_images(tmp_path: Path) -> None:
    """Each is read, or refused by an ImageError; as many as model files, ten times."""
    colours = (images(1)[0] * 255).byte().permute(1, 2, 0).numpy()
    whole = []
    for suffix in (".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm", ".jp2"):
        Image.fromarray(colours).save(tmp_path / f"whole{suffix}")
        whole.append(tmp_path / f"whole{suffix}")
    before, slowest = peak(), (0.0, 0)
    outcomes: collections.Counter[str] = collections.Counter()
    for seed in range(10 * seeds()[0], 10 * seeds()[-1] + 10):
        chance, source = random.Random(seed), whole[seed % len(whole)]
        _, data = mutations.some_bytes(source.read_bytes(), chance)
        (tmp_path / "spoiled").write_bytes(data)
        start = time.process_time()
        limit(SECONDS)
        try:
            open_image(tmp_path / "spoiled", size=(SIDE, SIDE))
            outcomes["read"] += 1
        except ImageError:
            outcomes["ImageError"] += 1
        limit(0)
        slowest = max(slowest, (time.process_time() - start, seed))
    print("FIGURES of images", slowest, "growth", peak() - before, dict(outcomes), flush=True)
    assert outcomes["ImageError"] > outcomes.total() / 10 < outcomes["read"]
    assert peak() - before < GROWTH
