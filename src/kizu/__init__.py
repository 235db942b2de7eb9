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
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kizu.adaptation.base import Adaptation
    from kizu.detectors.base import Detector
    from kizu.reader import Images
    from kizu.representations.base import Representation
    from kizu.samples import Samples
    from kizu.training import FitOptions

__version__ = "0.1.0"
__all__ = ["adapt", "adaptation", "dataset", "detector", "load", "representation"]

_ROOMS = (
    "apps", "calibration", "checks", "datasets", "detectors", "accel", "engine", "evaluation", "loader", "masks", "synthetic", "errors", "images", "losses", "maps", "metrics",
    "neighbours", "nn", "papers", "pretraining", "protocols", "reports", "representations", "registry", "samples", "store", "training", "types", "views",
)  # fmt: skip


def dataset(name: str, path: str | Path, **filters: Any) -> Samples:
    """Read a dataset from disk: `name` is a file of kizu/datasets ("folder", "mvtec", "visa", ...), filters
    are its keywords.

    Raises UnknownName, UnknownParameter naming the nearest, LayoutError, MaskError, EmptyData.
    """
    from kizu import registry

    function = registry.load("datasets", name)
    registry.check_keywords(f"dataset {name}", function, filters)
    return function(path, **filters)


def representation(name_or_path: str | Path | None = None) -> Representation:
    """Open a representation: "timm/wide_resnet50_2.tv_in1k@2,3", "random/resnet18", a saved one's path, None for
    the default.

    Raises UnknownName, UsageError, WeightsUnavailable (no network and not cached), ModelFileError.
    """
    from kizu.representations.sources import open_representation

    return open_representation(name_or_path)


def adaptation(name: str, *, seed: int = 0, **parameters: Any) -> Adaptation:
    """An adaptation with its parameters, for `detector(..., adaptation=...)`: `name` is a file of kizu/adaptation.

    Raises UnknownName and UnknownParameter, naming the nearest.
    """
    from kizu.adaptation.base import Adaptation

    return Adaptation(name, parameters, seed)


def adapt(
    name: str,
    representation: Representation | str | Path | None,
    good: Images,
    *,
    image_size: int | tuple[int, int] = 256,
    seed: int = 0,
    options: FitOptions | None = None,
    **parameters: Any,
) -> Representation:
    """A representation adapted to the product in the good images, for use under any detector.

    Its card lists the digests of the images: calibrating or evaluating on one of them is refused. image_size: side
    or (H, W) to which files are resized. Raises UnknownName, UnknownParameter, EmptyData, UsageError for images
    labelled anomalous, and what the adaptation raises.
    """
    from kizu.adaptation.base import adapt_to

    return adapt_to(
        adaptation(name, seed=seed, **parameters), representation, good, image_size=image_size, options=options
    )


def detector(
    name: str,
    representation: Representation | str | Path | None = None,
    *,
    adaptation: Adaptation | str | None = None,
    **parameters: Any,
) -> Detector:
    """Build an unfitted detector: `name` is a file of kizu/detectors, parameters are the keywords of its constructor
    and those of detectors.runtime.Runtime (image_size, precision, device, batch_size).

    adaptation: `fit` first adapts the representation to the good images it is given. Raises UnknownName and
    UnknownParameter, naming the nearest, and what `representation` raises.
    """
    from kizu import registry
    from kizu.detectors.runtime import build

    built: Detector = build(registry.load("detectors", name), representation, parameters, adaptation=adaptation)
    return built


def load(path: str | Path) -> Detector:
    """Open a fitted detector. Runs none of the file's content as code and never touches the network. Raises
    ModelFileError."""
    from kizu.detectors.files import load_detector

    return load_detector(path)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"kizu.{name}")
    raise AttributeError(f"module 'kizu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS, "__version__"])
