"""Projected: features of another representation, normally residuals, after a projector that was trained on
many products; and such a projector on disk.

Card. Paper: ADPretrain, NeurIPS 2025, section 3.3 and figure 2. Official code: xcyao00/ADPretrain (MIT);
nothing of it is used. Differs from the code: a projector is tied to the network on whose features it was
trained, by a digest of its weights; the network stays in `dtype` and the residuals in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from kizu import cards, store
from kizu.errors import ModelFileError, ShapeError, UsageError
from kizu.nn.projector import Projector
from kizu.representations import weights
from kizu.representations.base import Representation
from kizu.representations.sources import from_card
from kizu.types import FeatureMaps

SHOWN = 12
"""Characters of a digest in a message."""


class Projected(Representation):
    """A representation around another: (B, C_l, h_l, w_l) -> what the projector makes of it, same shapes.

    base: any representation; it stays shared and is not copied. projector: for the channels of `base`. One
    that attends to the reference images takes a base with at least two of them, a Residual. card: what is
    known of the projector, as `open_projector` gives it. Raises ShapeError for other channels, UsageError."""

    def __init__(
        self, base: Representation, projector: Projector, *, card: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        if projector.channels != tuple(base.channels):
            raise ShapeError(
                f"The projector is for levels of {projector.channels} channels; {base.card['name']} has "
                f"{tuple(base.channels)}."
            )
        self.base, self.projector = base, projector
        self._context = base.reference_residuals() if projector.needs_context else None
        self.channels, self.strides = base.channels, base.strides
        self.reference_images = base.reference_images
        self.card = {
            **{key: base.card[key] for key in ("licence", "trained_on") if key in base.card},
            "name": f"{base.card['name']}+projector",
            "kind": "projected",
            "projector": {**(card or {}), "settings": projector.settings()},
            "base": base.card,
        }

    @property
    def offsets(self) -> tuple[float, ...]:
        """Those of the base: each token stays where it is."""
        return self.base.offsets

    @property
    def unadapted(self) -> Representation:
        """What the residuals are made of."""
        return self.base.unadapted

    def forward(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) in [0, 1] -> [(B, C_l, h_l, w_l)] float32, finest first."""
        levels: FeatureMaps = self.projector([level.float() for level in self.base(images)], self._context)
        return levels

    def state(self) -> dict[str, Tensor]:
        """The projector's weights, and what `base` must have stored."""
        own = {f"projector.{name}": value for name, value in self.projector.state_dict().items()}
        return own | {f"base.{name}": value for name, value in self.base.state().items()}

    def sealed_card(self) -> dict[str, Any]:
        """The card, that of `base` sealed within it."""
        return {**self.card, "base": self.base.sealed_card()}

    @classmethod
    def from_card(cls, card: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Opens `base` first, of whatever kind it is. Raises ModelFileError."""
        try:
            base = from_card(card["base"], store.without_prefix(tensors, "base."))
            projector = _built(card["projector"]["settings"], store.without_prefix(tensors, "projector."))
            net = cls(base, projector, card=card["projector"])
        except (KeyError, TypeError, UsageError) as error:
            raise ModelFileError(
                f"The card of the projected representation does not fit ({error})."
            ) from error
        net.card = {**net.card, **{key: value for key, value in card.items() if key != "base"}}
        return net

    def for_inference(self, dtype: torch.dtype, device: torch.device) -> Projected:
        """The base as its kind bears it. The projector's layers compute in `dtype`, with the keys and values
        of learned references computed once; residuals, and what the layers add to them, stay float32."""
        base = self.base.for_inference(dtype, device)
        return Projected(base, self.projector.for_inference(dtype, device)).eval()


def describe_base(base: Representation) -> dict[str, Any]:
    """What a projector's card says of the representation on whose residuals it is trained: name, channels,
    levels where it has them, and a digest of its weights."""
    levels = base.card.get("levels")
    return {
        "name": base.card["name"],
        "channels": list(base.channels),
        "levels": None if levels is None else list(levels),
        "digest": weights.digest(base),
    }


def save_projector(
    path: Path | str, projector: Projector, card: dict[str, Any], *, overwrite: bool = False
) -> Path:
    """Write a trained projector: a folder of card.json and weights.safetensors, or one file PATH.kizu.

    card: plain JSON values; "base" is what `describe_base` says of the network it was trained on,
    "images_seen" the digests of the images. Raises OutputExists, and UsageError for a card that could not be
    opened."""
    whole = {"kind": "projector", "projector": {**card, "settings": projector.settings()}}
    try:
        cards.check(whole, "projector", path)
    except ModelFileError as error:
        raise UsageError(str(error)) from error
    return store.save(path, dict(projector.state_dict()), whole, overwrite=overwrite)


def open_projector(path: Path | str) -> tuple[Projector, dict[str, Any]]:
    """A trained projector, and its card. Raises ModelFileError for what `save_projector` did not write."""
    whole = store.load_card(path)
    cards.check(whole, "projector", path)
    tensors = store.load_tensors(path)
    store.expect(path, tensors, dict.fromkeys(tensors, "..."))
    card: dict[str, Any] = whole["projector"]
    try:
        return _built(card["settings"], tensors), card
    except UsageError as error:
        raise ModelFileError(f"{path}: {error}") from error


def check_base(card: dict[str, Any], base: Representation, where: object) -> None:
    """Raise UsageError, naming both, for a projector that was trained on other features than those of
    `base`."""
    trained, given = card["base"], describe_base(base)
    for field, what in (("channels", "levels of channels"), ("levels", "levels"), ("digest", "weights")):
        if trained[field] != given[field]:
            before, now = (f"{one['name']}, {what} {_shown(one[field])}" for one in (trained, given))
            raise UsageError(
                f"The projector in {where} was trained on {before}; here is {now}. Name the representation "
                "that it was trained on, or train a projector on this one."
            )


def _shown(value: Any) -> str:
    return value[:SHOWN] if isinstance(value, str) else str(value)


def _built(settings: dict[str, Any], tensors: dict[str, Tensor]) -> Projector:
    """A projector with these weights. Raises ModelFileError for others than its settings say."""
    with torch.device("meta"):
        projector = Projector(**settings)
    try:
        projector.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    except RuntimeError as error:
        raise ModelFileError(f"The projector's weights do not fit its settings ({error}).") from error
    return projector
