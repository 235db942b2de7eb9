"""Look at a whole data set on disk: counts, every image and mask, sizes, labels, files that occur twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from kizu import registry
from kizu.digests import file_digest
from kizu.errors import DataError, EmptyData, counted, listed_unused, some
from kizu.images import open_image
from kizu.masks import MaskRule, checked_rule, open_mask
from kizu.samples import Samples

Counts = dict[tuple[str, str | None, int], int]


@dataclass(frozen=True)
class Report:
    """What `check` found. `ok`: nothing is wrong. `lines`: plain text for a person, problems first marked
    "problem: "."""

    ok: bool
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    """One row, checked. `marked` is whether its mask marks any pixel; None when it has no mask that can be
    read."""

    row: int
    digest: str
    broken: tuple[str, ...] = ()
    marked: bool | None = None


def check(
    name: str,
    path: Path | str,
    *,
    category: str | None = None,
    mask_rule: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    threads: int = 2,
) -> Report:
    """Check the data set `name` at `path`: decodes every image and mask once.

    Looked for: a layout or a pairing that does not hold; published counts that are not met; images and masks
    that cannot be decoded; masks of another size than their image; anomalous images whose mask marks nothing
    and normal ones whose mask marks something; files of equal bytes. category: this one alone, or which is
    read where one is read at a time. mask_rule: how grey values of masks count, where not as the data set
    says. progress(done, total) is called from this thread. What is found is reported, not raised; an unknown
    `name` raises UnknownName."""
    module = registry.module("datasets", name)
    head = [f"{name} at {path}"]
    try:
        samples = _read(name, path, module, category)
    except DataError as error:
        return Report(False, (*head, f"problem: {error}"))
    head += [f"licence: {_licence(module, samples)}", *repr(samples).splitlines()]
    problems, notes = _counted(module, samples, Path(path).absolute(), category)
    usual: str = getattr(module, "MASK_RULE", "half")
    rule = checked_rule(mask_rule or samples.mask_rule or usual)
    seen = _look(samples, rule, progress, threads)
    problems += _files(samples, seen) + _twice(samples, seen)
    problems += [listed_unused(samples.unused)] if samples.unused else []
    notes += [f"passed over: {folder} ({reason})" for folder, reason in samples.passed_over]
    if blind := len(samples.anomalous) - len(samples.pixel_labelled.anomalous):
        which = counted(blind, "anomalous image has", "anomalous images have")
        notes.append(f"{which} no mask; pixel metrics leave them out")
    bare = int((samples.labels == -1).sum())
    notes += (
        [f"{counted(bare, 'image carries', 'images carry')} no label; no figure counts them"] if bare else []
    )
    last = (
        counted(len(problems), "problem")
        if problems
        else f"no problem: {counted(len(samples), 'image')} and their masks are as they should be"
    )
    return Report(
        not problems,
        (*head, *(f"problem: {text}" for text in problems), *(f"note: {text}" for text in notes), last),
    )


def compare_counts(samples: Samples, expected: Counts) -> list[str]:
    """Where the number of images of a category, split and label is not the expected one; only categories that
    are there are compared."""
    got: Counts = {}
    for category, split, label, count in (
        samples.table.group_by("category", "split", "label").len().iter_rows()
    ):
        got[category, split, label] = count
    there = {key[0] for key in got}
    wanted = {key: n for key, n in expected.items() if key[0] in there}
    known = {key[0] for key in wanted}
    keys = sorted(wanted.keys() | {key for key in got if key[0] in known}, key=str)
    return [
        f"{category}, {split or 'no split'}, {'anomalous' if label else 'normal'}: "
        f"{counted(got.get((category, split, label), 0), 'image')} where "
        f"{wanted.get((category, split, label), 0)} are published"
        for category, split, label in keys
        if got.get((category, split, label), 0) != wanted.get((category, split, label), 0)
    ]


def _read(name: str, path: Path | str, module: ModuleType, category: str | None) -> Samples:
    """The samples, of one category where it is named. Raises EmptyData where that one is not there."""
    load = registry.load("datasets", name)
    if category is None:
        every: Samples = load(path)
        return every
    if hasattr(module, "CATEGORY_KEYWORD"):  # a large set, of which the one category alone is made into files
        one: Samples = load(path, **{module.CATEGORY_KEYWORD: category})
        return one
    samples: Samples = load(path)
    there = sorted(samples.table["category"].unique())
    if category not in there:
        raise EmptyData(f"{path} holds no category {category}; there are: {some(there, 20)}.")
    return samples.where(category=category)


def _licence(module: ModuleType, samples: Samples) -> str:
    """That of the data set, as far as this is it: any folder may be laid out as a data set is, and have
    categories of the same names."""
    official = str(getattr(module, "LICENCE", "unknown"))
    expected: Counts = module.expected_counts() if hasattr(module, "expected_counts") else {}
    there = samples.table["category"].unique().to_list()
    same = [name for name in there if any(key[0] == name for key in expected)]
    if not expected or any(not compare_counts(samples.where(category=name), expected) for name in same):
        return official
    if getattr(module, "ONE_AT_A_TIME", False) or same:
        return f"{official}, if these are its images: their number is not the published one"
    return "your own: laid out as the data set, but no category of it is here"


def _counted(
    module: ModuleType, samples: Samples, root: Path, category: str | None
) -> tuple[list[str], list[str]]:
    """(problems, notes) about numbers, from the data set's own `expected_counts` and `problems`."""
    expected: Counts = module.expected_counts() if hasattr(module, "expected_counts") else {}
    problems = compare_counts(samples, expected)
    problems += module.problems(root, samples) if hasattr(module, "problems") else []
    official = {key[0] for key in expected}
    there = set(samples.table["category"].unique())
    notes = []
    if official and there - official:
        notes.append(f"no counts are published for: {some(sorted(there - official))}")
    if official - there and getattr(module, "ONE_AT_A_TIME", False):
        notes.append(
            f"one class at a time is good; looked at was {some(sorted(there))}. --category checks another: "
            f"{some(sorted(official - there), 20)}"
        )
    elif official - there and category is None:
        notes.append(f"categories that are not here: {some(sorted(official - there), 20)}")
    return problems, notes


def _look(
    samples: Samples, rule: MaskRule, progress: Callable[[int, int], None] | None, threads: int
) -> list[_Seen]:
    jobs = list(samples.table.select("image", "mask").with_row_index().iter_rows())
    seen = []
    pool = ThreadPoolExecutor(threads, thread_name_prefix="kizu-check")
    try:
        for result in pool.map(lambda job: _inspect(job[0], job[1], job[2], rule), jobs):
            seen.append(result)
            if progress is not None:
                progress(len(seen), len(jobs))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return seen


def _inspect(row: int, image: str, mask: str | None, rule: MaskRule) -> _Seen:
    try:
        shape = open_image(image).shape[:2]
        digest = file_digest(image) or ""
    except DataError as error:
        return _Seen(row, "", (str(error),))
    if mask is None:
        return _Seen(row, digest)
    try:
        return _Seen(row, digest, marked=bool(open_mask(mask, shape=(shape[0], shape[1]), rule=rule).any()))
    except DataError as error:
        return _Seen(row, digest, (str(error),))


def _files(samples: Samples, seen: Sequence[_Seen]) -> list[str]:
    labels, paths = samples.labels, samples.paths
    broken = [reason for one in seen for reason in one.broken]
    empty = [paths[one.row] for one in seen if one.marked is False and labels[one.row] == 1]
    marked = [paths[one.row] for one in seen if one.marked and labels[one.row] == 0]
    lines = []
    if broken:
        lines.append(
            f"{counted(len(broken), 'image or mask', 'images or masks')} cannot be used: " + some(broken)
        )
    if empty:
        which = counted(len(empty), "anomalous image has", "anomalous images have")
        lines.append(f"{which} a mask that marks nothing: {some(empty)}")
    if marked:
        which = counted(len(marked), "normal image has", "normal images have")
        lines.append(f"{which} a mask that marks a defect: {some(marked)}")
    return lines


def _twice(samples: Samples, seen: Sequence[_Seen]) -> list[str]:
    """Files of equal bytes; the worst kinds, that spoil a result, are said apart."""
    same: dict[str, list[int]] = defaultdict(list)
    for one in seen:
        if one.digest:
            same[one.digest].append(one.row)
    labels, splits, paths = samples.labels, samples.table["split"].to_list(), samples.paths
    by_kind: dict[str, list[str]] = defaultdict(list)
    for rows in same.values():
        if len(rows) < 2:
            continue
        kind = "more than once"
        if {"train", "test"} <= {splits[row] for row in rows}:
            kind = "in both train and test"
        elif len({labels[row] for row in rows}) > 1:
            kind = "both as normal and as anomalous"
        by_kind[kind].append(" = ".join(paths[row] for row in rows))
    return [
        f"{counted(len(groups), 'image occurs', 'images occur')} {kind}: {some(groups)}"
        for kind, groups in by_kind.items()
    ]
