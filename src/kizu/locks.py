"""One run in a folder at a time. The lock is the operating system's: it ends with the process that holds it,
however that ends, so a killed run leaves no obstacle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from kizu.errors import UsageError
from kizu.outputs import LOCK


@contextlib.contextmanager
def locked(folder: Path | str) -> Iterator[None]:
    """Hold `folder`, which is made if it is not there, while the block runs; an empty one is removed then.

    Raises UsageError when another run holds it, in this process or in another one on any machine that sees
    the folder."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, and a folder is to be written. Give another name.")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(
            f"Another run is writing into {folder} at this moment. Wait until it has ended, or give another "
            "folder."
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # while it is held: who opened it meanwhile sees that it is gone
            (folder / LOCK).unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()
        lock.release()
