"""SmoothBlend: one small piece of the image blended in elsewhere through a blurred mask; the local change
of SPD's negatives.

Zou et al., SPot-the-Difference, ECCV 2022, section 3.2; constants from the supplement: area 0.56 to 1 % of
the image, aspect 0.3 to 3, mask blurred with sigma (8, 8), one piece an image. No training code is public.
With alpha the blurred mask of the pasted rectangle,

    out = (1 - alpha) x + alpha u,

and `reading` says what the layer u is outside the rectangle.

    "paper"   zero: the formula to the letter. alpha is still up to 0.42 just outside, so a dark frame surrounds a sharp-edged piece
              (at 224 pixels alpha peaks at 0.50 for a square piece of 0.56 %, 0.70 for 1 %).
    "pasted"  x itself: no frame, nothing changes outside the rectangle, but its edge stays sharp at that same alpha.
    "clean"   what surrounds the piece where it was cut, moved and jittered with it (reflected at the border): no frame and no edge.

"clean" is the default because the paper's words ask for it: a "smoothed version of CutPaste" with "local and
subtle perturbations with smooth edges". The letter of its formula has neither, and hands a network the frame
as a shortcut. "paper" is there for comparisons.

Silent, and filled in: the colour jitter on the piece (0.1, 0.1, 0.1, 0.05, as the paper's weak augmentation),
the aspect (width / height, log-uniform), the image size that sigma belongs to (224, the size of
pre-training), the blur's extent (3 sigma, 49 taps at 224, zero beyond the border). It works on images in
[0, 1], before any normalisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kizu.errors import UnknownName, UsageError
from kizu.views import _colour
from kizu.views._images import checked, cut, finished, put
from kizu.views._linear import summed_gaussian
from kizu.views._random import Draws, Range, below, between, check_range, log_between, uniforms

READINGS = ("clean", "pasted", "paper")
_SIGMA_SIDE = 224
_COLUMNS = 6 + _colour.COLUMNS


def smooth_blend(
    images: Tensor,
    *,
    generator: Draws,
    reading: str = "clean",
    area: Range = (0.0056, 0.01),
    aspect: Range = (0.3, 3.0),
    sigma: float = 8.0,
    jitter: _colour.Jitter = (0.1, 0.1, 0.1, 0.05),
    return_mask: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Copies of `images` (B, 3, H, W) in [0, 1] with one piece blended in, each by its own draws; same dtype
    and device.

    reading: "clean", "pasted" or "paper", see above. area: of the piece, part of the image. aspect: its
    width / height. sigma: of the mask's blur in pixels of a 224x224 image; in another size it is sigma
    sqrt(H W) / 224, so that alpha keeps its height. jitter: strengths of brightness, contrast, saturation,
    hue on the piece. return_mask: also give the pixels that changed in any channel, however little, (B, H, W)
    bool. With a CPU generator a batch is its images one by one, to rounding. Raises UnknownName,
    ShapeError, UsageError."""
    if reading not in READINGS:
        raise UnknownName("reading of smooth_blend", reading, READINGS)
    check_range("area", area, 1e-6, 1.0)
    check_range("aspect", aspect, 1e-3, 1e3)
    _colour.check_jitter(jitter)
    if not 0 < sigma < math.inf:
        raise UsageError(f"sigma must be a positive number of pixels, got {sigma}.")
    x = checked(images)
    u = uniforms(generator, len(x), _COLUMNS)
    height, width = x.shape[2:]
    pixels, ratio = height * width * between(u[:, 0], area), log_between(u[:, 1], aspect)
    rows = _Span.drawn((pixels / ratio).sqrt(), height, u[:, 2], u[:, 3])
    columns = _Span.drawn((pixels * ratio).sqrt(), width, u[:, 4], u[:, 5])
    blended = _blend(
        x, rows, columns, sigma * math.sqrt(height * width) / _SIGMA_SIDE, reading, jitter, u[:, 6:]
    )
    return finished(images, blended, return_mask)


class _Span:
    """Where the pieces lie along one axis: length, where cut from, where pasted to; (B,) whole numbers."""

    def __init__(self, size: int, length: Tensor, source: Tensor, target: Tensor) -> None:
        self.size, self.length, self.source, self.target = size, length, source, target

    @classmethod
    def drawn(cls, length: Tensor, size: int, u_source: Tensor, u_target: Tensor) -> _Span:
        whole = length.round().long().clamp(1, size)
        return cls(size, whole, below(u_source, size - whole + 1), below(u_target, size - whole + 1))

    def window(self, reach: int) -> Tensor:
        """(B, n) pixels that the blurred mask can touch; n is the same for all, and all lie in the image."""
        count = min(self.size, int(self.length.max()) + 2 * reach)
        return (self.target - reach).clamp(0, self.size - count)[:, None] + torch.arange(count)

    def alpha(self, pixels: Tensor, sigma: float, reach: int) -> Tensor:
        """(B, n) the blurred mask's profile: a rectangle's blur is the product of two of these."""
        widths = torch.full((len(pixels),), sigma, dtype=torch.float64)
        start, stop = self.target[:, None], (self.target + self.length)[:, None]
        return summed_gaussian(widths, reach, stop - 1 - pixels) - summed_gaussian(
            widths, reach, start - 1 - pixels
        )

    def inside(self, pixels: Tensor) -> Tensor:
        """(B, n) bool: pixels of the pasted piece itself."""
        return (pixels >= self.target[:, None]) & (pixels < (self.target + self.length)[:, None])

    def origin(self, pixels: Tensor) -> Tensor:
        """(B, n) where each pixel comes from when piece and surroundings move together; reflected at the
        image's border."""
        place = (pixels - self.target[:, None] + self.source[:, None]) % (2 * self.size)
        return torch.minimum(place, 2 * self.size - 1 - place)


def _blend(
    x: Tensor, rows: _Span, columns: _Span, sigma: float, reading: str, jitter: _colour.Jitter, u: Tensor
) -> Tensor:
    reach = math.ceil(3 * sigma)
    y, across = rows.window(reach), columns.window(reach)
    alpha = (rows.alpha(y, sigma, reach)[:, :, None] * columns.alpha(across, sigma, reach)[:, None, :]).to(x)[
        :, None
    ]
    inside = (rows.inside(y)[:, :, None] & columns.inside(across)[:, None, :]).to(x.device)
    here = y[:, :, None].to(x.device), across[:, None, :].to(x.device)
    source = rows.origin(y)[:, :, None].to(x.device), columns.origin(across)[:, None, :].to(x.device)
    below_it, piece = cut(x, *here), _colour.jitter(cut(x, *source), jitter, u, inside=inside)
    if reading == "paper":
        piece = piece * inside[:, None]
    elif reading == "pasted":
        piece = torch.where(inside[:, None], piece, below_it)
    return put(x, *here, below_it + alpha * (piece - below_it))
