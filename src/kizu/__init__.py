"""kizu finds flaws in images of products after seeing only good ones, and tells where they are.

    import kizu

    samples = kizu.dataset("folder", "photos/")
    model = kizu.detector("patchcore").fit(samples.train.normal)
    prediction = model.predict("new_parts/")        # .map (B, H, W), .score (B,); higher is more anomalous
    model.save("model.kizu")

Everything is imported when first used: `import kizu` alone loads neither torch nor numpy.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from kizu import accel as accel
    from kizu import adaptation as adaptation
    from kizu import apps as apps
    from kizu import arrays as arrays
    from kizu import calibration as calibration
    from kizu import card_fields as card_fields
    from kizu import card_parameters as card_parameters
    from kizu import card_representations as card_representations
    from kizu import cards as cards
    from kizu import checks as checks
    from kizu import datasets as datasets
    from kizu import detectors as detectors
    from kizu import digests as digests
    from kizu import engine as engine
    from kizu import errors as errors
    from kizu import evaluation as evaluation
    from kizu import grey_depth as grey_depth
    from kizu import image_files as image_files
    from kizu import images as images
    from kizu import launchers as launchers
    from kizu import loader as loader
    from kizu import locks as locks
    from kizu import losses as losses
    from kizu import maps as maps
    from kizu import masks as masks
    from kizu import metrics as metrics
    from kizu import neighbours as neighbours
    from kizu import nn as nn
    from kizu import outputs as outputs
    from kizu import papers as papers
    from kizu import precision as precision
    from kizu import pretraining as pretraining
    from kizu import protocols as protocols
    from kizu import reader as reader
    from kizu import regions as regions
    from kizu import registry as registry
    from kizu import reports as reports
    from kizu import representations as representations
    from kizu import roi as roi
    from kizu import sample_table as sample_table
    from kizu import samples as samples
    from kizu import store as store
    from kizu import synthetic as synthetic
    from kizu import training as training
    from kizu import types as types
    from kizu import untrusted as untrusted
    from kizu import views as views
    from kizu.adaptation.base import Adaptation
    from kizu.detectors.base import Detector
    from kizu.reader import Images
    from kizu.representations.base import Representation
    from kizu.roi import Roi
    from kizu.samples import Samples
    from kizu.training import FitOptions
    from kizu.types import Batch, Prediction

__version__ = "0.1.0"
__all__ = [
    "Adaptation", "Batch", "Detector", "FitOptions", "Prediction", "Representation", "Samples",
    "adapt", "dataset", "detector", "load", "representation",
]  # fmt: skip

_TYPES = {
    "Adaptation": "adaptation.base",
    "Batch": "types",
    "Detector": "detectors.base",
    "FitOptions": "training.options",
    "Prediction": "types",
    "Representation": "representations.base",
    "Samples": "samples",
}


def dataset(name: str, path: str | Path, **filters: Any) -> Samples:
    """Read a dataset from disk: `name` is a file of kizu/datasets ("folder", "mvtec", "visa", ...), filters
    are its keywords.

    Raises UnknownName, UnknownParameter naming the nearest, LayoutError, MaskError, EmptyData.
    """
    from kizu import registry
    from kizu.errors import UsageError

    if not isinstance(path, str | Path):
        raise UsageError(f"A data set is read from a path, got {path!r:.80}.")
    function = registry.load("datasets", name)
    registry.check_keywords(f"dataset {name}", function, filters)
    return function(path, **filters)


def representation(name_or_path: str | Path | None = None) -> Representation:
    """Open a representation: "timm/wide_resnet50_2.tv_in1k@2,3", "random/resnet18", a saved one's path, None
    for the default.

    Raises UnknownName, UsageError, WeightsUnavailable (no network and not cached), ModelFileError.
    """
    from kizu.representations.sources import open_representation

    return open_representation(name_or_path)


def adapt(
    name: str,
    representation: Representation | str | Path | None,
    good: Images,
    *,
    image_size: int | tuple[int, int] = 256,
    seed: int = 0,
    options: FitOptions | None = None,
    channels: Literal["rgb", "bgr"] = "rgb",
    white_level: int | None = None,
    **parameters: Any,
) -> Representation:
    """A representation adapted to the product in the good images, for use under any detector.

    Its card lists the digests of the images: calibrating or evaluating on one of them is refused. image_size:
    side or (H, W) to which files are resized. white_level: value of white in grey files of more than 8 bits,
    where not as they say; kept in the card. Raises UnknownName, UnknownParameter, EmptyData, UsageError for
    images labelled anomalous, and what the adaptation raises."""
    from kizu.adaptation.base import Adaptation, adapt_to

    adaptation = Adaptation(name, parameters, seed)
    return adapt_to(
        adaptation,
        representation,
        good,
        image_size=image_size,
        options=options,
        channels=channels,
        white_level=white_level,
    )


def detector(
    name: str,
    representation: Representation | str | Path | None = None,
    *,
    adaptation: Adaptation | str | None = None,
    **parameters: Any,
) -> Detector:
    """Build an unfitted detector: `name` is a file of kizu/detectors, parameters are the keywords of its
    constructor and those of detectors.runtime.Runtime (image_size, precision, device, batch_size,
    white_level, alignment, roi).

    adaptation: `fit` first adapts the representation to the good images it is given: a file of
    kizu/adaptation, or kizu.Adaptation(name, parameters, seed). Raises UnknownName and UnknownParameter,
    naming the nearest, and what `representation` raises."""
    from kizu import registry
    from kizu.detectors.runtime import build

    built: Detector = build(
        registry.load("detectors", name), representation, parameters, adaptation=adaptation
    )
    return built


def load(
    path: str | Path,
    *,
    device: str | torch.device = "auto",
    precision: str | None = None,
    roi: Roi | str | Path | tuple[int, int, int, int] | None = None,
) -> Detector:
    """Open a fitted detector. Runs none of the file's content as code and never touches the network.

    device: where it runs: "auto" (the GPU when there is one), "cpu", "cuda", "cuda:0"; precision: "auto",
    "fp32", "bf16", or None as it was fitted; roi: where the region that it learned lies in the images to
    come, None where it lay (`kizu.roi`). Raises ModelFileError, and UsageError for a device that is not
    there, or a region of another shape."""
    from kizu.detectors.files import load_detector

    return load_detector(path, device=device, precision=precision, roi=roi)


if not TYPE_CHECKING:  # a type checker reads the imports above, and reports every other name

    def __getattr__(name: str) -> Any:
        if name in _TYPES:
            return getattr(importlib.import_module(f"kizu.{_TYPES[name]}"), name)
        if not name.startswith("_") and name in _modules():
            return importlib.import_module(f"kizu.{name}")
        from kizu import registry

        raise registry.missing("kizu", name, __dir__())


def __dir__() -> list[str]:
    return sorted([*__all__, *_modules(), "__version__"])


def _modules() -> list[str]:
    """Names of the public files and folders of this package."""
    return [entry.name for entry in pkgutil.iter_modules(__path__) if not entry.name.startswith("_")]
