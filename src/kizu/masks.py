"""Masks as data sets keep them: one file an image, or one folder an image with a file for each of its
defects."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kizu.images import MaskRule, list_images, open_mask

DataMaskRule = MaskRule | Literal["folder"]
"""What a data set's MASK_RULE may be. "half" and "nonzero" are `kizu.images.open_mask`'s rules for one file;
"folder": the mask is the union of all mask files in the folder of the one that is named, each read as
"nonzero" (MVTec LOCO AD: one file a defect)."""


def read_mask(
    path: Path | str, *, shape: tuple[int, int] | None = None, rule: DataMaskRule = "half"
) -> NDArray[np.bool_]:
    """(H, W) bool, True = defect. `shape` is the (H, W) of its image, if it is to be checked. Raises as
    `open_mask`.

    Files that are united must be of one size.
    """
    if rule != "folder":
        return open_mask(path, shape=shape, rule=rule)
    united = open_mask(path, shape=shape, rule="nonzero")
    size = (united.shape[0], united.shape[1])
    for part in list_images(Path(path).parent):
        if part != Path(path):
            united = united | open_mask(part, shape=size, rule="nonzero")
    return united
