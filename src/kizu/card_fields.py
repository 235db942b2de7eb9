"""The kinds of fields that cards of model files have, each with its bounds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field

LARGEST = 1e12
"""Of a number whose bounds are not known by its name."""

Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Number = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=4000)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Architecture = Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", max_length=100)]
"""timm's own names, never those with which timm fetches from elsewhere (hf-hub:, local-dir:)."""
Local = Annotated[str, Field(pattern=r"^[^:]*(:[^:]*\.(safetensors|pth)(@[0-9,]+)?)?$", max_length=4000)]
"""A representation by name or path, never one that timm fetches from elsewhere."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
WeightDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digests = Annotated[list[Digest], FailFast()]
Texts = Annotated[list[Text], FailFast(), Field(max_length=10_000)]


def _setting(value: Any) -> Any:
    """A parameter whose name says nothing of its bounds: nothing, a switch, a number, a word, or a few of
    these."""
    parts = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
    for part in parts:
        number = isinstance(part, int | float) and abs(part) <= LARGEST
        word = part is None or (isinstance(part, str) and len(part) <= 200)
        if not (number or word) or len(parts) > 32:
            raise ValueError(f"a parameter is a number up to {LARGEST:g}, a word, or a few of these")
    return value


Setting = Annotated[Any, AfterValidator(_setting)]
Settings = Annotated[dict[str, Setting], Field(max_length=100)]


class Card(BaseModel):
    """Types are not converted: 1.0 is no whole number, "1" none at all. Other fields are documentation."""

    model_config = ConfigDict(strict=True, extra="ignore")
