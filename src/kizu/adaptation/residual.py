"""Residual: features become differences to the nearest features of a few good images of the product.

Card. Paper: ADPretrain, NeurIPS 2025, section 3.1, with 8 reference images (App. B); section 3.3 (the trained
projector, where one is given); App. C (references chosen for each image). Official code: xcyao00/ADPretrain
(MIT); nothing of it is used. Paper and code disagree on the matching, see representations/residual.py.
Selection: the paper draws at random; "kmeans" spreads the references over what the good images show: one
image, the nearest to its centre, of each of `shots` clusters of pooled features. Fixed reference images are
learned from as well: their own residuals are zero. What App. C leaves open is said in
nn/semantic_alignment.py and representations/aligned_residual.py."""

from __future__ import annotations

import torch

from kizu import checks
from kizu.adaptation._references import aligned, fixed
from kizu.errors import UnknownName, UsageError
from kizu.neighbours.matching import MATCHINGS
from kizu.representations.base import Representation
from kizu.representations.projected import Projected, check_base, open_projector
from kizu.representations.sources import open_representation
from kizu.training import FitOptions, SampleStore

SELECTIONS = ("random", "kmeans")
REFERENCES = ("fixed", "aligned")
GRID, CENTRES = 5, 5
"""S and N_c of App. C."""
ALIGNING = "describing the good images"
LONGEST = 200
"""Characters of a parameter in the card of a model file."""


def check_parameters(
    *,
    shots: int,
    selection: str,
    matching: str,
    projector: str | None,
    references: str,
    matcher: str | None,
    grid: int,
    centres: int,
) -> None:
    """Raise UsageError, UnknownName for values out of range, and for what has no effect with these
    references."""
    checks.whole_numbers(shots=shots, grid=grid, centres=centres)
    for name, value, known in (
        ("selection", selection, SELECTIONS),
        ("matching", matching, MATCHINGS),
        ("references", references, REFERENCES),
    ):
        if value not in known:
            raise UnknownName(name, str(value), known)
    for name, text in (("projector", projector), ("matcher", matcher)):
        if text is not None and not (isinstance(text, str) and 0 < len(text) <= LONGEST):
            raise UsageError(f"{name} is text of up to {LONGEST} characters, or None; got {text!r:.300}.")
    if references == "fixed":
        checks.without_effect(
            "with references='fixed'", matcher=(matcher, None), grid=(grid, GRID), centres=(centres, CENTRES)
        )
    else:
        checks.without_effect("with references='aligned'", selection=(selection, "random"))


def residual(
    base: Representation,
    good: SampleStore,
    *,
    shots: int = 8,
    selection: str = "random",
    matching: str = "l2",
    projector: str | None = None,
    references: str = "fixed",
    matcher: str | None = None,
    grid: int = GRID,
    centres: int = CENTRES,
    generator: torch.Generator,
    options: FitOptions,
) -> Representation:
    """A Residual around `base` whose references are `shots` of the good images (all, if fewer); or an
    AlignedResidual; or what a projector makes of it (Projected).

    shots: K, how many images. selection: "random" (fewer shots of the same seed are some of the same images),
    or "kmeans", spread over the images' pooled features. matching: nearest reference by "l2" distance or
    "cosine" similarity. projector: path of a projector that was trained on residuals of `base`. references:
    "fixed", the same for all images, or "aligned": for each image the good ones most like it, and never
    itself. Only with "aligned": matcher, the representation on whose finest level likeness is measured, None
    for `base`; grid, S of S x S cells; centres, clusters of each cell.

    Raises what `check_parameters` raises; ModelFileError for what is no projector; UsageError, naming both,
    for one of another network; TooFewImages when K-means has fewer images than shots, and for "aligned"
    without more images than shots."""
    check_parameters(
        shots=shots,
        selection=selection,
        matching=matching,
        projector=projector,
        references=references,
        matcher=matcher,
        grid=grid,
        centres=centres,
    )
    opened = None if projector is None else open_projector(projector)
    if opened is not None:
        check_base(opened[1], base, projector)
    if options.progress:
        options.progress(0, f"choosing {shots} reference images" if references == "fixed" else ALIGNING)
    wrapped: Representation
    if references == "fixed":
        wrapped = fixed(base, good, shots=shots, selection=selection, matching=matching, generator=generator)
    else:
        wrapped = aligned(
            base,
            good,
            shots=shots,
            matching=matching,
            matcher=None if matcher is None else open_representation(matcher),
            grid=grid,
            centres=centres,
            seed=int(torch.randint(2**31, (), generator=generator)),
        )
    return wrapped if opened is None else Projected(wrapped, opened[0], card=opened[1])
