"""How much of kizu a reader passes from an image to a detector's score, with the fast twins off.

Counted on a fitted detector's first prediction of one image: the files of kizu whose code runs, but for
errors, types, checks and the switch of accel, and the functions in them. Once from a tensor, which is the
method, and once from a PNG file, which adds what finds, checks and decodes files. The limits are what stands
today: raise them only for a reason. (The last: the precision of features is the faster one of two.)"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LIMITS = {
    ("patchcore", "tensor"): (13, 48),
    ("padim", "tensor"): (11, 43),
    ("patchcore", "file"): (16, 72),
    ("padim", "file"): (14, 67),
}
"""(detector, image) -> (files, functions)."""
CODE = """
import json, sys, tempfile, threading
from pathlib import Path
import numpy as np, torch
from PIL import Image
import kizu
torch.set_num_threads(1)
root = Path(kizu.__file__).parent
folder = Path(tempfile.mkdtemp())
for n in range(4):
    values = np.random.default_rng(n).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(values).save(folder / f"{n}.png")
detector = kizu.detector(sys.argv[1], "random/resnet10t@2,3", image_size=64)
detector.fit([folder / f"{n}.png" for n in range(3)])
kizu.load(detector.save(folder / "model.kizu"))
detector._inference = None  # as cold as a model that was just opened
image = folder / "3.png"
if sys.argv[2] == "tensor":
    image = torch.rand(1, 3, 64, 64)
walked = set()
def note(frame, event, argument):
    if event == "call":
        path = Path(frame.f_code.co_filename)
        if root in path.parents:
            name = frame.f_code.co_qualname.replace(".<locals>", "")
            if not name.endswith(">"):  # no lambdas, comprehensions, modules
                walked.add((str(path.relative_to(root)), name))
threading.setprofile(note)
sys.setprofile(note)
detector.predict(image)
sys.setprofile(None)
print(json.dumps(sorted(walked)))
"""
ASIDE = ("errors.py", "types.py", "checks.py", "accel/__init__.py")


def walk(detector: str, image: str) -> list[tuple[str, str]]:
    """(file, function) of kizu that run, in no order."""
    environment = {"KIZU_ACCEL": "0", "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, detector, image],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(file, name) for file, name in json.loads(done.stdout) if file not in ASIDE]


@pytest.mark.slow
@pytest.mark.parametrize(("detector", "image"), list(LIMITS))
def test_the_way_to_a_score_stays_short(detector: str, image: str) -> None:
    passed = walk(detector, image)
    files = sorted({file for file, _ in passed})
    print(f"{detector} from a {image}: {len(files)} files, {len(passed)} functions")
    for file in files:
        print(" ", file, ", ".join(sorted(name for other, name in passed if other == file)))
    most_files, most_functions = LIMITS[detector, image]
    assert not [file for file in files if file.startswith("accel/")]
    assert len(files) <= most_files
    assert len(passed) <= most_functions
