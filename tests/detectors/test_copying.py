"""A fitted detector that has looked at images: copied, pickled, asked by many threads at once, opened on a
device."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import kizu
from kizu import registry
from kizu.errors import UsageError
from kizu.types import Batch

IMAGES = torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def through_torch(detector: Any) -> Any:
    stream = io.BytesIO()
    torch.save(detector, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda detector: pickle.loads(pickle.dumps(detector)),
    "torch.save": through_torch,
}


@pytest.mark.parametrize("name", registry.names("detectors"))
def test_a_used_detector_is_copied_whole(name: str) -> None:
    """The same maps, bit for bit, and the original goes on."""
    kind: Any = registry.load("detectors", name)
    detector = kind.tiny("random/resnet10t@1,2,3")
    labels = torch.arange(12) % 2 if kind.supervision == "labelled" else None
    detector.fit(Batch(IMAGES, labels=labels))
    due = detector.predict(IMAGES).map
    for way, copied in WAYS.items():
        assert torch.equal(copied(detector).predict(IMAGES).map, due), way
    assert torch.equal(detector.predict(IMAGES).map, due)


def test_an_adapted_detector_is_copied_with_its_references() -> None:
    kind: Any = registry.load("detectors", "gaussian")
    detector = kind.tiny("random/resnet10t@1,2", adaptation="residual").fit(IMAGES)
    due = detector.predict(IMAGES).map
    for way, copied in WAYS.items():
        assert torch.equal(copied(detector).predict(IMAGES).map, due), way


def test_eight_first_requests_at_once(tmp_path: Path) -> None:
    """A model that nobody has asked yet, beside a foreign network that computes all the time."""
    fitted = kizu.detector("patchcore", "random/resnet10t@1,2", image_size=64).fit(IMAGES)
    path = fitted.save(tmp_path / "model.kizu")
    due = fitted.predict(IMAGES[:2])
    cold, call = kizu.load(path), nn.Module.__call__
    foreign, stop, errors = nn.Sequential(*(nn.Linear(8, 8) for _ in range(20))), threading.Event(), []
    x = torch.rand(4, 8)
    expected = foreign(x)

    def bystander() -> None:
        while not stop.is_set():
            try:
                assert torch.equal(foreign(x), expected)
                assert nn.Module.__call__ is call
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=bystander)
    thread.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            shared = [pool.submit(cold.predict, IMAGES[:2]) for _ in range(8)]
            own = [pool.submit(lambda: kizu.load(path).predict(IMAGES[:2])) for _ in range(4)]
            found = [future.result() for future in [*shared, *own]]
    finally:
        stop.set()
        thread.join()
    assert not errors
    for one in found:
        assert torch.equal(one.map, due.map)
        assert torch.equal(one.score, due.score)


def test_load_says_where_the_model_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = kizu.detector("gaussian", "random/resnet10t@1,2", image_size=64).fit(IMAGES)
    path = fitted.save(tmp_path / "model.kizu")
    opened = kizu.load(path, device="cpu", precision="fp32")
    assert (opened.device, opened.precision) == ("cpu", "fp32")
    assert kizu.load(path, device=torch.device("cpu")).device == "cpu"
    assert torch.isfinite(opened.predict(IMAGES).map).all()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for wrong in ("cuda", "gpu", 3):
        with pytest.raises(UsageError, match="device"):
            kizu.load(path, device=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="precision"):
        kizu.load(path, precision="fp16")
    with pytest.raises(UsageError, match="path of a model"):
        kizu.load(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="saved under a path"):
        fitted.save(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"options is a kizu\.FitOptions"):
        fitted.clone().fit(IMAGES, options=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="parameters of an adaptation are a dict"):
        kizu.Adaptation("residual", 3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="read from a path"):
        kizu.dataset("folder", None)  # type: ignore[arg-type]
