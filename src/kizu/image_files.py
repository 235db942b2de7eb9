"""Which files are images, and where they lie: the one walk through folders that every command takes.

A file counts as an image by its suffix (SUFFIXES) or, with any other or none, by its first bytes. Folders are
looked into at any depth, through links too, each once. Passed over are hidden folders, those of file systems
(@eaDir, __MACOSX), folders of masks (MASK_NAMES) and what kizu itself wrote. What has a name that is not
UTF-8 is not used, and said: no table or page could hold it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from kizu.checks import check_name
from kizu.errors import NOT_UTF8, EmptyData, ImageError, LayoutError, MissingExtra, is_utf8, printable, some
from kizu.outputs import RECORDS, has_record

SUFFIXES = frozenset(
    (
        *(".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe"),
        *(".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    )
)
"""Suffixes, in lower case, by which a file counts as an image whatever it holds."""
MASK_NAMES = (
    *("ground_truth", "groundtruth", "gt", "mask", "masks", "mask_dir", "masks_dir", "labels", "annotation"),
    *("annotations", "seg", "segmentation", "segmentations"),
)
"""Folders that hold masks and no parts, in any case and with - or blanks for _."""
MASK_ENDINGS = ("_mask", "_masks", "_gt", "_ground_truth")
"""So end the names of others, such as scratch_mask/."""
CLOSED = "a folder that may not be opened: permission denied"
_SYSTEM = ("@eadir", "__macosx", "$recycle.bin", "system volume information")
_HEAD = 16
_MAGIC: tuple[tuple[tuple[bytes, ...], type[ImageFile.ImageFile]], ...] = (
    ((b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    ((b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    ((b"BM",), BmpImagePlugin.BmpImageFile),
    ((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"), TiffImagePlugin.TiffImageFile),
    ((b"RIFF",), WebPImagePlugin.WebPImageFile),
    ((b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    ((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), PpmImagePlugin.PpmImageFile),
    ((b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  \r\n\x87\n"), Jpeg2KImagePlugin.Jpeg2KImageFile),
)
_HEIF = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
HIDDEN = "a hidden folder"
READABLE = "BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF and WebP are read, HEIC with the extra kizu[heic]"


@dataclass
class Found:
    """What lies in folders. images: in order. unused: (path, reason) of files, or pages of files, that are
    images and are not among them. passed_over: (path, reason) of folders that hold no parts."""

    images: list[Path] = field(default_factory=list)
    unused: list[tuple[str, str]] = field(default_factory=list)
    passed_over: list[tuple[str, str]] = field(default_factory=list)


def find_images(places: Iterable[Path | str]) -> Found:
    """Folders become the images in them, at any depth; files stay as they are, each once. Raises EmptyData
    when no image is left, LayoutError for a name that is not UTF-8."""
    found, seen = Found(), set[Path]()
    given = [Path(place) for place in places]
    for place in given:
        check_name(place)
        if place.is_dir() and is_output(place):
            found.passed_over.append((str(place), "kizu wrote it"))
        elif place.is_dir():
            _walk(place, found, seen)
        else:
            found.images.append(place)
    found.images = list(dict.fromkeys(found.images))
    if not found.images:
        raise EmptyData(nothing_in(given, found))
    for image in found.images:
        found.unused += further_pages(image)
    return found


def nothing_in(places: Iterable[Path], found: Found) -> str:
    """Why these places give no image."""
    why = [f"{path} ({reason})" for path, reason in [*found.unused, *found.passed_over]]
    aside = f" Passed over: {some(why, 5)}." if why else ""
    holds = "; ".join(f"{place} holds no images: {inside(place)}" for place in places)
    return f"{holds}.{aside} {READABLE}."


def inside(folder: Path) -> str:
    """What lies in a folder without images, in words."""
    names = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in sorted(folder.iterdir())]
    deeper = [entry.relative_to(folder).as_posix() for entry in sorted(folder.rglob("*")) if entry.is_file()]
    listed = deeper if any("/" in name for name in deeper) else names
    if listed and not any(entry.is_file() for entry in folder.rglob("*")):
        return f"it holds empty folders: {some(listed, 5)}"
    return f"it holds {some(listed, 5)}" if listed else "it is empty"


def look_below(folder: Path) -> Found:
    """What lies in a folder, at any depth. No file is opened but to see whether it is an image."""
    found = Found()
    _walk(folder, found, set())
    return found


def images_below(folder: Path) -> list[Path]:
    """The images in a folder at any depth, sorted by path, without what is passed over."""
    return look_below(folder).images


def why_passed_over(folder: Path) -> str:
    """Why a folder holds no parts, "" when it may hold some."""
    name = folder.name.lower()
    if not os.access(folder, os.R_OK | os.X_OK):
        return CLOSED
    if name.startswith(".") or name in _SYSTEM:
        return HIDDEN
    if is_mask_name(name):
        return "a folder of masks"
    return "kizu wrote it" if is_output(folder) else ""


def is_mask_name(name: str) -> bool:
    """Whether a folder of this name holds masks.

    >>> is_mask_name("Ground-Truth"), is_mask_name("scratch_mask"), is_mask_name("scratch")
    (True, True, False)
    """
    plain = plain_name(name)
    return plain in MASK_NAMES or plain.endswith(MASK_ENDINGS)


def plain_name(name: str) -> str:
    """In small letters, with _ for - and blanks."""
    return name.lower().replace("-", "_").replace(" ", "_")


def is_output(folder: Path) -> bool:
    """Whether a folder is an output of kizu that holds no parts: any but a prepared data set."""
    return any(record != "prepared.json" and has_record(folder, record) for record in RECORDS)


def further_pages(image: Path) -> list[tuple[str, str]]:
    """(path and page, reason) of the pages of a TIFF that are not looked at: all but the first."""
    if image.suffix.lower() not in (".tif", ".tiff"):
        return []
    try:
        with image.open("rb") as stream:
            pages = getattr(TiffImagePlugin.TiffImageFile(stream), "n_frames", 1)
    except Exception:  # a damaged file: reading it says what is wrong with it
        return []
    reason = f"one of {pages} pages; only the first is looked at. Save each page as a file of its own."
    return [(f"{image}, page {page}", reason) for page in range(2, pages + 1)]


def is_image(path: Path | str) -> bool:
    """Whether a file counts as an image, by its suffix, or by its first bytes; hidden files (a leading dot)
    and names that are not UTF-8 do not."""
    path = Path(path)
    if path.name.startswith(".") or not is_utf8(path.name):
        return False
    return path.suffix.lower() in SUFFIXES or _looks_like_one(path)


def list_images(folder: Path | str) -> list[Path]:
    """The images directly in a folder, sorted by name. Raises LayoutError when there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise LayoutError(
            f"{folder} is {'a file' if folder.exists() else 'not there'}; a folder of images was expected."
        )
    return sorted(entry for entry in folder.iterdir() if not entry.is_dir() and is_image(entry))


def plugin_for(head: bytes, path: Path | str | io.BytesIO) -> type[ImageFile.ImageFile]:
    """Pillow's reader for a file that begins so. Raises ImageError for anything that is not read."""
    if not head:
        raise ImageError(path, "is empty (0 bytes).")
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF:
        return _heif_plugin(path)
    for starts, plugin in _MAGIC:
        if head.startswith(starts):
            return plugin
    kind = "AVIF" if head[4:12] in (b"ftypavif", b"ftypavis") else "a Git LFS pointer, not the image itself"
    if kind == "AVIF" or head.startswith(b"version https://"):
        raise ImageError(path, f"is {kind}. {READABLE}.")
    raise ImageError(path, f"is not an image, whatever its suffix says. {READABLE}.")


def _heif_plugin(path: Path | str | io.BytesIO) -> type[ImageFile.ImageFile]:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise ImageError(path, f"is HEIC. {MissingExtra('pillow-heif', 'heic')}") from None
    return HeifImageFile


def _looks_like_one(path: Path) -> bool:
    """Whether the first bytes of a file are those of an image; stricter than `plugin_for`, for words may
    begin with BM or P1 too."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return False
    if head.startswith(b"BM"):
        return head[6:10] == bytes(4)
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head[:1] == b"P" and head[1:2] in b"123456":
        return len(head) > 3 and head[2:3].isspace() and head[3:4] in b"0123456789#"
    if head[4:8] == b"ftyp":
        return head[8:12] in (*_HEIF, b"avif", b"avis")
    return any(head.startswith(starts) for starts, _ in _MAGIC)


def _walk(folder: Path, found: Found, seen: set[Path]) -> None:
    """Add what lies in a folder; `seen` are the real folders that were looked into."""
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    for entry in sorted(folder.iterdir()):
        if not is_utf8(entry.name):
            found.unused.append((printable(str(entry)), NOT_UTF8))
        elif entry.is_dir():
            reason = why_passed_over(entry)
            if not reason:
                _walk(entry, found, seen)
            elif reason == CLOSED:
                found.unused.append((f"{entry}/", reason))
            elif reason != HIDDEN or any(is_image(inner) for inner in _entries(entry)):
                found.passed_over.append((str(entry), reason))
        elif is_image(entry):
            if entry.is_file():
                found.images.append(entry)
            else:
                found.unused.append((str(entry), "a link that leads nowhere."))


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError:
        return
