"""How anomaly scores of good and of anomalous images are spread, one panel for each model.

The picture is Fig. 6 of few-shot contrastive fine-tuning: models from the ablation side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizu.checks import whole_numbers
from kizu.errors import DataError, UnknownName
from kizu.metrics.auroc import auroc
from kizu.reports import _chart
from kizu.reports._run import open_run

KINDS = ("histogram", "density", "both")
_POINTS = 256


def score_distributions(
    models: Mapping[str, Any],
    out: Path | str,
    *,
    labels: Any = None,
    kind: str = "both",
    bins: int = 30,
) -> Path:
    """Write one panel for each model to `out` (.png or .svg) and return the path.

    models: name -> the folder of a run (`kizu evaluate`), or scores (n,), higher is more anomalous. labels:
    (n,), 0 good, 1 anomalous, of all scores that are given as numbers; folders bring theirs, and images
    without a label are left out. kind: "histogram", "density" (a Gaussian kernel, Silverman's bandwidth), or
    "both". Both groups have area 1, whatever their numbers; scores of two models share no scale, so each
    panel has its own. The AUROC stands above it. Raises UsageError, UnknownName, DataError, LayoutError,
    NotFinite, OutputExists.

    >>> import tempfile
    >>> rng = np.random.default_rng(0)
    >>> weak, strong = rng.normal(size=200), rng.normal(size=200)
    >>> strong[100:] += 3
    >>> models = {"pretrained": weak, "adapted": strong}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     score_distributions(models, Path(folder) / "scores.png", labels=[0] * 100 + [1] * 100).name
    'scores.png'
    """
    whole_numbers(bins=bins)
    if kind not in KINDS:
        raise UnknownName("kind of distribution", kind, KINDS)
    names = _chart.titles(models)
    _chart.checked_suffix(out)
    groups = [_groups(name, value, labels) for name, value in models.items()]
    drawn, every = _chart.panels(len(names), high=2.3)
    for axes, name, (good, anomalous) in zip(every, names, groups, strict=True):
        _draw(axes, good, anomalous, kind, bins)
        truth = np.repeat([0, 1], [len(good), len(anomalous)])
        area = auroc(np.concatenate([good, anomalous]), truth)
        axes.set_title(f"{name}\nAUROC {area:.3f}", fontsize=9.5)
    every[0].set_ylabel("density", fontsize=8.5, color=_chart.SOFT)
    for axes in every[-_chart.PER_ROW :]:  # beneath which no other panel stands
        axes.set_xlabel("anomaly score", fontsize=8.5, color=_chart.SOFT)
    drawn.legend(*every[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=2)
    return _chart.save(drawn, out)


def _groups(name: str, value: Any, labels: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of good and of anomalous images."""
    if isinstance(value, str | Path):
        with open_run(value) as run:
            known = run.samples.filter(run.samples["label"].is_in([0, 1]))
            truth, given = known["label"].to_numpy(), known["score"].to_numpy()
    elif labels is None:
        raise DataError(f"{name} is given as numbers: say labels=, 0 good and 1 anomalous, as well.")
    else:
        truth, given = labels, value
    checked = _chart.checked_labels(truth)
    scores = _chart.checked_numbers(f"The scores of {name}", given, 1, len(checked))
    good, anomalous = scores[checked == 0], scores[checked == 1]
    if not len(good) or not len(anomalous):
        raise DataError(f"{name} has {len(good)} good and {len(anomalous)} anomalous images; give both.")
    return good, anomalous


def _draw(axes: Any, good: NDArray[np.float64], anomalous: NDArray[np.float64], kind: str, bins: int) -> None:
    both = np.concatenate([good, anomalous])
    low, high = float(both.min()), float(both.max())
    wide = (high - low) or max(abs(high), 1.0)
    edges = np.linspace(low, low + wide, bins + 1)
    places = np.linspace(low - 0.1 * wide, low + 1.1 * wide, _POINTS)
    for word, scores, ink in (("good", good, _chart.GOOD), ("anomalous", anomalous, _chart.ANOMALOUS)):
        if kind != "density":
            label = word if kind == "histogram" else None
            axes.hist(scores, edges, density=True, color=ink, alpha=0.4, label=label)
        if kind != "histogram":
            curve = kernel_density(scores, places, least=wide / 200)
            axes.plot(places, curve, color=ink, lw=1.4, label=word)
            if kind == "density":
                axes.fill_between(places, curve, color=ink, alpha=0.18, lw=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    axes.set_ylim(bottom=0)


def kernel_density(
    scores: NDArray[np.float64], places: NDArray[np.float64], *, least: float
) -> NDArray[np.float64]:
    """Density of scores (n,) at places (m,): Gaussians of Silverman's width 0.9 min(s, IQR / 1.34) n^(-1/5),
    but at least `least`, so that equal scores are a peak and not a division by zero."""
    quarter, three = np.percentile(scores, [25, 75])
    spread = [one for one in (float(scores.std()), float(three - quarter) / 1.34) if one > 0]
    width = max(0.9 * min(spread, default=0.0) * len(scores) ** -0.2, least)
    total = np.zeros(len(places))
    for score in scores:
        total += np.exp(-0.5 * ((places - score) / width) ** 2)
    return total / (len(scores) * width * np.sqrt(2 * np.pi))
