"""Nonsense in parameters and experiment files: one sentence and exit code 2, whatever it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from trees import draw_image

import kizu
from kizu import cards, registry
from kizu.apps._settings import parameters_from
from kizu.checks import MOST, whole_numbers
from kizu.detectors.runtime import parameter_names
from kizu.errors import KizuError, UsageError
from kizu.evaluation.plan import read_experiment

Cli = Callable[..., tuple[int, str, str]]
HUGE = 99999999999999999999
SOUND = """
[[dataset]]
name = "folder"
path = "lab"
[[representation]]
name = "random/resnet10t@1"
[[detector]]
name = "gaussian"
[[protocol]]
name = "one_class"
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    for number in range(3):
        draw_image(tmp_path / "lab" / "good" / f"{number}.png", number)
        draw_image(tmp_path / "lab" / "bad" / f"{number}.png", 20 + number)
    return tmp_path / "lab"


def refused(answer: tuple[int, str, str], message: str) -> None:
    code, out, err = answer
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err


@pytest.mark.parametrize(
    ("detector", "name"),
    [
        *(("padim", "seed"), ("padim", "dimensions"), ("patchcore", "neighbourhood"), ("patchcore", "seed")),
        *(("patchcore", "dimensions"), ("simplenet", "hidden"), ("gaussian", "batch_size")),
    ],
)
def test_huge_numbers(detector: str, name: str, lab: Path, run_cli: Cli) -> None:
    command = (
        "fit",
        lab,
        "--detector",
        detector,
        "--representation",
        "random/resnet10t@1",
        "-o",
        lab / "m.kizu",
    )
    refused(run_cli(*command, "--set", f"{name}={HUGE}"), f"{name} is a whole number from ")
    whole_numbers(seed=MOST)


PATHS = ("textures",)
"""Parameters of which any text may be meant: `fit` says what is not there."""
NONSENSE = ("nan", "-inf", "-1", "1e300", str(HUGE), "[]", "''", "{[]: 1}", "(" * 300, "-" * 9999 + "1")


@pytest.mark.parametrize("detector", registry.names("detectors"))
def test_any_parameter(detector: str) -> None:
    """A detector is made, or one sentence of kizu's says why not; what a model file may not hold, `fit`
    refuses before it learns."""
    kind = registry.load("detectors", detector)
    looked_at = "pixels" if detector == "tdg" else "random/resnet10t@1,2"
    assert kizu.detector(detector, looked_at)
    for name in parameter_names(kind):
        for value in NONSENSE if name not in PATHS else ():
            with contextlib.suppress(KizuError):
                parameters = parameters_from([f"{name}={value}"], kind)
                made = kizu.detector(detector, looked_at, **parameters)
                cards.check_parameters(made.parameters)
                assert value in {"-1", "1e300", "''", str(HUGE)}, f"{name}={value} was accepted"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("shots=0", "shots is a whole number from 1 on"),
        ("shots=nan", "shots is int"),
        ("shots=-" + str(HUGE), "shots is a whole number from 1"),
        ("selection=nonsense", "nonsense"),
        ("matching=3", "matching is str"),
        ("matching={[]: 1}", "no matching named"),
        ("spots=3", "shots"),
    ],
)
def test_parameters_of_an_adaptation(value: str, message: str, lab: Path, run_cli: Cli) -> None:
    command = ("adapt", lab / "good", "--adaptation", "residual", "--representation", "random/resnet10t@1")
    refused(run_cli(*command, "-o", lab.parent / "a", "--set", value), message)
    assert not (lab.parent / "a").exists()


def test_a_text_may_be_none() -> None:
    adaptation = registry.load("adaptation", "fewshot_contrastive")
    given = parameters_from(["positives=none", "negatives=none"], adaptation)
    assert given == {"positives": "none", "negatives": "none"}
    flow = registry.load("detectors", "differnet")
    assert parameters_from(["localise=none"], flow) == {"localise": "none"}
    optional = registry.load("detectors", "autoencoder")
    assert parameters_from(["crop=none"], optional) == {"crop": None}


def test_more_memory_than_there_is(lab: Path, run_cli: Cli) -> None:
    command = ("fit", lab, "--representation", "random/resnet10t@1", "--calibration", "none", "-o", lab / "m")
    refused(run_cli(*command, "--set", "memory=1e9"), "memory is a finite number, above 0 and at most 1e+06")
    refused(run_cli(*command, "--set", "memory=1e6", "--set", "image_size=32", "--json"), "Out of memory")


def test_attention(lab: Path, run_cli: Cli) -> None:
    command = ("attention", lab, "--representation", "random/resnet10t@1", "-o", lab.parent / "a")
    refused(run_cli(*command, "--image-size", "32", "--seed", "-1"), "seed is a whole number from 0 on")
    refused(run_cli(*command, "--image-size", "²"), "--image-size is 224 or 448,192")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (SOUND, "dataset = 1", "dataset is written as [[dataset]], got 1"),
        (SOUND, "dataset = [1]", "dataset is written as [[dataset]], got [1]"),
        ('path = "lab"', "path = 7", "path is a text, got 7"),
        ('path = "lab"', "", "[[dataset]] in x.toml has no path"),
        ('path = "lab"', 'path = "lab"\nfilters = 3', "filters is a table, { name = value }, got 3"),
        ('path = "lab"', 'path = "lab"\ncategories = "a"', "categories is a list, got 'a'"),
        ('name = "gaussian"', "", "[[detector]] in x.toml has no name"),
        ('name = "gaussian"', 'name = "gaussian"\nparameters = [1]', "parameters is a table"),
        ('name = "one_class"', 'name = "one_class"\nseeds = "a"', "seeds is a list"),
        ('name = "one_class"', 'name = "one_class"\nseeds = [-1]', "seed is a whole number from 0 on"),
        ('name = "one_class"', 'name = "one_class"\nseeds = [1.5]', "from 0 on, got 1.5"),
        ('"one_class"', '"one_class"\n[[published]]\npaper = "recontrast"\ntable = 7', "table is a text"),
    ],
)  # fmt: skip
def test_experiment_files(old: str, new: str, message: str, tmp_path: Path, run_cli: Cli) -> None:
    file = tmp_path / "x.toml"
    file.write_text(SOUND)
    read_experiment(file)
    file.write_text(SOUND.replace(old, new))
    refused(run_cli("bench", file, "-o", tmp_path / "out"), message)
    assert not (tmp_path / "out").exists()


def test_an_experiment_that_is_no_file(tmp_path: Path, run_cli: Cli) -> None:
    for place in (tmp_path, Path("/dev/zero")):
        refused(run_cli("bench", place, "-o", tmp_path / "out"), "is not a readable TOML file")


def test_good_names(lab: Path) -> None:
    for good in (5, [1, 2], {"good": 1}):
        with pytest.raises(UsageError, match="good is"):
            kizu.dataset("folder", lab, good=good)
