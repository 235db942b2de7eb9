"""The parameters of a detector in a model file: bounds on what decides over memory or time."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from kizu.card_fields import Card, Count, Positive, Seed, Setting, Width
from kizu.checks import MAX_SIDE

MAX_PIXELS = 2**28
"""In one batch: 3 GiB of images."""
MAX_WINDOWS = 10_000
"""Of one image."""
MAX_ROI = 4_000_000
"""Characters of a region of interest: a mask that looks like noise, or worse."""
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Few = Annotated[int, Field(ge=1, le=1000)]
Layers = Annotated[int, Field(ge=1, le=64)]


class DetectorParameters(Card):
    """Of a detector. What decides over memory or time has bounds; others are held to `Setting`."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, Setting]

    # of all, or of several
    image_size: Annotated[list[Annotated[int, Field(ge=8, le=MAX_SIDE)]], Field(min_length=2, max_length=2)]
    batch_size: Annotated[int, Field(ge=1, le=65_536)]
    white_level: Annotated[int, Field(ge=255, lt=2**31)] | None = None
    roi: Annotated[str, Field(pattern=r"^(mask:|[0-9]+,)[A-Za-z0-9+/=:,]*$", max_length=MAX_ROI)] | None = (
        None
    )
    precision: Annotated[str, Field(max_length=20)] = "auto"
    device: Annotated[str, Field(max_length=40)] = "auto"
    seed: Seed = 0
    iterations: Positive = 1
    sigma: Annotated[float, Field(ge=0, le=1000)] = 0.0
    hidden: Width = 1
    width: Width = 1
    copies: Annotated[int, Field(ge=0, le=1000)] = 0
    crop: Annotated[int, Field(ge=8, le=MAX_SIDE)] | None = None
    stride: Side = 30
    # banks and densities of patches
    neighbourhood: Annotated[int, Field(ge=1, le=63)] = 1
    neighbours: Few = 1
    reweight: Few | None = None
    dimensions: Width | None = None
    projection: Width | None = None
    # reconstruction
    embedding_width: Width | None = None
    latent: Width = 1
    samples: Few = 1
    # one-class and self-supervised training
    embedding: Width | None = None
    pretraining: Count = 0
    head_layers: Layers = 1
    drawn: Annotated[int, Field(ge=1, le=72)] = 1
    # flows
    coupling_blocks: Layers = 1
    condition: Annotated[int, Field(ge=4, le=4096)] = 4
    fibres: Annotated[int, Field(ge=1, le=10**6)] = 1
    layers: Layers = 1
    scales: Annotated[int, Field(ge=1, le=8)] = 1
    train_rotations: Annotated[int, Field(ge=1, le=256)] = 1
    test_rotations: Few = 1
    map_rotations: Few = 1
    # transformers
    heads: Few = 1
    feedforward: Width = 1
    encoder_layers: Layers = 1
    decoder_layers: Layers = 1
    # pyramids of patches
    pyramids: Few = 1
    coarsest: Side = 1
    finest: Side = 1
    scale_factor: Annotated[float, Field(ge=0.1, le=0.95)] = 0.5

    @model_validator(mode="after")
    def _bounded_batch(self) -> Self:
        height, width = self.image_size
        pixels = self.batch_size * height * width
        if pixels > MAX_PIXELS:
            raise ValueError(f"a batch of {self.batch_size} has {pixels:,} pixels, most {MAX_PIXELS:,}")
        windows = (height // self.stride + 1) * (width // self.stride + 1)
        if self.crop is not None and windows > MAX_WINDOWS:
            raise ValueError(f"an image has {windows:,} windows {self.stride} apart, most {MAX_WINDOWS:,}")
        return self
