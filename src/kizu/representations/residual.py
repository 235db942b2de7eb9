"""Residual: each feature minus its nearest reference among features of good images.

Card. Paper: ADPretrain, NeurIPS 2025, section 3.1 (residual features). Official code: xcyao00/ADPretrain
(MIT); nothing of it is used. Paper and code disagree: the paper takes the nearest reference by L2 distance,
the code by cosine similarity, and both subtract the reference as it is: `matching`, "l2" by default."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from kizu import store
from kizu.errors import ModelFileError, ShapeError, UnknownName
from kizu.neighbours import NearestNeighbours
from kizu.neighbours.matching import MATCHINGS, comparable, leave_one_out
from kizu.nn.patches import from_rows, to_rows
from kizu.representations.base import Representation
from kizu.representations.sources import from_card
from kizu.types import FeatureMaps


class Residual(Representation):
    """A representation around another: (B, C_l, h_l, w_l) -> feature - nearest reference, same shapes.

    base: any representation; it stays shared and is not copied. references: one bank (N_l, C_l) a level,
    features of `base` for good images. matching: the nearest by "l2" distance or by "cosine" similarity.
    card: what is added to this representation's own. Raises UnknownName, and ShapeError when banks do not fit
    the levels of `base`."""

    def __init__(
        self,
        base: Representation,
        references: list[Tensor],
        *,
        matching: str = "l2",
        card: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if matching not in MATCHINGS:
            raise UnknownName("matching", matching, MATCHINGS)
        widths = tuple(bank.shape[1] if bank.ndim == 2 else 0 for bank in references)
        if widths != tuple(base.channels):
            shapes = [tuple(bank.shape) for bank in references]
            raise ShapeError(
                f"References have shapes (N, C) with C of {tuple(base.channels)}, a bank a level; got "
                f"{shapes}."
            )
        self.base, self.matching = base, matching
        self.references = nn.ParameterList(
            nn.Parameter(bank.float(), requires_grad=False) for bank in references
        )
        self._indexes = [NearestNeighbours(comparable(bank.detach(), matching)) for bank in self.references]
        self.channels, self.strides = base.channels, base.strides
        self.reference_images = int((card or {}).get("shots", 0))
        self.card = {
            **{key: base.card[key] for key in ("licence", "trained_on") if key in base.card},
            "name": f"{base.card['name']}+residual",
            "kind": "residual",
            "matching": matching,
            **(card or {}),
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
        """Images (B, 3, H, W) in [0, 1] -> residuals [(B, C_l, h_l, w_l)] float32, finest first."""
        levels = [level.float() for level in self.base(images)]
        return [level - self._nearest(number, level) for number, level in enumerate(levels)]

    def state(self) -> dict[str, Tensor]:
        """The banks, and what `base` must have stored."""
        banks = {f"references.{number}": bank.detach() for number, bank in enumerate(self.references)}
        return banks | {f"base.{name}": value for name, value in self.base.state().items()}

    def sealed_card(self) -> dict[str, Any]:
        """The card, that of `base` sealed within it."""
        return {**self.card, "base": self.base.sealed_card()}

    @classmethod
    def from_card(cls, card: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Opens `base` first, of whatever kind it is. Raises ModelFileError."""
        try:
            base = from_card(card["base"], store.without_prefix(tensors, "base."))
            banks = [tensors[f"references.{number}"] for number in range(len(base.channels))]
            return cls(
                base, banks, matching=card["matching"], card={key: card[key] for key in card if key != "base"}
            )
        except (KeyError, TypeError, ShapeError, UnknownName) as error:
            raise ModelFileError(
                f"The residual representation's card and references do not fit ({error})."
            ) from error

    def for_inference(self, dtype: torch.dtype, device: torch.device) -> Residual:
        """The base in `dtype`; references, matching and differences stay float32."""
        banks = [bank.detach().to(device) for bank in self.references]
        card = {"shots": self.reference_images}
        twin = Residual(self.base.for_inference(dtype, device), banks, matching=self.matching, card=card)
        return twin.eval()

    def reference_residuals(self) -> list[Tensor]:
        """Residuals of the references themselves, (N_l, C_l) a level, each with the other reference images as
        its references. Raises UsageError where the card names fewer than two images ("shots")."""
        banks = [bank.detach() for bank in self.references]
        return [leave_one_out(bank, self.reference_images, self.matching) for bank in banks]

    @torch.no_grad()
    def _nearest(self, number: int, level: Tensor) -> Tensor:
        """The reference nearest to each feature of a level, (B, C, h, w)."""
        _, indices = self._indexes[number].query(comparable(to_rows(level), self.matching))
        return from_rows(self.references[number].detach()[indices[:, 0]], level)
