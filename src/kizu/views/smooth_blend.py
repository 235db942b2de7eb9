"""SmoothBlend: one small piece of the image is blended in elsewhere through a blurred mask.

It makes the negatives of SPD. Source: Zou et al., SPot-the-Difference, ECCV 2022, section 3.2; constants from
the supplement: area 0.56 to 1 % of the image, aspect 0.3 to 3, mask blurred with sigma (8, 8), one piece for
each image. No training code is public. With alpha the blurred mask of the pasted rectangle,

    out = (1 - alpha) x + alpha u,

and `reading` chooses the layer u outside the rectangle:

    "paper"   Zero, which is the formula to the letter. Just outside the rectangle alpha is still up to
              0.42, so a dark frame surrounds a sharp-edged piece. (At 224 pixels alpha peaks at 0.50 for a
              square piece of 0.56 % of the area, and at 0.70 for 1 %.)
    "pasted"  x itself. There is no frame, nothing changes outside the rectangle, but its edge is as sharp.
    "clean"   What surrounds the piece where it was cut, moved and jittered together with it (reflected at
              the border). There is neither frame nor edge.

"clean" is the default because the paper's words ask for it: a "smoothed version of CutPaste" with "local
and subtle perturbations with smooth edges". The printed formula has neither property, and lets a network
win by the frame alone. "paper" is there for comparisons.

Where the paper is silent, this file chooses: the colour jitter on the piece (0.1, 0.1, 0.1, 0.05, as in the
paper's weak augmentation); the aspect (width / height, log-uniform); the image size that sigma belongs to
(224, the size of pretraining); the extent of the blur (3 sigma, 49 taps at 224, zero beyond the border).
Images are in [0, 1], before any normalisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kizu.checks import numbers
from kizu.errors import UnknownName
from kizu.views import _colour
from kizu.views._images import as_output, cut, put, working_images
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
    """Copies of `images` (B, 3, H, W) in [0, 1] with one piece blended in, drawn for each image.

    reading: "clean", "pasted" or "paper", see above. area: of the piece, as a fraction of the image.
    aspect: its width / height. sigma: of the mask's blur, in pixels of a 224x224 image; in another size it
    is sigma * sqrt(H W) / 224, so that alpha keeps its height. jitter: strengths of brightness, contrast,
    saturation and hue on the piece. return_mask: also return the pixels that changed in any channel,
    however little, (B, H, W) bool.

    The result has the dtype and device of `images`. With a CPU generator, a batch equals its images one by
    one, up to rounding. Raises UnknownName, ShapeError, UsageError.

    >>> images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> view, mask = smooth_blend(images, generator=torch.Generator().manual_seed(1), return_mask=True)
    >>> tuple(view.shape), tuple(mask.shape), bool(((view == images) | mask[:, None]).all())
    ((2, 3, 32, 32), (2, 32, 32), True)
    """
    if reading not in READINGS:
        raise UnknownName("reading of smooth_blend", reading, READINGS)
    check_range("area", area, 1e-6, 1.0)
    check_range("aspect", aspect, 1e-3, 1e3)
    _colour.check_jitter(jitter)
    numbers(least=0, above=True, sigma=sigma)
    x = working_images(images)
    u = uniforms(generator, len(x), _COLUMNS)
    height, width = x.shape[2:]
    pixels, ratio = height * width * between(u[:, 0], area), log_between(u[:, 1], aspect)
    rows = _Span.drawn((pixels / ratio).sqrt(), height, u[:, 2], u[:, 3])
    columns = _Span.drawn((pixels * ratio).sqrt(), width, u[:, 4], u[:, 5])
    blended = _blend(
        x, rows, columns, sigma * math.sqrt(height * width) / _SIGMA_SIDE, reading, jitter, u[:, 6:]
    )
    return as_output(images, blended, return_mask)


class _Span:
    """Pieces along one axis: length, first pixel of the source, first pixel of the target; (B,) whole
    numbers."""

    def __init__(self, size: int, length: Tensor, source: Tensor, target: Tensor) -> None:
        self.size, self.length, self.source, self.target = size, length, source, target

    @classmethod
    def drawn(cls, length: Tensor, size: int, u_source: Tensor, u_target: Tensor) -> _Span:
        whole = length.round().long().clamp(1, size)
        return cls(size, whole, below(u_source, size - whole + 1), below(u_target, size - whole + 1))

    def window(self, reach: int) -> Tensor:
        """(B, n) pixels that the blurred mask can reach; n is the same for all, and all lie in the image."""
        count = min(self.size, int(self.length.max()) + 2 * reach)
        return (self.target - reach).clamp(0, self.size - count)[:, None] + torch.arange(count)

    def alpha(self, pixels: Tensor, sigma: float, reach: int) -> Tensor:
        """(B, n) profile of the blurred mask: the blur of a rectangle is the product of its two profiles."""
        widths = torch.full((len(pixels),), sigma, dtype=torch.float64)
        start, stop = self.target[:, None], (self.target + self.length)[:, None]
        upto_stop = summed_gaussian(widths, reach, stop - 1 - pixels)
        return upto_stop - summed_gaussian(widths, reach, start - 1 - pixels)

    def inside(self, pixels: Tensor) -> Tensor:
        """(B, n) bool: pixels of the pasted piece itself."""
        return (pixels >= self.target[:, None]) & (pixels < (self.target + self.length)[:, None])

    def origin(self, pixels: Tensor) -> Tensor:
        """(B, n) source of each pixel when the piece moves together with its surroundings; reflected at the
        border of the image."""
        source = (pixels - self.target[:, None] + self.source[:, None]) % (2 * self.size)
        return torch.minimum(source, 2 * self.size - 1 - source)


def _blend(
    x: Tensor, rows: _Span, columns: _Span, sigma: float, reading: str, jitter: _colour.Jitter, u: Tensor
) -> Tensor:
    reach = math.ceil(3 * sigma)
    y, across = rows.window(reach), columns.window(reach)
    down, right = rows.alpha(y, sigma, reach), columns.alpha(across, sigma, reach)
    alpha = (down[:, :, None] * right[:, None, :]).to(x)[:, None]
    inside = (rows.inside(y)[:, :, None] & columns.inside(across)[:, None, :]).to(x.device)
    here = y[:, :, None].to(x.device), across[:, None, :].to(x.device)
    source = rows.origin(y)[:, :, None].to(x.device), columns.origin(across)[:, None, :].to(x.device)
    background, piece = cut(x, *here), _colour.jitter(cut(x, *source), jitter, u, inside=inside)
    if reading == "paper":
        piece = piece * inside[:, None]
    elif reading == "pasted":
        piece = torch.where(inside[:, None], piece, background)
    return put(x, *here, background + alpha * (piece - background))
