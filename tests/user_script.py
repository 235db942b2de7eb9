"""What users call: each public name of the design once; test_exports.py runs it, and mypy --strict on it."""

from pathlib import Path

import torch

import kizu
from kizu.metrics import StreamingPixelMetrics, auroc, image_metrics, pixel_metrics
from kizu.neighbours import greedy_coreset, nearest


def inspect(data: Path, out: Path) -> kizu.Prediction:
    samples: kizu.Samples = kizu.dataset("folder", data, category="bolt")
    base: kizu.Representation = kizu.representation("random/resnet18")
    one = kizu.Adaptation("residual", {"shots": 1})
    detector: kizu.Detector = kizu.detector("patchcore", base, adaptation=one, image_size=64)
    detector.fit(samples.normal, options=kizu.FitOptions()).save(out)
    adapted: kizu.Representation = kizu.adapt("residual", base, samples.normal, image_size=64, shots=2)
    print(detector.representation_.card, adapted.card)
    prediction = kizu.load(out).predict(samples)
    print(prediction.map.shape, prediction.score, prediction.p_value, prediction.is_anomalous)
    return prediction


def measure(prediction: kizu.Prediction, labels: list[int], masks: torch.Tensor) -> dict[str, float]:
    maps = prediction.map
    streaming = StreamingPixelMetrics(fpr_limit=0.3)
    streaming.update(maps, masks)
    print(auroc(prediction.score, labels), streaming.compute())
    return image_metrics(prediction.score, labels) | pixel_metrics(maps, masks, fpr_limit=0.3)


def decide(scores: torch.Tensor, good: torch.Tensor) -> tuple[float, object]:
    threshold = kizu.calibration.conformal_threshold(good, false_alarm_rate=0.1)
    return threshold, kizu.calibration.p_values(scores, good)


def parts(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    view = kizu.views.weak(images, generator=generator)
    print(kizu.losses.negative_cosine(images.flatten(1), view.flatten(1)))
    features = view.flatten(1)
    bank = features[greedy_coreset(features, 2, start=0)]
    bank = features[greedy_coreset(features, 2, method="approximate", generator=generator)]
    distances, _ = nearest(features, bank, k=1)
    return distances


def direct() -> kizu.detectors.base.Detector:
    runtime = kizu.detectors.Runtime(image_size=64, precision="fp32", device="cpu", batch_size=2)
    return kizu.detectors.PatchCore("random/resnet18", coreset=0.5, runtime=runtime)
