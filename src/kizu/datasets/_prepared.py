"""Medical sets laid out as <split>/NORMAL and <split>/<disease>, and the copies that bring others into that
layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kizu.datasets._layout import need_good, read_tree
from kizu.datasets._masks import Row
from kizu.errors import LayoutError
from kizu.images import open_image
from kizu.store import refuse_inputs, replacing_folder, write_record

NORMAL, ABNORMAL = "NORMAL", "ABNORMAL"
Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def is_prepared(root: Path) -> bool:
    """Whether train/NORMAL and test/NORMAL are there."""
    return (root / "train" / NORMAL).is_dir() and (root / "test" / NORMAL).is_dir()


def read_prepared(root: Path, category: str) -> list[Row]:
    """Rows of {train,test}/NORMAL and {train,test}/<disease>; the folder ABNORMAL makes the defect "anomaly".

    Diseased images of train/ have no split: they may serve few-shot or supervised training. Raises
    LayoutError, EmptyData."""
    rows = read_tree(root, category=category, good=(NORMAL.lower(),), masks=None, splits=("train", "test"))
    need_good(rows, root, (NORMAL,))
    rows = [row._replace(defect="anomaly") if row.defect == ABNORMAL else row for row in rows]
    return [row._replace(split=None) if row.label == 1 and row.split == "train" else row for row in rows]


def write_prepared(
    rows: Sequence[Row],
    out: Path | str,
    change: Change,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    threads: int = 2,
) -> None:
    """Write changed copies as PNG to out/<split>/NORMAL and out/<split>/<defect>; the whole folder or
    nothing. Rows without a split are left out. progress(done, total) is called from this thread.

    Raises OutputExists; LayoutError for two images that would get one name; ImageError for an image that
    cannot be read; what `change` raises."""
    jobs = {
        f"{row.split}/{row.defect if row.label else NORMAL}/{row.image.stem}.png": row.image
        for row in rows
        if row.split
    }
    if len(jobs) < sum(row.split is not None for row in rows):
        raise LayoutError(
            f"Two images would be written under one name into {out}; image names must differ within a split "
            "and class."
        )
    refuse_inputs(out, [row.image for row in rows])
    with replacing_folder(out, record="prepared.json", overwrite=overwrite) as folder:
        write_record(folder, "prepared.json", {"images": len(jobs)})
        for name in {Path(name).parent for name in jobs}:
            (folder / name).mkdir(parents=True)

        def copy(job: tuple[str, Path]) -> None:
            Image.fromarray(change(open_image(job[1]))).save(folder / job[0])

        pool = ThreadPoolExecutor(threads, thread_name_prefix="kizu-prepare")
        try:
            for done, _ in enumerate(pool.map(copy, jobs.items()), start=1):
                if progress is not None:
                    progress(done, len(jobs))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
