"""What sets flawed images apart from their nearest good ones, for several representations; writes a folder
that reports read.

    attention.json   representations, level, and for each image: image, normal, defect, similarities, and the
                     share of each map that lies in the flaw
    attention.npz    images, normals (n, H, W, 3) uint8; masks (n, H, W) bool;
                     maps (R, n, H, W) float16, each divided by its peak
"""

from __future__ import annotations

import functools
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
from kizu.loader import Batches, batches, masks_for
from kizu.representations.base import Representation
from kizu.representations.grad_cam import attention, pooled, share_inside, similarities
from kizu.samples import Samples

Progress = Callable[[int, str], None]
Reading = Callable[[Samples], Batches]
BATCH = 8


def compare_attention(
    names: Sequence[str],
    good: Samples,
    flawed: Samples,
    out: Path,
    *,
    image_size: tuple[int, int] = (224, 224),
    white_level: int | None = None,
    level: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, what: None,
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Compare each flawed image with the nearest good image of its category and write the maps into `out`.

    names: representations, by name or path, or as label=name. white_level: value of white in grey files of
    more than 8 bits, where not as they say. level: the stage to compare (default: each
    representation's last). The nearest image has the largest cosine of pooled features, averaged over the
    representations, so that all of them get the same pair. Returns what attention.json holds, and (path,
    reason) of every unreadable file. Raises UsageError for a level that a representation does not have, or a
    label given twice, EmptyData without a readable good or flawed image, OutputExists."""
    labels = [name.partition("=")[0] for name in names]
    if len(set(labels)) < len(labels):
        raise UsageError(f"Each representation has a label of its own, LABEL=NAME; got {', '.join(labels)}.")
    nets = dict(_named(name) for name in names)
    places = {label: _place(net, level) for label, net in nets.items()}
    reading = functools.partial(batches, image_size=image_size, on_error="collect", white_level=white_level)
    images, rows, errors = _read(flawed, reading)
    flawed = flawed.take(rows)
    nearest, unreadable = _nearest(list(nets.values()), images, flawed, good, reading, progress)
    good = good.take(nearest)
    normals, readable, gone = _read(good, reading)
    if len(readable) < len(nearest):
        raise EmptyData(f"A good image changed while it was read: {gone[0][0]}.")
    masks = masks_for(flawed, image_size, allow_missing=True)
    columns = _columns(flawed, good)
    maps = []
    for number, (label, net) in enumerate(nets.items()):
        progress(number, f"attention of {label}")
        pair_maps, distances = _compare(net, places[label], images, normals)
        maps.append(_record(label, pair_maps, distances, torch.from_numpy(masks), columns))
    info: dict[str, Any] = {
        "representations": list(nets),
        "level": level,
        "image_size": list(image_size),
        "white_level": white_level,
        "columns": columns,
        "share_inside": {
            label: _mean(column["looks"][label]["share_inside"] for column in columns) for label in nets
        },
        "area": _mean(column["area"] for column in columns),
    }
    arrays = {"images": _bytes(images), "normals": _bytes(normals), "masks": masks, "maps": np.stack(maps)}
    with store.replacing_folder(out, record="attention.json", overwrite=overwrite) as folder:
        store.write_record(folder, "attention.json", info)
        np.savez_compressed(folder / "attention.npz", **arrays)  # type: ignore[arg-type]
    return info, errors + unreadable


def spread_out(flawed: Samples, count: int, seed: int) -> Samples:
    """At most `count` images, the kinds of flaw in turn, drawn by `seed`. Raises UsageError for count < 1."""
    if count < 1:
        raise UsageError(f"count is how many flawed images are compared, at least 1, got {count}.")
    kinds: dict[tuple[str, str], list[int]] = {}
    for row in np.random.default_rng(seed).permutation(len(flawed)).tolist():
        kinds.setdefault((flawed.table["category"][row], flawed.table["defect"][row]), []).append(row)
    turns = [(turn, kind, row) for kind, rows in kinds.items() for turn, row in enumerate(rows)]
    return flawed.take(sorted(row for _, _, row in sorted(turns)[:count]))


def _named(text: str) -> tuple[str, Representation]:
    label, equals, name = text.partition("=")
    return (label, kizu.representation(name)) if equals else (text, kizu.representation(text))


def _columns(flawed: Samples, good: Samples) -> list[dict[str, Any]]:
    """What attention.json says of each pair, before any map is computed."""
    return [
        {
            "image": row["image"],
            "normal": normal,
            "category": row["category"],
            "defect": row["defect"],
            "looks": {},
        }
        for row, normal in zip(flawed.table.iter_rows(named=True), good.paths, strict=True)
    ]


def _place(net: Representation, level: int | None) -> int:
    levels = list(net.card.get("levels", range(1, len(net.channels) + 1)))
    if level is None:
        return -1
    if level not in levels:
        raise UsageError(
            f"{net.card['name']} has the levels {', '.join(map(str, levels))}; level {level} is not one of "
            "them."
        )
    return levels.index(level)


def _read(samples: Samples, reading: Reading) -> tuple[Tensor, list[int], list[tuple[str, str]]]:
    """(images (n, 3, H, W), their rows, unreadable files)."""
    with reading(samples) as loader:
        parts = list(loader)
    if not parts:
        raise EmptyData(f"None of the {len(samples)} images could be read.")
    return (
        torch.cat([batch.require_images() for batch in parts]),
        [row for batch in parts for row in batch.rows or ()],
        loader.errors,
    )


def _nearest(
    nets: list[Representation],
    images: Tensor,
    flawed: Samples,
    good: Samples,
    reading: Reading,
    progress: Progress,
) -> tuple[list[int], list[tuple[str, str]]]:
    """For each image its row in `good`, and the good images that could not be read."""
    extractors = [net.inference_copy() for net in nets]
    queries = [torch.cat([pooled(net(part)[-1]) for part in images.split(BATCH)]) for net in extractors]
    pooled_good: list[list[Tensor]] = [[] for _ in nets]
    rows: list[int] = []
    with reading(good) as loader:
        for batch in loader:
            rows += batch.rows or ()
            for parts, net in zip(pooled_good, extractors, strict=True):
                parts.append(pooled(net(batch.require_images())[-1]))
            progress(0, f"{len(rows)} of {len(good)} good images")
    if not rows:
        raise EmptyData(f"None of the {len(good)} good images could be read.")
    cosines = torch.stack(
        [similarities(query, torch.cat(parts)) for query, parts in zip(queries, pooled_good, strict=True)]
    ).mean(0)
    kinds, other = flawed.table["category"].to_numpy(), good.take(rows).table["category"].to_numpy()
    same = torch.from_numpy(kinds[:, None] == other[None]).to(cosines.device)
    without = sorted(set(kinds[~same.any(1).cpu().numpy()].tolist()))
    if without:
        raise EmptyData(f"There is no good image of {', '.join(without)} to compare with.")
    best = cosines.masked_fill(~same, -math.inf).argmax(1)
    return [rows[place] for place in best.tolist()], loader.errors


def _compare(net: Representation, place: int, images: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
    """(attention maps (n, H, W), distances of the pairs (n,)) of one representation."""
    parts = [
        attention(net, one, other, level=place)
        for one, other in zip(images.split(BATCH), normals.split(BATCH), strict=True)
    ]
    maps, distances = (torch.cat(values) for values in zip(*parts, strict=True))
    return maps, distances


def _record(
    label: str, maps: Tensor, distances: Tensor, masks: Tensor, columns: list[dict[str, Any]]
) -> NDArray[np.float16]:
    """The maps (n, H, W), each divided by its peak; the figures of the representation go into `columns`."""
    inside, peaks = share_inside(maps, masks), maps.amax((1, 2))
    for row, column in enumerate(columns):
        marked = bool(masks[row].any())
        column["area"] = float(masks[row].float().mean()) if marked else None
        column["looks"][label] = {
            "similarity": -float(distances[row]),
            "peak": float(peaks[row]),
            "share_inside": float(inside[row]) if marked and bool(inside[row].isfinite()) else None,
        }
    return (maps / peaks.clamp_min(1e-30)[:, None, None]).numpy().astype(np.float16)


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    return (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
