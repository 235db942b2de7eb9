"""Packed images -> class folders: an .npz of JPEG bytes (`jpeg`, `offsets`, `labels`, `wnids`) becomes
OUT/<class>/<number>.jpg.

python experiments/unpack_jpegs.py tiny_imagenet_train_40k.npz OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main(packed: Path, out: Path) -> None:
    """Write every image, bytes unchanged."""
    data = np.load(packed, allow_pickle=False)
    jpeg, offsets, labels, names = (data[key] for key in ("jpeg", "offsets", "labels", "wnids"))
    for name in names:
        (out / str(name)).mkdir(parents=True, exist_ok=True)
    for row, label in enumerate(labels):
        (out / str(names[label]) / f"{row:06d}.jpg").write_bytes(
            jpeg[offsets[row] : offsets[row + 1]].tobytes()
        )
    print(f"{len(labels)} images of {len(names)} classes in {out}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
