"""From rows to tensors: images decoded by threads ahead of their use, and masks at the size of the maps."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from kizu import registry
from kizu.errors import ImageError, MaskError, UsageError, counted, some
from kizu.grey_depth import check_white_level
from kizu.images import check_size, image_shape, open_identified, open_values
from kizu.masks import MaskRule, checked_rule, open_mask, resize_mask
from kizu.roi import Roi, open_identified_region, open_region
from kizu.samples import Samples
from kizu.types import Batch


class Batches:
    """One pass over images as `Batch`es, in row order; made by `batches`.

    `errors` grows, with on_error="collect", by (path, reason) for every image that could not be read; the
    others fill the batches as if it were not there. Threads end with the last batch, an exception, `close()`,
    the end of a `with`, or when the object is forgotten."""

    def __init__(
        self,
        paths: Sequence[str],
        *,
        image_size: tuple[int, int],
        batch_size: int,
        collect: bool,
        threads: int,
        prefetch: int,
        errors: list[tuple[str, str]] | None = None,
        digests: bool = False,
        white_level: int | None = None,
        roi: Roi | None = None,
    ) -> None:
        self.errors = [] if errors is None else errors
        self._paths, self._size, self._batch_size, self._collect = paths, image_size, batch_size, collect
        self._rows = iter(range(len(paths)))
        self._ahead = batch_size * (1 + prefetch)
        decode = _decode_identified if digests else _decode
        self._decode = functools.partial(decode, white_level=white_level, roi=roi)
        self._waiting: deque[tuple[int, Future[tuple[NDArray[np.float32], str]]]] = deque()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="kizu-images")

    def __len__(self) -> int:
        """Batches in a whole pass when every image can be read."""
        return -(-len(self._paths) // self._batch_size)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        try:
            decoded, rows = self._gather()
        except BaseException:
            self.close()
            raise
        if not rows:
            self.close()
            raise StopIteration
        return Batch(
            images=torch.from_numpy(np.stack([image for image, _ in decoded])),
            paths=tuple(self._paths[row] for row in rows),
            rows=tuple(rows),
            digests=tuple(digest for _, digest in decoded if digest),
        )

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self.close()

    def start(self) -> None:
        """Begin to decode what comes first, ahead of the first question."""
        self._submit()

    def close(self) -> None:
        """Stop decoding; images under way are finished and dropped. The iterator is at its end afterwards."""
        self._rows = iter(())
        self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _gather(self) -> tuple[list[tuple[NDArray[np.float32], str]], list[int]]:
        decoded: list[tuple[NDArray[np.float32], str]] = []
        rows: list[int] = []
        while len(rows) < self._batch_size:
            self._submit()
            if not self._waiting:
                break
            row, future = self._waiting.popleft()
            try:
                decoded.append(future.result())
                rows.append(row)
            except ImageError as error:
                if not self._collect:
                    raise
                self.errors.append((self._paths[row], error.reason))
        return decoded, rows

    def _submit(self) -> None:
        while len(self._waiting) < self._ahead:
            row = next(self._rows, None)
            if row is None:
                return
            self._waiting.append((row, self._pool.submit(self._decode, self._paths[row], self._size)))


def batches(
    samples: Samples | Sequence[str | Path],
    *,
    image_size: tuple[int, int],
    batch_size: int = 16,
    on_error: Literal["raise", "collect"] = "raise",
    threads: int = 2,
    prefetch: int = 1,
    errors: list[tuple[str, str]] | None = None,
    digests: bool = False,
    white_level: int | None = None,
    roi: Roi | None = None,
) -> Batches:
    """Images as `Batch`es: (B, 3, H, W) float32 in [0, 1], contiguous, with `paths` and `rows` (positions in
    `samples`).

    image_size: (H, W) in pixels; each image is resized to it, its aspect not kept. batch_size: images; the
    last batch may hold fewer. on_error: "raise" stops at the first image that cannot be read, with its
    ImageError; "collect" notes it in `errors`, the list given or `.errors`, and goes on. threads: decoding
    threads. prefetch: batches decoded ahead; (1 + prefetch) * batch_size * H * W * 12 bytes are held beside
    the batch. digests: the batches say what identifies each image. white_level: of grey images of more than 8
    bits, where not as the files say (kizu.grey_depth). roi: the images are cut to it before they are resized;
    one that it does not fit is an image that cannot be read. Raises UsageError for arguments that cannot be
    meant."""
    check_size(image_size)
    check_white_level(white_level)
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("threads", threads, 1),
        ("prefetch", prefetch, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{name} is a whole number from {least} on, got {value!r}.")
    if on_error not in ("raise", "collect"):
        raise UsageError(f"on_error is 'raise' or 'collect', got {on_error!r}.")
    if isinstance(samples, str | Path):
        raise UsageError(
            f"batches takes Samples or a list of paths, got one path: {samples}. For a folder use the "
            "dataset 'folder'."
        )
    paths = samples.paths if isinstance(samples, Samples) else [str(path) for path in samples]
    size = (image_size[0], image_size[1])
    return Batches(
        paths,
        image_size=size,
        batch_size=batch_size,
        collect=on_error == "collect",
        threads=threads,
        prefetch=prefetch,
        errors=errors,
        digests=digests,
        white_level=white_level,
        roi=roi,
    )


def masks_for(
    samples: Samples,
    image_size: tuple[int, int],
    *,
    allow_missing: bool = False,
    threads: int = 2,
    check_shapes: bool = True,
    roi: Roi | None = None,
) -> NDArray[np.bool_]:
    """(n, H, W) bool, True = defect, one mask per row, resized to `image_size` by the nearest pixel.

    A normal image (label 0) has an all-False mask and no file is opened for it. An anomalous or unknown row
    without a mask raises MaskError, unless `allow_missing`, when it is all False too:
    `samples.pixel_labelled` leaves such rows out. check_shapes: hold each mask's size against its image's
    (one more header to read). roi: the masks are cut to it first; outside nothing is a defect. How grey
    values count is the data set's word: its MASK_RULE, "half" if it has none. Raises MaskError and ImageError
    as `open_mask` does. A large set is read some rows at a time, one batch's, say:
    masks_for(samples.take(batch.rows), size)."""
    check_size(image_size)
    height, width = image_size
    rows = list(samples.table.select("image", "mask", "label", "dataset").iter_rows())
    missing = [image for image, mask, label, _ in rows if mask is None and label != 0]
    if missing and not allow_missing:
        raise MaskError(
            f"No mask for {counted(len(missing), 'image that is', 'images that are')} not labelled normal: "
            f"{some(missing)}. Leave them out of pixel metrics with samples.pixel_labelled, or pass "
            "allow_missing=True to count them as without defect."
        )
    masks = np.zeros((len(rows), height, width), dtype=bool)
    rules = {
        dataset: checked_rule(samples.mask_rule or mask_rule(dataset)) for dataset in {r[3] for r in rows}
    }
    todo = [
        (index, image, mask, rules[name])
        for index, (image, mask, label, name) in enumerate(rows)
        if mask is not None and label != 0
    ]

    def fill(job: tuple[int, str, str, MaskRule]) -> None:
        index, image, mask, rule = job
        shape = image_shape(image) if check_shapes else None
        defect = open_mask(mask, shape=shape, rule=rule)
        masks[index] = resize_mask(roi.cut_mask(defect) if roi else defect, (height, width))

    with ThreadPoolExecutor(threads, thread_name_prefix="kizu-masks") as pool:
        _finish(pool, [pool.submit(fill, job) for job in todo])
    return masks


def mask_rule(dataset: str) -> MaskRule:
    """How a data set's masks are read: the MASK_RULE of its module, "half" for a data set that is not in the
    room."""
    if dataset not in registry.names("datasets"):
        return "half"
    return getattr(registry.module("datasets", dataset), "MASK_RULE", "half")


def _decode(
    path: str, size: tuple[int, int], *, white_level: int | None, roi: Roi | None
) -> tuple[NDArray[np.float32], str]:
    if roi is not None:
        return _unit_range(open_region(path, roi, size=size, white_level=white_level)), ""
    return _unit_range(open_values(path, size=size, white_level=white_level)), ""


def _decode_identified(
    path: str, size: tuple[int, int], *, white_level: int | None, roi: Roi | None
) -> tuple[NDArray[np.float32], str]:
    if roi is not None:
        values, digest = open_identified_region(path, roi, size=size, white_level=white_level)
    else:
        values, digest = open_identified(path, size=size, white_level=white_level)
    return _unit_range(values), digest


def _unit_range(values: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) or (H, W) uint8 -> (3, H, W) float32 in [0, 1]. By numpy: what torch spreads over its threads
    leaves them spinning beside the network's."""
    top = np.float32(255.0)
    if values.ndim == 3:
        return np.divide(np.ascontiguousarray(values.transpose(2, 0, 1)), top, dtype=np.float32)
    image = np.empty((3, *values.shape), np.float32)
    image[1:] = np.divide(values, top, out=image[0])
    return image


def _finish(pool: ThreadPoolExecutor, futures: list[Future[None]]) -> None:
    """Wait for all; on the first error (or Ctrl-C) what has not begun is cancelled."""
    try:
        for future in futures:
            future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
