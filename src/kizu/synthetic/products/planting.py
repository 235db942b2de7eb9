"""One image of a product: a good part, or its twin with a planted defect and the mask of what changed."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from kizu.errors import UnknownName, UsageError
from kizu.synthetic.camera import develop, expose, sensor_noise
from kizu.synthetic.lighting import Light, shade
from kizu.synthetic.noise import Field
from kizu.synthetic.products import defects
from kizu.synthetic.products.canvas import ProductCanvas
from kizu.synthetic.products.catalogue import PRODUCTS

THRESHOLD = 4.0
"""Grey levels, of 255, by which some colour of a pixel must differ between the twins to count as changed."""
LEAST_CONTRAST = 9.0
"""Least mean change, in grey levels, over the mask of a visible defect."""
LEAST_AREA = 0.0006
"""Least area of the mask of a visible defect, as a share of the image."""
_TRIES = 16


def planted_image(
    product: str, defect: str | None, size: int, rng: Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one image (H, W, 3) uint8 and its mask (H, W), True = defect; with `defect` None a good part and
    an empty mask.

    H = W = `size` pixels. Generators in the same state draw twins: with and without a defect the images are
    identical outside the mask. Inside it the noise-free values differ by more than 4 of 255 grey levels,
    except in the small gaps that the outline encloses. Four integers are drawn from `rng`. Raises UnknownName
    for a product, or a defect that the product does not have; UsageError for a size outside 32 to 1024.

    >>> image, mask = planted_image("gear", "scratch", 64, np.random.default_rng(0))
    >>> image.shape, image.dtype, bool(mask.any())
    ((64, 64, 3), dtype('uint8'), True)
    """
    if product not in PRODUCTS:
        raise UnknownName("planted product", product, PRODUCTS)
    spec = PRODUCTS[product]
    if defect is not None and defect not in spec.defects:
        raise UnknownName(f"planted defect of {product}", defect, spec.defects)
    check_size(size)
    shape_seed, light_seed, noise_seed, defect_seed = (int(value) for value in rng.integers(0, 2**63, 4))
    light = Light.draw(_generator(light_seed))
    canvas = ProductCanvas(size, _generator(shape_seed))
    surface = spec.build(canvas)
    clean = expose(shade(surface, light), light, size)
    noise = sensor_noise(_generator(noise_seed), light, size)
    if defect is None:
        return develop(clean, noise), np.zeros((size, size), bool)
    rng = _generator(defect_seed)
    strength = float(rng.uniform(0.3, 1.0))
    for _ in range(_TRIES):
        if defect in defects.SURFACE:
            changed = surface.copy()
            defects.SURFACE[defect](defects.DefectSite(canvas, changed, rng, strength, spec.defects[defect]))
        else:
            changed = spec.build(ProductCanvas(size, _generator(shape_seed), defect, rng, strength))
        defective = expose(shade(changed, light), light, size)
        mask = difference_mask(clean, defective)
        if is_visible(mask, clean, defective):
            return develop(np.where(mask, defective, clean), noise), mask
        strength = min(1.2 * strength, 1.8)
    raise UsageError(
        f"No visible {defect} could be planted on this {product} at {size} pixels; ask for a larger size or "
        "another seed."
    )


def check_size(size: int) -> None:
    """Raises UsageError unless `size` is a whole number of pixels, 32 to 1024."""
    if not isinstance(size, int) or not 32 <= size <= 1024:
        raise UsageError(f"size must be a whole number of pixels, 32 to 1024, got {size!r}.")


def difference_mask(clean: Field, defective: Field) -> NDArray[np.bool_]:
    """Mask (H, W), True where two noise-free twins (3, H, W), in grey levels, differ by more than THRESHOLD.

    The change is averaged over a pixel's neighbours first (sigma 0.7 pixels at 256), then gaps are closed and
    specks are dropped: outlines come out smooth and without dust."""
    unit = max(clean.shape[1] / 256, 0.5)
    level = ndimage.gaussian_filter(np.abs(defective - clean).max(axis=0), 0.7 * unit, mode="nearest")
    reach = max(round(2 * unit), 1)
    disc = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1]) <= reach + 0.3
    padded = ndimage.binary_closing(np.pad(level > THRESHOLD, 2 * reach), disc)
    mask = padded[2 * reach : -2 * reach, 2 * reach : -2 * reach]
    mask |= _small_parts(~mask, 4, 30 * unit * unit)
    return mask & ~_small_parts(mask, 8, max(14 * unit * unit, 5))


def _small_parts(mask: NDArray[np.bool_], neighbours: int, area: float) -> NDArray[np.bool_]:
    """True on the connected parts, by 4 or 8 neighbours a pixel, that are smaller than `area` pixels."""
    labels, number = ndimage.label(mask, ndimage.generate_binary_structure(2, neighbours // 4))
    small = np.bincount(labels.ravel(), minlength=number + 1) < area
    small[0] = False
    return small[labels]


def is_visible(mask: NDArray[np.bool_], clean: Field, defective: Field) -> bool:
    """Whether a mask is large enough, and the change in it strong enough, to be a visible defect."""
    if mask.sum() < max(LEAST_AREA * mask.size, 12):
        return False
    return bool(np.abs(defective - clean).max(axis=0)[mask].mean() >= LEAST_CONTRAST)


def _generator(seed: int) -> Generator:
    return Generator(np.random.PCG64(seed))
