"""Fast twins of algorithms that stand readable elsewhere, and the switch that turns them all off (level 0).

Every algorithm is written once as its reader expects it (`kizu.neighbours`, `kizu.detectors.padim`, ...).
Where that is too slow, this package holds a faster twin with the same answers. The readable module chooses in
one place:

    if accel.enabled() and <the twin can serve this input>:
        use the twin
    else:
        use the readable code

A test holds each pair equal. Setting the environment variable `KIZU_ACCEL=0` turns every twin off: to debug,
to measure, or to follow a program with nothing but readable code on its path. A test that wants one side uses
`monkeypatch.setenv("KIZU_ACCEL", "0")` (or "1"). What several twins share (float32 arithmetic with a known
error, `frame`) stands here too.
"""

from __future__ import annotations

import os

from kizu.errors import UsageError

__all__ = ["VARIABLE", "enabled"]

VARIABLE = "KIZU_ACCEL"


def enabled() -> bool:
    """Whether the fast twins may be used: False exactly if the environment variable KIZU_ACCEL is "0".

    Unset, empty and "1" mean on. The variable is read at each call (about a microsecond), so it can change
    while the program runs; what was built with a twin (an index, a converted network) stays as it is.

    Raises:
        UsageError: KIZU_ACCEL is anything else.

    >>> from unittest import mock
    >>> with mock.patch.dict("os.environ", KIZU_ACCEL="0"):
    ...     enabled()
    False
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "0", "1"):
        raise UsageError(
            f"the environment variable {VARIABLE} is {value!r}: expected 1 (fast twins, the default) or 0 "
            "(readable code only). Set it to one of them or unset it."
        )
    return value != "0"
