"""The verdict in plain sentences, word for word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from kizu.reports import _words
from kizu.reports._run import COLUMNS, Run

NBSP = "\N{NO-BREAK SPACE}"


def run(
    good: tuple[int, int],
    flawed: tuple[int, int],
    *,
    promised: float | None = 0.05,
    unlabelled: int = 0,
    decided: bool = True,
) -> Run:
    """`good` and `flawed`: (how many, how many of them called anomalous)."""
    labels = [0] * good[0] + [1] * flawed[0] + [None] * unlabelled
    called = (
        [i < good[1] for i in range(good[0])]
        + [i < flawed[1] for i in range(flawed[0])]
        + [False] * unlabelled
    )
    frame = pl.DataFrame(
        {"label": labels, "is_anomalous": called if decided else [None] * len(labels)},
        schema_overrides=COLUMNS,
    )
    calibration: dict[str, Any] | None = (
        {"images": 40, "false_alarm_rate": promised, "threshold": 1.0} if decided else None
    )
    info = {"detector": "padim", "category": "screw", "counts": {"train": 1}, "calibration": calibration}
    return Run(Path("r"), info, frame, {}, {})


def test_measured() -> None:
    said = _words.measured(run((40, 2), (60, 57)))
    assert said == [
        f"Of 40 good parts, 2 were called anomalous (5{NBSP}%; promised: at most 5{NBSP}%).",
        f"Of 60 flawed parts, 57 were found (95{NBSP}%).",
    ]
    assert _words.measured(run((1, 1), (3, 0), promised=None)) == [
        f"Of 1 good part, 1 was called anomalous (100{NBSP}%).",
        f"Of 3 flawed parts, none were found (0{NBSP}%).",
    ]
    assert (
        _words.measured(run((2, 0), (1, 0), unlabelled=3))[-1]
        == "3 images carried no label and cannot be judged."
    )
    assert _words.measured(run((2, 0), (1, 0), unlabelled=3, decided=False)) == [
        "The test holds 2 good parts and 1 flawed part and 3 unlabelled images."
    ]
    assert _words.measured(run((0, 0), (0, 0))) == ["The test holds no images."]


def test_learnt() -> None:
    assert _words.learnt(run((1, 0), (1, 0))) == (
        "The padim detector was trained on 1 good image (screw). Its threshold was set on 40 other good "
        f"images so that on average at most 5{NBSP}% of good parts raise a false alarm."
    )
    crossed = run((1, 0), (1, 0))
    crossed.info["calibration"]["method"] = "cross"
    assert _words.learnt(crossed).endswith(
        "on the same images, each judged by a detector that had not learnt from it, for about "
        f"5{NBSP}% false alarms: an estimate, no promise."
    )
    certified = run((1, 0), (1, 0))
    certified.info["calibration"] |= {"parts": 20, "certified_rate": 0.13}
    assert "on 40 other good images of 20 parts so that" in _words.learnt(certified)
    assert _words.learnt(certified).endswith(f"this threshold's rate is at most 13{NBSP}%.")
    assert "gives scores, but no decisions" in _words.learnt(run((1, 0), (1, 0), decided=False))


@pytest.mark.parametrize(
    ("alarms", "said"),
    [
        (2, "The promise held on these images."),
        (4, "That is more than promised, but with 40 good parts it can be chance."),
        (9, "The promise did not hold"),
    ],
)
def test_promise(alarms: int, said: str) -> None:
    """5 % promised, 40 good parts: 4 are within chance (Wilson from 4.0 %), 9 are not (from 12.3 %)."""
    assert _words.sureness(run((40, alarms), (60, 57))).startswith(said)
    assert _words.sureness(run((40, alarms), (60, 57), decided=False)) == ""
    crossed = run((40, alarms), (60, 57))
    crossed.info["calibration"]["method"] = "cross"
    assert _words.sureness(crossed).startswith(
        {2: "The estimate held", 4: "That is more than expected", 9: "The estimate was too low"}[alarms]
    )
    assert "expected: about" in _words.measured(crossed)[0]
