"""Heat maps of PatchCore on planted flaws, by the default representation and by the starter, as one picture.

python experiments/eyes/pictures.py FOLDER [OUT.png]

FOLDER holds the planted images of planted.toml, or gets them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import kizu
from kizu.reports.panel import panel

PRODUCTS = ("capsule", "circuit", "fabric", "gear", "leather")
COUNTS = {"train": 30, "test_good": 20, "test_defective": 30, "seed": 7}
NUMBER = 4
"""Of the flawed image that is shown."""


def drawn(representation: str, samples: kizu.Samples, title: str) -> Image.Image:
    """One flawed image with its mask and its map; the scale begins at the least value of a good image."""
    detector = kizu.detector("patchcore", representation, coreset=0.02).fit(samples.train.normal)
    flawed = samples.test.anomalous.take([NUMBER])
    found, good = detector.predict(flawed), detector.predict(samples.test.normal.take([0]))
    heat = found.map[0].numpy()
    return panel(
        np.asarray(Image.open(flawed.paths[0]).convert("RGB")),
        heat,
        map_range=(float(good.map.min()), float(heat.max())),
        mask=np.asarray(Image.open(flawed.table["mask"][0])) > 127,
        title=title,
        score=float(found.score[0]),
        longest=150,
    )


def main(folder: str, out: str = "eyes.png") -> None:
    """Draw and save."""
    samples = kizu.dataset("planted", Path(folder) / "planted-eyes", products=list(PRODUCTS), **COUNTS)
    columns = [
        [drawn(name, samples.where(category=product), f"{product}, {name}") for product in PRODUCTS]
        for name in ("imagenet/efficientnet_lite0", "kizu/starter")
    ]
    width = max(image.width for column in columns for image in column)
    height = max(image.height for column in columns for image in column)
    sheet = Image.new("RGB", (width * len(columns), height * len(PRODUCTS)), "white")
    for x, column in enumerate(columns):
        for y, image in enumerate(column):
            sheet.paste(image, (x * width, y * height))
    sheet.quantize(128).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
