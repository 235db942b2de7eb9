"""The figures of MVTec LOCO AD: structural and logical anomalies apart, AUROC of images and sPRO at the
images' own size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import torch

from kizu.datasets.mvtec_loco import KINDS, defects
from kizu.errors import DataError
from kizu.images import image_shape
from kizu.maps import upsample
from kizu.metrics.loco_auroc import loco_auroc
from kizu.metrics.spro import spro
from kizu.samples import Samples

FPR_LIMIT = 0.05


def loco_figures(test: Samples, scores: np.ndarray, maps: np.ndarray | None) -> dict[str, Any]:
    """{"loco": {"auroc_structural", "auroc_logical", "auroc_mean", "spro_0.05_structural", ...}} of one
    category; {} for another data set.

    scores (n,), maps (n, H, W) or None, in the rows of `test`. Maps are brought to the images' size
    bilinearly. sPRO is null without maps, or where defects_config.json or a mask cannot be read; all is null
    unless good, structural and logical images are there."""
    if set(test.table["dataset"]) != {"mvtec_loco"}:
        return {}
    kinds = np.where(test.labels == 0, "good", np.asarray(test.table["defect"].to_list()))
    if set(kinds.tolist()) != {"good", *KINDS}:
        return {"loco": None}
    figures: dict[str, float | None] = {
        f"auroc_{name}": value for name, value in loco_auroc(scores, kinds.tolist()).items()
    }
    by_kind = {
        kind: None if maps is None else _spro(test, maps, np.flatnonzero((kinds == kind) | (kinds == "good")))
        for kind in KINDS
    }
    figures |= {f"spro_{FPR_LIMIT}_{kind}": value for kind, value in by_kind.items()}
    known = [value for value in by_kind.values() if value is not None]
    return {
        "loco": {
            **figures,
            f"spro_{FPR_LIMIT}_mean": sum(known) / len(known) if len(known) == len(KINDS) else None,
        }
    }


def _spro(test: Samples, maps: np.ndarray, rows: np.ndarray) -> float | None:
    """sPRO of these rows; nothing is held at full size but one image at a time."""
    paths, masks = test.table["image"].to_list(), test.table["mask"].to_list()

    def size(row: int) -> tuple[int, int]:
        return image_shape(paths[row])

    def heat(row: int) -> np.ndarray:
        return upsample(torch.from_numpy(maps[row][None]).float(), size(row), sigma=0.0)[0].numpy()

    def layers(row: int) -> np.ndarray:
        return (
            np.stack([one.mask for one in defects(masks[row])])
            if masks[row]
            else np.zeros((0, *size(row)), bool)
        )

    def areas(row: int) -> np.ndarray:
        return np.array([one.saturation for one in defects(masks[row])] if masks[row] else [], np.int64)

    try:
        return spro(_Asked(heat, rows), _Asked(layers, rows), _Asked(areas, rows), FPR_LIMIT)
    except DataError:
        return None


class _Asked(Sequence[Any]):
    """A sequence whose items are made when asked for."""

    def __init__(self, make: Callable[[int], Any], rows: np.ndarray) -> None:
        self._make, self._rows = make, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return (
            _Asked(self._make, self._rows[index])
            if isinstance(index, slice)
            else self._make(int(self._rows[index]))
        )
