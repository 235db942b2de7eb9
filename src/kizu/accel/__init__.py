"""Fast twins of what stands readable elsewhere; each is exact and held equal by a test (level 0).

KIZU_ACCEL=0 in the environment turns all of them off: the readable code then does the work.
"""

from __future__ import annotations

import os


def enabled() -> bool:
    """Whether the twins may be taken: unless KIZU_ACCEL is 0."""
    return os.environ.get("KIZU_ACCEL", "1") != "0"
