"""Aligned residual: each image's features minus the nearest of the good images that are most like it.

Card. Paper: ADPretrain, NeurIPS 2025, section 3.1 and app. C (semantic-aligned reference matching, K = 8). No
code of it was released, only lists of its choices. The measure of likeness is nn/semantic_alignment.py. Here
it is taken on the finest level of the network in use, the paper takes the first layer of ResNet-18: give that
as `matcher`. A reference that is the query itself, number for number, is left out: a detector learns from the
very images that are references, whose residuals would all be zero."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from kizu import store
from kizu.digests import floats_digest
from kizu.errors import ModelFileError, ShapeError, TooFewImages, UnknownName, UsageError
from kizu.neighbours.matching import MATCHINGS, minus_nearest
from kizu.nn.patches import finest_level, from_rows, to_rows
from kizu.nn.semantic_alignment import cells, divergences, histograms, self_information
from kizu.representations.base import Representation
from kizu.representations.sources import from_card
from kizu.types import FeatureMaps


class References(NamedTuple):
    """What is kept of n good images.

    banks: (n, P_l, C_l) a level, features of the positions row by row. histograms: (n, P, M), M distances at
    each of the P positions of the matching level. centres: (M, C). identities: (n,) int64, see `identity`."""

    banks: list[Tensor]
    histograms: Tensor
    centres: Tensor
    identities: Tensor


class AlignedResidual(Representation):
    """A representation around another: (B, C_l, h_l, w_l) -> feature - nearest reference, same shapes; every
    image has references of its own, the `shots` good images most like it.

    base: any representation; it stays shared and is not copied. references: of more than `shots` images.
    positions: (h, w) of the level on which likeness is measured; images are of the size that gives it. grid:
    S. matcher: the representation on whose finest level that is; None is `base`. matching: "l2" or "cosine".
    card: what is added to this representation's own. Raises UnknownName, UsageError, TooFewImages, and
    ShapeError where parts do not fit."""

    histograms: Tensor
    centres: Tensor
    identities: Tensor
    information: Tensor
    cell: Tensor

    def __init__(
        self,
        base: Representation,
        references: References,
        *,
        positions: tuple[int, int],
        grid: int = 5,
        shots: int = 8,
        matching: str = "l2",
        matcher: Representation | None = None,
        card: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if matching not in MATCHINGS:
            raise UnknownName("matching", matching, MATCHINGS)
        self.base, self.matcher, self.matching, self.shots = base, matcher, matching, shots
        self.positions, self.grid = positions, grid
        _check(base, matcher or base, references, positions[0] * positions[1], shots)
        self.banks = nn.ParameterList(
            nn.Parameter(bank.float(), requires_grad=False) for bank in references.banks
        )
        self.register_buffer("histograms", references.histograms.float())
        self.register_buffer("centres", references.centres.float())
        self.register_buffer("identities", references.identities)
        self.register_buffer("information", self_information(references.histograms.float()), persistent=False)
        self.register_buffer(
            "cell", cells(*positions, grid).to(references.histograms.device), persistent=False
        )
        self.channels, self.strides = base.channels, base.strides
        self.card = {
            **{key: base.card[key] for key in ("licence", "trained_on") if key in base.card},
            "name": f"{base.card['name']}+aligned_residual",
            "kind": "aligned_residual",
            **{"matching": matching, "shots": shots, "grid": grid, "positions": list(positions)},
            **(card or {}),
            "matcher": None if matcher is None else matcher.card,
            "base": base.card,
        }

    @property
    def offsets(self) -> tuple[float, ...]:
        """Those of the base: the nearest reference does not change with a small part of the image."""
        return self.base.offsets

    @property
    def unadapted(self) -> Representation:
        """What the residuals are made of."""
        return self.base

    def forward(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) in [0, 1] -> residuals [(B, C_l, h_l, w_l)] float32, finest first.

        Raises ShapeError for images of another size than the references."""
        levels = [level.float() for level in self.base(images)]
        likeness = self._likeness(images, levels)
        for level, bank in zip(levels, self.banks, strict=True):
            if level.shape[2] * level.shape[3] != bank.shape[1]:
                raise self._other_size(level)
        chosen = [self.most_alike(image, own) for image, own in zip(images, likeness, strict=True)]
        return [
            torch.cat([self._minus_nearest(*pair, bank) for pair in zip(level, chosen, strict=True)])
            for level, bank in zip(levels, self._detached(), strict=True)
        ]

    @torch.no_grad()
    def most_alike(self, image: Tensor, histogram: Tensor) -> Tensor:
        """Numbers (K,) of the good images that are most like an image (3, H, W) of that histogram (P, M),
        the most alike first; of equals the earlier. Copies of the image itself are not among them, unless all
        are."""
        others = self.identities.ne(identity(image))
        if not bool(others.any()):
            return torch.arange(self.shots, device=others.device)
        apart = divergences(histogram, self.histograms, self.information, self.cell)
        apart = apart.masked_fill(~others, torch.inf)
        return apart.argsort(stable=True)[: min(self.shots, int(others.sum()))]

    def state(self) -> dict[str, Tensor]:
        """What is kept of the good images, and what `base` and `matcher` must have stored."""
        own = {f"banks.{number}": bank for number, bank in enumerate(self._detached())}
        own |= {name: getattr(self, name) for name in ("histograms", "centres", "identities")}
        inner = {"base": self.base} | ({} if self.matcher is None else {"matcher": self.matcher})
        return own | {
            f"{at}.{name}": value for at, net in inner.items() for name, value in net.state().items()
        }

    def sealed_card(self) -> dict[str, Any]:
        """The card, those of `base` and `matcher` sealed within it."""
        matcher = None if self.matcher is None else self.matcher.sealed_card()
        return {**self.card, "base": self.base.sealed_card(), "matcher": matcher}

    @classmethod
    def from_card(cls, card: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Opens `base` and `matcher` first, of whatever kind they are. Raises ModelFileError."""
        try:
            base = from_card(card["base"], store.without_prefix(tensors, "base."))
            matcher = None
            if card["matcher"] is not None:
                matcher = from_card(card["matcher"], store.without_prefix(tensors, "matcher."))
            banks = [tensors[f"banks.{number}"] for number in range(len(base.channels))]
            parts = References(banks, *(tensors[name] for name in ("histograms", "centres", "identities")))
            net = cls(
                base,
                parts,
                positions=(card["positions"][0], card["positions"][1]),
                **{name: card[name] for name in ("grid", "shots", "matching")},
                matcher=matcher,
                card={key: card[key] for key in card if key not in ("base", "matcher")},
            )
        except (KeyError, TypeError, UsageError, TooFewImages) as error:
            raise ModelFileError(
                f"The aligned residual's card and references do not fit ({error})."
            ) from error
        return net

    def for_inference(self, dtype: torch.dtype, device: torch.device) -> AlignedResidual:
        """The networks in `dtype`; references, histograms, matching and differences stay float32."""
        kept = References(self._detached(), self.histograms, self.centres, self.identities)
        there = References([bank.to(device) for bank in kept.banks], *(one.to(device) for one in kept[1:]))
        return AlignedResidual(
            self.base.for_inference(dtype, device),
            there,
            positions=self.positions,
            grid=self.grid,
            shots=self.shots,
            matching=self.matching,
            matcher=None if self.matcher is None else self.matcher.for_inference(dtype, device),
        ).eval()

    def _detached(self) -> list[Tensor]:
        return [bank.detach() for bank in self.banks]

    @torch.no_grad()
    def _likeness(self, images: Tensor, levels: FeatureMaps) -> Tensor:
        """Histograms (B, P, M) of the images."""
        maps = levels if self.matcher is None else [level.float() for level in self.matcher(images)]
        level = maps[finest_level(maps)]
        if tuple(level.shape[2:]) != self.positions:
            raise self._other_size(level)
        return torch.stack([histograms(rows, self.centres) for rows in level.flatten(2).transpose(1, 2)])

    def _minus_nearest(self, feature: Tensor, chosen: Tensor, bank: Tensor) -> Tensor:
        """One image's level (C, h, w) minus the nearest rows of the images chosen of the bank (n, P, C)."""
        level, references = feature[None], bank[chosen].flatten(0, 1)
        return from_rows(minus_nearest(to_rows(level), references, self.matching), level)

    def _other_size(self, level: Tensor) -> ShapeError:
        return ShapeError(
            f"Aligned references are compared position by position: a map of {tuple(level.shape[2:])} "
            f"positions came, and likeness is measured on {self.positions}. Give images of the size of the "
            "good images."
        )


def identity(image: Tensor) -> int:
    """64 bits, with a sign, of what identifies an image (3, H, W) that came as numbers: two images have the
    same ones when they are equal, and with probability 1e-19 otherwise."""
    whole = floats_digest(image.detach().float().cpu().contiguous().numpy())
    return int.from_bytes(bytes.fromhex(whole)[:8], "little", signed=True)


def _check(
    base: Representation, matcher: Representation, references: References, positions: int, shots: int
) -> None:
    """Raise TooFewImages, ShapeError for references that do not fit."""
    banks, kept, centres, identities = references
    images = len(identities)
    if images <= shots:
        raise TooFewImages(
            f"Aligned references are {shots} of the good images besides the image itself, so more than "
            f"{shots} are needed; there are {images}. Take fewer shots, or references='fixed'."
        )
    shapes = [tuple(bank.shape) for bank in banks]
    widths = tuple(shape[2] if len(shape) == 3 and shape[0] == images else 0 for shape in shapes)
    if widths != tuple(base.channels):
        raise ShapeError(
            f"References of {images} images have shapes ({images}, P, C) with C of {tuple(base.channels)}, a "
            f"bank a level; got {shapes}."
        )
    width = matcher.channels[matcher.strides.index(min(matcher.strides))]
    if centres.ndim != 2 or centres.shape[1] != width:
        raise ShapeError(
            f"Centres have shape (M, {width}), the channels of the finest level of {matcher.card['name']}; "
            f"got {tuple(centres.shape)}."
        )
    if tuple(kept.shape) != (images, positions, len(centres)):
        raise ShapeError(
            f"Histograms have shape (images, positions, centres), here ({images}, {positions}, "
            f"{len(centres)}); got {tuple(kept.shape)}."
        )
