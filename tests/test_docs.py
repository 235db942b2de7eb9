"""Documentation is a test: what it names exists, what exists is named, what it tells to type can be typed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import kizu
from kizu import registry

ROOT = Path(kizu.__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="installed without its documentation")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if not target.startswith(("http", "data:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", registry.names("detectors"))
def test_every_detector_has_a_card(name: str) -> None:
    text = (ROOT / "docs" / "methods" / f"{name}.md").read_text("utf-8")
    from kizu.detectors.base import parameter_names

    own = set(parameter_names(registry.load("detectors", name))) - {
        "image_size",
        "precision",
        "device",
        "batch_size",
        "seed",
    }
    missing = {parameter for parameter in own if parameter not in text}
    assert not missing, f"docs/methods/{name}.md does not explain {missing}"


def test_the_readme_fits_a_screen_and_its_commands_exist(
    run_cli: Callable[..., tuple[int, str, str]],
) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 60
    verbs = set(re.findall(r"^    kizu (\w+)", text, re.MULTILINE))
    assert {"fit", "inspect", "evaluate"} <= verbs
    for verb in verbs:
        assert run_cli(verb, "--help")[0] == 0, verb
    options = set(re.findall(r"(--[a-z][a-z-]+)", text))
    shown = " ".join(
        run_cli(verb, "--help")[1] for verb in ("fit", "inspect", "evaluate", "list", "demo", "pretrain")
    )
    assert options <= set(re.findall(r"(--[a-z][a-z-]+)", shown))


def test_public_names_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for name in set(re.findall(r"kizu\.([a-z_]+(?:\.[a-z_]+)?)\(", text)):
        found = kizu
        for part in name.split("."):
            found = getattr(found, part)
        assert callable(found)


def test_flow_and_glossary_name_the_rooms_and_the_figures() -> None:
    flow = (ROOT / "docs" / "flow.md").read_text("utf-8")
    for room in registry.ROOMS:
        assert f"`{room}`" in flow, room
    glossary = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    assert all(word in glossary for word in ("AUROC", "AUPRO", "F1-max", "p-value", "_oracle"))


def test_experiments_parse_against_the_signatures() -> None:
    from kizu.evaluation.plan import read_experiment

    files = sorted((ROOT / "experiments").rglob("*.toml"))
    assert files
    for file in files:
        read_experiment(file)


def test_benchmarks_in_the_docs_are_the_ones_that_exist() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    for script in (ROOT / "benchmarks").glob("[a-z]*.py"):
        assert f"benchmarks/{script.name}" in text, script.name
