"""What every protocol owes: a pure function of (samples, seed) that never hands a tested image to training,
nor an anomalous one where good ones are learned from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kizu import registry
from kizu.protocols.base import Split
from kizu.samples import Samples

BOTH_CLASSES = {"two_class"}
"""Protocols that learn from anomalous images as well."""
ON_PURPOSE = {"noisy"}
"""Protocols that learn from some of the test images."""
FEW: dict[str, dict[str, object]] = {"imbalanced": {"anomalies": 5, "normals": 8, "shots": 3}}
"""Protocols that test on few of the anomalous images: what they are asked for."""


@pytest.fixture(params=registry.names("protocols"))
def protocol(request: pytest.FixtureRequest) -> Callable[..., Split]:
    return registry.load("protocols", request.param)


@pytest.mark.parametrize("official", [True, False])
def test_contract(protocol: Callable[..., Split], official: bool, tiny_planted: Samples) -> None:
    import polars as pl

    samples = (
        tiny_planted if official else Samples(tiny_planted.table.with_columns(split=pl.lit(None, pl.String)))
    )
    parameters = FEW.get(protocol.__name__, {})
    split = protocol(samples, seed=1, **parameters)
    assert isinstance(split, Split)
    assert split.protocol == protocol.__name__
    assert split.seed == 1
    assert len(split.train) > 0
    assert bool(len(split.train.anomalous)) == (protocol.__name__ in BOTH_CLASSES)
    assert not len(split.calibration.anomalous)
    assert set(split.train.paths) & set(split.test.paths) == set(split.overlap)
    assert bool(split.overlap) == (protocol.__name__ in ON_PURPOSE)
    assert not set(split.calibration.paths) & set(split.test.paths)
    assert len(split.test.normal) > 0
    assert len(split.test.anomalous) + len(split.train.anomalous) == parameters.get("anomalies", 12)
    assert len(split.test.anomalous) > 0
    again = protocol(samples, seed=1, **parameters)
    assert again.train == split.train
    assert again.test == split.test
