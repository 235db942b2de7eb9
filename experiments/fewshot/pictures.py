"""What adapting to five good images does, as pictures: figures 3, 4 and 6 of the few-shot paper on a planted
product.

    python experiments/fewshot/pictures.py FOLDER [--product gear] [--image-size 256]

embedding.png: t-SNE of the pooled features of the test images, before and after each adaptation. scores.png:
their scores under the paper's density. negatives.png: good images, the negatives that CutPaste makes of them,
and flawed images. FOLDER holds the planted images, or gets them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import kizu
from kizu.nn.density import pool
from kizu.protocols.few_shot import few_shot
from kizu.reader import read
from kizu.reports.feature_embedding import feature_embedding
from kizu.reports.negatives_sheet import negatives_sheet
from kizu.reports.score_distributions import score_distributions
from kizu.views.cutpaste import cutpaste

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {"train": 30, "test_good": 60, "test_defective": 60, "seed": 7}
STAGES: dict[str, kizu.Adaptation | None] = {
    "as it is": None,
    "batch-norm statistics": kizu.Adaptation("adabn"),
    "fine-tuned": kizu.Adaptation("fewshot_contrastive"),
    "fine-tuned, negatives": kizu.Adaptation("fewshot_contrastive", {"negatives": "cutpaste"}),
}
SHOTS = 5


def pooled(detector: Any, samples: kizu.Samples) -> torch.Tensor:
    """Pooled features (n, D) of the detector's representation."""
    network = detector.representation_.inference_copy("fp32")
    batches = read(samples, size=detector.image_size, batch_size=16, errors=[])
    return torch.cat([pool(network(batch.require_images()))[0] for batch in batches])


def main() -> None:
    """Draw and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--product", default="gear")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "fewshot_pictures")
    options = parser.parse_args()
    place = options.folder / f"planted-pictures-{options.product}"
    samples = kizu.dataset("planted", place, products=[options.product], **COUNTS)
    split = few_shot(samples, shots=SHOTS, seed=0)
    features, scores = {}, {}
    for name, adaptation in STAGES.items():
        detector = kizu.detector(
            "gaussian", adaptation=adaptation, copies=10, image_size=options.image_size
        ).fit(split.train)
        features[name] = pooled(detector, split.test).numpy()
        scores[name] = detector.predict(split.test).score.numpy()
    options.out.mkdir(parents=True, exist_ok=True)
    feature_embedding(features, split.test.labels, options.out / "embedding.png")
    score_distributions(scores, options.out / "scores.png", labels=split.test.labels)
    size = (options.image_size, options.image_size)
    good = next(read(split.train, size=size, batch_size=SHOTS, errors=[])).require_images()
    negatives, masks = cutpaste(good, generator=torch.Generator().manual_seed(0), return_mask=True)
    sheet, flawed = options.out / "negatives.png", split.test.anomalous.take(range(4)).paths
    negatives_sheet(list(good.numpy()), list(negatives.numpy()), flawed, sheet, masks=list(masks.numpy()))


if __name__ == "__main__":
    main()
