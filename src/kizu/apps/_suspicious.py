"""Bad pictures among the good ones: which are left out of a fit, and the page of those that stand out."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kizu import store
from kizu.errors import UsageError, counted, some
from kizu.images import open_image
from kizu.roi import open_region

if TYPE_CHECKING:
    from kizu.apps._screen import Screen
    from kizu.detectors.base import Detector
    from kizu.evaluation.suspicion import Suspicion
    from kizu.samples import Samples

RECORD, LIST = "suspicious.json", "leave_out.txt"
NAMED = 3


@dataclass(frozen=True)
class LeftOut:
    """Which good images are not learned from. file: their paths, one a line. robust: those that stand out."""

    file: Path | None
    robust: bool

    def apply(
        self, model: Detector, good: Samples, data: Path, seed: int, screen: Screen
    ) -> tuple[Samples, Suspicion | None]:
        """(the images to learn from, what stood out and was left out by `robust`)."""
        from kizu.evaluation.suspicion import without_suspicious
        from kizu.training import FitOptions

        if self.file is not None:
            before = len(good)
            good = without(good, self.file, data)
            screen.say(f"Left out: {counted(before - len(good), 'image')} of {self.file}.")
        if not self.robust:
            return good, None
        if model.supervision != "normal":
            raise UsageError(
                "--robust looks for flaws among good images; this detector learns from both. Leave it away."
            )
        with screen.progress(len(good)) as progress:
            return without_suspicious(model, good, seed=seed, options=FitOptions(progress=progress))


def without(samples: Samples, file: Path, data: Path) -> Samples:
    """The samples without those that a text file lists, one path a line, absolute or from `data` on; lines
    that are empty or begin with # say nothing.

    Raises UsageError for a file that is not there or no UTF-8, and for a path that is none of theirs."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is to list images to leave out, and cannot be read ({error}).") from error
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    top = data.absolute() if data.is_dir() else data.absolute().parent
    wanted = {name: {str(Path(name)), str(top / name)} for name in names}
    known = set(samples.paths)
    missing = [name for name, paths in wanted.items() if not paths & known]
    if missing:
        raise UsageError(
            f"{file} lists {counted(len(missing), 'path')} that no image to learn from has: "
            f"{some(missing, 3)}. Give paths as they are, or from {top} on."
        )
    gone = set().union(*wanted.values()) if wanted else set()
    return samples.take([row for row, path in enumerate(samples.paths) if path not in gone])


def report(out: Path, found: Suspicion, left_out: LeftOut, model: Detector, screen: Screen) -> dict[str, Any]:
    """Say which good images stand out, and write a page of them beside the model; what JSON says of it."""
    scores = dict(zip(found.paths, found.scores, strict=True))
    names = found.outstanding
    outstanding = [{"path": path, "score": scores[path]} for path in names]
    known = {"suspicious": outstanding, "left_out": len(names) if left_out.robust else 0}
    if not names:
        if left_out.robust:
            screen.say("No good image stands out: none was left out.")
        elif found.paths:
            first = [f"{path} ({score:.4g})" for path, score in list(scores.items())[:NAMED]]
            screen.say(f"Highest scores among the good images: {some(first)}; none stands out.")
        return known
    page = _write(out, found, left_out, model)
    first = [f"{path} ({scores[path]:.4g})" for path in names]
    what = f"{counted(len(names), 'good image stands', 'good images stand')} out"
    at = f" Look at them: {page}." if page else ""
    if left_out.robust:
        share = len(names) / (model.images_seen_ + len(names))
        screen.say(
            f"Left out: {what} by score: {some(first, NAMED)}. If these are good after all, parts like them "
            f"will be called anomalous, up to {share:.1%} beside the rate above.{at}"
        )
        return {**known, "page": page}
    screen.say(
        f"WARNING: {what} among those that were scored: {some(first, NAMED)}. A flaw among the good images "
        f"raises the threshold, and flaws are missed then.{at} Fit again with --leave-out FILE (their paths; "
        f"{LIST} beside the page lists them), or with --robust."
    )
    return {**known, "page": page}


def _write(out: Path, found: Suspicion, left_out: LeftOut, model: Detector) -> str | None:
    """The page and the list; None where the folder holds the list that this fit was given."""
    from kizu.reports.suspicious_html import suspicious_html

    folder = out.with_name(f"{out.name}.suspicious")
    if left_out.file is not None and left_out.file.resolve().parent == folder.resolve():
        return None
    reading = functools.partial(open_image, white_level=model.white_level)
    if model.roi is not None:
        reading = functools.partial(open_region, roi=model.roi, white_level=model.white_level)
    scores = dict(zip(found.paths, found.scores, strict=True))
    lines = [f"# {counted(len(found.outstanding), 'image')}; delete the lines of those that are good"]
    lines += found.outstanding
    with store.replacing_folder(folder, record=RECORD, overwrite=True) as temporary:
        shown = [(path, scores[path], found.maps.get(path)) for path in found.outstanding]
        limit = None if math.isinf(found.limit) else found.limit
        suspicious_html(
            shown,
            temporary / "index.html",
            limit=limit,
            left_out=left_out.robust,
            reading=reading,
        )
        (temporary / LIST).write_text("\n".join(lines) + "\n", "utf-8")
        facts = {"images": [{"path": path, "score": float(np.float32(score))} for path, score, _ in shown]}
        store.write_record(temporary, RECORD, facts)
    return str(folder / "index.html")
