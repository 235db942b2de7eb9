"""What the command line says of errors."""

from __future__ import annotations

import errno

from kizu.errors import printable


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says so: an error of its own for a GPU, one in words for a CPU."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def sentence(error: BaseException) -> str:
    """What a command says of an error before it ends, in one line."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" ({error.filename})" if error.filename else ""
        return (
            f"The disk is full{where}, or what you may use of it; nothing was left half-written. Free some "
            "space and run the command again, with --resume or --overwrite where it asks for that."
        )
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename} may not be opened: permission denied."
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return "A file grew beyond what this user may write (ulimit -f); nothing was left half-written."
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{printable(str(error.filename))}: {error.strerror.lower()}."
    if isinstance(error, MemoryError):
        return (
            f"Out of memory ({error}); try smaller images, a smaller batch_size or a smaller memory budget."
        )
    return printable(" ".join(str(error).split())) or type(error).__name__
