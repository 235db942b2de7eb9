"""Features of test images in two dimensions, one panel for each stage of an adaptation: t-SNE.

Source: van der Maaten and Hinton, JMLR 9, 2008, by scikit-learn; the picture is Fig. 3 of few-shot
contrastive fine-tuning: 1,500 test images, without adaptation and with one loss after the other. Neighbours
stay neighbours; sizes of clusters and the distances between them mean nothing, so a figure belongs beside
it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizu.checks import numbers, whole_numbers
from kizu.errors import UsageError
from kizu.reports import _chart


def feature_embedding(
    stages: Mapping[str, Any],
    labels: Any,
    out: Path | str,
    *,
    limit: int = 1500,
    perplexity: float = 30.0,
    seed: int = 0,
) -> Path:
    """Write one panel for each stage to `out` (.png or .svg) and return the path.

    stages: name -> pooled features (n, D) of the same n images, D free for each stage. labels: (n,), 0 good,
    1 anomalous. limit: how many images are shown at most, the same for all stages, drawn from `seed`.
    perplexity: how many neighbours count, below the number of images. Each panel has axes of its own, without
    a scale. Raises UsageError, DataError, NotFinite, OutputExists.

    >>> import tempfile
    >>> rng = np.random.default_rng(0)
    >>> before, after = rng.normal(size=(40, 8)), rng.normal(size=(40, 8))
    >>> after[20:] += 6
    >>> names = {"pretrained": before, "adapted": after}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     feature_embedding(names, [0] * 20 + [1] * 20, Path(folder) / "stages.png", perplexity=5).name
    'stages.png'
    """
    whole_numbers(limit=limit)
    whole_numbers(least=0, seed=seed)
    numbers(least=0, above=True, perplexity=perplexity)
    names, truth = _chart.titles(stages), _chart.checked_labels(labels)
    _chart.checked_suffix(out)
    features = [_chart.checked_numbers(name, stages[name], 2, len(truth)) for name in stages]
    shown = _shown(len(truth), limit, seed)
    if not perplexity < len(shown):
        raise UsageError(
            f"perplexity={perplexity:g} takes more than {len(shown)} images; give a smaller one."
        )
    drawn, every = _chart.panels(len(names))
    for axes, name, rows in zip(every, names, features, strict=True):
        _scatter(axes, embedded(rows[shown], perplexity, seed), truth[shown])
        axes.set_title(name, fontsize=10)
    drawn.legend(*every[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=2)
    return _chart.save(drawn, out)


def embedded(features: NDArray[np.float64], perplexity: float, seed: int) -> NDArray[np.float64]:
    """Features (n, D) -> (n, 2): t-SNE from their principal components, the same for the same seed."""
    from sklearn.manifold import TSNE

    wide = features if features.shape[1] > 1 else np.pad(features, ((0, 0), (0, 1)))
    made = TSNE(init="pca", learning_rate="auto", perplexity=perplexity, random_state=seed)
    return np.asarray(made.fit_transform(wide), dtype=np.float64)


def _shown(count: int, limit: int, seed: int) -> NDArray[np.int64]:
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


def _scatter(axes: Any, places: NDArray[np.float64], truth: NDArray[np.int64]) -> None:
    """Good images as dots below, anomalous ones as crosses above them."""
    size = float(np.clip(600 / max(len(places), 1), 5, 28))
    groups = (("good", 0, "o", _chart.GOOD), ("anomalous", 1, "x", _chart.ANOMALOUS))
    for word, label, marker, ink in groups:
        own = places[truth == label]
        style: dict[str, Any] = {"lw": 0} if marker == "o" else {"lw": 0.8}
        axes.scatter(own[:, 0], own[:, 1], s=size, marker=marker, c=ink, alpha=0.75, label=word, **style)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#dee1e6")
