"""What sets flawed images apart from their nearest good ones, for several representations; writes a folder
that reports read.

attention.json   representations, level, and for each image: image, normal, defect, similarities, share of each map in the flaw
attention.npz    images, normals (n, H, W, 3) uint8; masks (n, H, W) bool; maps (R, n, H, W) float16, each divided by its peak
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import kizu
from kizu import store
from kizu.errors import EmptyData, UsageError
from kizu.loader import batches, masks_for
from kizu.representations.base import Representation
from kizu.representations.grad_cam import attention, pooled, share_inside, similarities
from kizu.samples import Samples

Progress = Callable[[int, str], None]
BATCH = 8


def look(
    names: Sequence[str],
    good: Samples,
    flawed: Samples,
    out: Path,
    *,
    image_size: tuple[int, int] = (224, 224),
    level: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, what: None,
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Compare each flawed image with the nearest good image of its category and write the maps;
    (attention.json, unreadable files).

    names: representations, by name or path, or as label=name. Nearest: largest cosine of pooled features,
    averaged over the representations, so that all of them are asked about the same pair. level: stage looked
    at (default: each one's last). Raises UsageError for a level that one does not have, EmptyData without a
    readable good or flawed image, OutputExists."""
    nets = dict(_named(name) for name in names)
    places = {label: _place(net, level) for label, net in nets.items()}
    images, rows, errors = _read(flawed, image_size)
    flawed = flawed.take(rows)
    nearest, bad = _nearest(list(nets.values()), images, flawed, good, image_size, progress)
    normals, kept, worse = _read(good.take(nearest), image_size)
    if len(kept) < len(nearest):
        raise EmptyData(f"A good image changed while it was looked at: {worse[0][0]}.")
    masks = masks_for(flawed, image_size, allow_missing=True)
    info: dict[str, Any] = {
        "representations": list(nets),
        "level": level,
        "image_size": list(image_size),
        "columns": [
            {
                "image": row["image"],
                "normal": normal,
                "category": row["category"],
                "defect": row["defect"],
                "looks": {},
            }
            for row, normal in zip(flawed.table.iter_rows(named=True), good.take(nearest).paths, strict=True)
        ],
    }
    maps = []
    for number, (label, net) in enumerate(nets.items()):
        progress(number, f"attention of {label}")
        maps.append(
            _look(label, net, places[label], images, normals, torch.from_numpy(masks), info["columns"])
        )
    info["share_inside"] = {
        label: _mean(column["looks"][label]["share_inside"] for column in info["columns"]) for label in nets
    }
    info["area"] = _mean(column["area"] for column in info["columns"])
    with store.replacing_folder(out, overwrite=overwrite) as folder:
        store.write_json(folder / "attention.json", info)
        arrays = {
            "images": _bytes(images),
            "normals": _bytes(normals),
            "masks": masks,
            "maps": np.stack(maps),
        }
        np.savez_compressed(folder / "attention.npz", **arrays)  # type: ignore[arg-type]
    return info, errors + bad


def spread_out(flawed: Samples, count: int, seed: int) -> Samples:
    """At most `count` images, the kinds of flaw in turn, drawn by `seed`."""
    if count < 1:
        raise UsageError(f"count is how many flawed images are looked at, at least 1, got {count}.")
    kinds: dict[tuple[str, str], list[int]] = {}
    for row in np.random.default_rng(seed).permutation(len(flawed)).tolist():
        kinds.setdefault((flawed.table["category"][row], flawed.table["defect"][row]), []).append(row)
    turns = [(turn, kind, row) for kind, rows in kinds.items() for turn, row in enumerate(rows)]
    return flawed.take(sorted(row for _, _, row in sorted(turns)[:count]))


def _named(text: str) -> tuple[str, Representation]:
    label, equals, name = text.partition("=")
    return (label, kizu.representation(name)) if equals else (text, kizu.representation(text))


def _place(net: Representation, level: int | None) -> int:
    held = list(net.card.get("levels", range(1, len(net.channels) + 1)))
    if level is None:
        return -1
    if level not in held:
        raise UsageError(
            f"{net.card['name']} has the levels {', '.join(map(str, held))}; level {level} is not one of "
            "them."
        )
    return held.index(level)


def _read(samples: Samples, image_size: tuple[int, int]) -> tuple[Tensor, list[int], list[tuple[str, str]]]:
    """(images (n, 3, H, W), their rows, unreadable files)."""
    with batches(samples, image_size=image_size, on_error="collect") as loader:
        found = list(loader)
    if not found:
        raise EmptyData(f"None of the {len(samples)} images could be read.")
    return (
        torch.cat([batch.require_images() for batch in found]),
        [row for batch in found for row in batch.rows or ()],
        loader.errors,
    )


def _nearest(
    nets: list[Representation],
    images: Tensor,
    flawed: Samples,
    good: Samples,
    image_size: tuple[int, int],
    progress: Progress,
) -> tuple[list[int], list[tuple[str, str]]]:
    """For each image its row in `good`, and the good images that could not be read."""
    frozen = [net.inference_copy() for net in nets]
    queries = [torch.cat([pooled(net(part)[-1]) for part in images.split(BATCH)]) for net in frozen]
    found: list[list[Tensor]] = [[] for _ in nets]
    rows: list[int] = []
    with batches(good, image_size=image_size, on_error="collect") as loader:
        for batch in loader:
            rows += batch.rows or ()
            for own, net in zip(found, frozen, strict=True):
                own.append(pooled(net(batch.require_images())[-1]))
            progress(0, f"{len(rows)} of {len(good)} good images")
    if not rows:
        raise EmptyData(f"None of the {len(good)} good images could be read.")
    cosines = torch.stack(
        [similarities(query, torch.cat(own)) for query, own in zip(queries, found, strict=True)]
    ).mean(0)
    kinds, other = flawed.table["category"].to_numpy(), good.take(rows).table["category"].to_numpy()
    same = torch.from_numpy(kinds[:, None] == other[None]).to(cosines.device)
    lonely = sorted(set(kinds[~same.any(1).cpu().numpy()].tolist()))
    if lonely:
        raise EmptyData(f"There is no good image of {', '.join(lonely)} to compare with.")
    best = cosines.masked_fill(~same, -math.inf).argmax(1)
    return [rows[place] for place in best.tolist()], loader.errors


def _look(
    label: str,
    net: Representation,
    place: int,
    images: Tensor,
    normals: Tensor,
    masks: Tensor,
    columns: list[dict[str, Any]],
) -> NDArray[np.float16]:
    """Unit maps (n, H, W) of one representation; its figures go into `columns`."""
    parts = [
        attention(net, one, other, level=place)
        for one, other in zip(images.split(BATCH), normals.split(BATCH), strict=True)
    ]
    maps, distances = (torch.cat(values) for values in zip(*parts, strict=True))
    inside, peaks = share_inside(maps, masks), maps.amax((1, 2))
    for row, column in enumerate(columns):
        marked = bool(masks[row].any())
        column["area"] = float(masks[row].float().mean()) if marked else None
        share = float(inside[row]) if marked and bool(inside[row].isfinite()) else None
        column["looks"][label] = {
            "similarity": -float(distances[row]),
            "peak": float(peaks[row]),
            "share_inside": share,
        }
    return (maps / peaks.clamp_min(1e-30)[:, None, None]).numpy().astype(np.float16)


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    return (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
