"""The error tree. Every message says what was received, what was expected and what to do.

KizuError
|-- UsageError (ValueError)      a call or a command that cannot be meant
|   |-- UnknownName              no such detector, dataset, ...; lists what exists and the nearest
|   |-- UnknownParameter         a keyword that the class does not have; names the nearest
|   |-- ShapeError               an array of the wrong shape
|   `-- OutputExists             the output is there already: nobody said to replace it, or it is not kizu's
|-- DataError                    what lies on disk is not what was promised
|   |-- ImageError               one image file that cannot be used; carries its path
|   |-- MaskError                a mask that is missing, superfluous or does not match its image
|   |-- LayoutError              a folder that is not laid out as its dataset says
|   `-- EmptyData                nothing to work on: no images, or no good images
|-- ModelFileError               a saved model or representation that is damaged, foreign or unsafe
|-- WeightsUnavailable           weights that are neither on this machine nor to be had
|-- NotFitted                    predict or save before fit
|-- NotFinite (ArithmeticError)  NaN or infinity where numbers were promised
|-- TooFewImages                 a promise that this many images cannot back
`-- MissingExtra (ImportError)   an optional package is not installed; says which extra brings it

NearlyEqual (UserWarning)        good images that seem to show one part, taken for different parts
OtherSize (UserWarning)          files of another size than those that a decision was calibrated on
UnusedRange (UserWarning)        good images that use a small share of the range of their files
Clipped (UserWarning)            grey images with values above what was said to be white
Collapsed (UserWarning)          a training that brought the features of all images onto one point
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

MANY = 40


class KizuError(Exception):
    """Root of every error that kizu raises on purpose."""


class UsageError(KizuError, ValueError):
    """A call or a command that cannot be meant."""


class UnknownName(UsageError):
    """No member of that name in a room."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(_unknown(kind, name, known))


class UnknownParameter(UsageError):
    """A keyword that a class or function does not take."""

    def __init__(self, owner: str, name: str, known: Iterable[str]) -> None:
        super().__init__(_unknown(f"parameter of {owner}", name, known))


class ShapeError(UsageError):
    """An array of the wrong shape."""


class OutputExists(UsageError):
    """The output is there already, and nobody said to replace it or it is not kizu's to replace; `foreign`
    says why."""

    def __init__(self, path: Path | str, foreign: str = "") -> None:
        super().__init__(
            f"{path} is kept: {foreign}. Only what kizu wrote is replaced: give another name, or move it "
            "away yourself."
            if foreign
            else f"{path} exists already. Give another name, or say --overwrite (Python: overwrite=True) to "
            "replace it."
        )
        self.path = Path(path)


class DataError(KizuError):
    """What lies on disk is not what was promised."""


class ImageError(DataError):
    """One image file that cannot be used. `path` is the file, `reason` the sentence without it."""

    def __init__(self, path: Path | str | object, reason: str) -> None:
        name = path if isinstance(path, str | Path) else "(an image in memory)"
        super().__init__(f"{printable(str(name))}: {reason}")
        self.path, self.reason = Path(name), reason


class MaskError(DataError):
    """A mask that is missing, superfluous or does not match its image."""


class LayoutError(DataError):
    """A folder that is not laid out as its dataset says."""


class EmptyData(DataError):
    """Nothing to work on: no images, or no good images."""


class ModelFileError(KizuError):
    """A saved model or representation that is damaged, foreign or unsafe."""


class WeightsUnavailable(KizuError):
    """Weights that are neither on this machine nor to be had."""


class NotFitted(KizuError):
    """predict or save before fit."""


class NotFinite(KizuError, ArithmeticError):
    """NaN or infinity where numbers were promised."""


class TooFewImages(KizuError):
    """A promise that this many images cannot back."""


class NearlyEqual(UserWarning):
    """Good images that are nearly equal and do not share a group."""


class OtherSize(UserWarning):
    """Files of another size than those that a decision was calibrated on."""


class UnusedRange(UserWarning):
    """Good images that use a small share of the range of their files."""


class Clipped(UserWarning):
    """Grey images with values above what was said to be white."""


class Collapsed(UserWarning):
    """A training that brought the features of all good images onto one point."""


class MissingExtra(KizuError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs the package {package}, which is not installed. Install it with: pip install "
            f"'kizu[{extra}]'."
        )


NOT_UTF8 = "its name is not UTF-8 (or the locale is not), so no table or page can hold it; rename it."


def is_utf8(name: Path | str) -> bool:
    r"""Whether a name can be written down: on Linux a file's name is any bytes, and the others come to Python
    as surrogates.

    >>> is_utf8("Prüfling.png"), is_utf8("Pr\udcfcfling.png")
    (True, False)
    """
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    r"""A name or sentence in one line: what does not print (a line's end, an escape of the terminal, a byte
    that is not UTF-8) as Python writes it.

    >>> print(printable("a\nb.png"))
    a\nb.png
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def some(files: Iterable[object], limit: int = 10) -> str:
    """The first few of a list of files, and how many more there are; for messages.

    >>> some(["a.png", "b.png", "c.png"], limit=2)
    'a.png, b.png, and 1 more'
    """
    names = [printable(str(name)) for name in files]
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def counted(count: int, one: str, several: str | None = None) -> str:
    """A number and what it counts. several: the plural, where it is not `one` with an s.

    >>> counted(1, "image"), counted(1200, "image"), counted(2, "is", "are")
    ('1 image', '1200 images', '2 are')
    """
    return f"{count} {one if count == 1 else several or one + 's'}"


def listed_unused(unused: Iterable[tuple[str, str]], limit: int = 10) -> str:
    """Files that were not used, by reason, in one line.

    >>> listed_unused([("a.png", "is empty."), ("b.png", "is a folder."), ("c.png", "is empty.")])
    '3 files not used: a.png, c.png (is empty), b.png (is a folder)'
    """
    by_reason: dict[str, list[str]] = {}
    for path, reason in unused:
        by_reason.setdefault(" ".join(reason.split()).rstrip("."), []).append(path)
    count = sum(map(len, by_reason.values()))
    notes = [f"{some(paths, 3)} ({reason})" for reason, paths in by_reason.items()]
    return f"{counted(count, 'file')} not used: {some(notes, limit)}"


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    if len(names) > MANY:
        examples = ", ".join(names[:: len(names) // 6][:6])
        return f"There is no {kind} named '{name}'.{hint} There are {len(names)}, such as {examples}."
    return f"There is no {kind} named '{name}'.{hint} There are: {', '.join(names) or 'none'}."
