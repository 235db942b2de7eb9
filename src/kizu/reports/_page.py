"""Jinja pages: one self-contained file, everything escaped, nothing fetched, one known script."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from kizu import __version__

_QUALITIES = (80, 66, 50, 34, 20)


@functools.lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("kizu.reports", "templates")
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def render(template: str, **values: Any) -> str:
    """Fill a template. The page's policy allows data: images, inline style and the one script whose hash it
    names; nothing else runs."""
    environment = _environment()
    style, script = (_source(environment, name) for name in ("_style.css", "_script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(template).render(
        style=Markup(style), script=Markup(script), policy=policy, version=__version__, **values
    )


def _source(environment: jinja2.Environment, name: str) -> str:
    loader = environment.loader
    if loader is None:
        raise jinja2.TemplateNotFound(name)
    return loader.get_source(environment, name)[0].strip()


def photo_uri(image: NDArray[np.uint8], budget: int) -> str:
    """(H, W, 3) uint8 -> data URI of a WebP file; its quality goes down until it has at most `budget` bytes
    or is at its lowest."""
    data = b""
    for quality in _QUALITIES:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "WEBP", quality=quality, method=2)
        data = stream.getvalue()
        if len(data) <= budget:
            break
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")


def mask_uri(truth: NDArray[np.uint8]) -> str:
    """(H, W, 3) uint8, black and white -> data URI of a one-bit PNG."""
    stream = io.BytesIO()
    Image.fromarray(truth[..., 0] > 127).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
