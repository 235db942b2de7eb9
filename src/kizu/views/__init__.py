"""Views: pure functions of image batches. Some change what does not matter, some plant a defect (level 1)."""

# From here to the end: written by tools/exports.py, from the files of this folder.
from __future__ import annotations

from typing import TYPE_CHECKING

from kizu import registry

if TYPE_CHECKING:
    from kizu.views.affine import affine
    from kizu.views.blur_brightness import blur_brightness
    from kizu.views.colour_jitter import colour_jitter
    from kizu.views.cutpaste import cutpaste
    from kizu.views.perlin import perlin
    from kizu.views.photometric import photometric
    from kizu.views.smooth_blend import smooth_blend
    from kizu.views.strong import strong
    from kizu.views.weak import weak

__all__ = [
    "affine", "blur_brightness", "colour_jitter", "cutpaste", "perlin", "photometric", "smooth_blend",
    "strong", "weak",
]  # fmt: skip

registry.open_room(__name__)
