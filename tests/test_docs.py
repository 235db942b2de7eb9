"""The documentation is tested: what it names exists, what exists is named, and its commands can be typed."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import kizu
from kizu import registry
from kizu.detectors.runtime import parameter_names

ROOT = Path(kizu.__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
HISTORY = ("LOG.md", "CHANGELOG.md")
"""Pages that keep old names."""


def commands(page: Path) -> list[str]:
    """The kizu commands of a page: indented lines, and console blocks."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    shell = "".join(re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    lines = [line for line in text.splitlines() if line.startswith("    kizu ")] + shell.splitlines()
    return [line.strip() for line in lines if re.match(r"\s*kizu [a-z]+", line)]


COMMANDS = [(page, line) for page in PAGES if page.name not in HISTORY for line in commands(page)]
pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="installed without its documentation")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if not target.startswith(("http", "data:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", registry.names("detectors"))
def test_every_detector_has_a_card(name: str) -> None:
    text = (ROOT / "docs" / "methods" / f"{name}.md").read_text("utf-8")
    shared = {"image_size", "precision", "device", "batch_size", "white_level", "alignment", "roi", "seed"}
    parameters = set(parameter_names(registry.load("detectors", name))) - shared
    missing = {parameter for parameter in parameters if f"`{parameter}`" not in text}
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


@pytest.mark.parametrize("room", ["adaptation", "views", "losses"])
def test_every_member_has_a_page_or_a_row(room: str) -> None:
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "methods").glob("*.md"))
    for name in registry.names(room):
        assert f"`{name}" in pages, f"no page of docs/methods explains the {registry.ROOMS[room]} {name}"


def test_every_command_of_the_pages_exists(run_cli: Callable[..., tuple[int, str, str]]) -> None:
    """Each command and each of its options."""
    assert len(COMMANDS) > 20
    helps: dict[str, set[str]] = {}
    for page, line in COMMANDS:
        command = re.split(r"\s#|\s{3,}", line)[0]
        verb = command.split()[1]
        if verb not in helps:
            code, shown, _ = run_cli(verb, "--help")
            assert code == 0, f"{page.name}: {line}"
            helps[verb] = set(re.findall(r"(--[a-z][a-z-]+)", shown))
        unknown = set(re.findall(r"\s(--[a-z][a-z-]+)", command)) - helps[verb]
        assert not unknown, f"{page.name}: {line} has {unknown}"


def test_every_parameter_that_is_set_in_a_command_exists() -> None:
    """`--set name=value` of `kizu fit`, `--adapt-set` of its adaptation."""
    for page, line in COMMANDS:
        words = line.split()
        detector = words[words.index("--detector") + 1] if "--detector" in words else "patchcore"
        known = {"--set": parameter_names(registry.load("detectors", detector))}
        if "--adaptation" in words:
            function = registry.load("adaptation", words[words.index("--adaptation") + 1])
            known["--adapt-set" if words[1] == "fit" else "--set"] = list(
                inspect.signature(function).parameters
            )
        for option, value in re.findall(r"(--set|--adapt-set) (\w+)=", line):
            if words[1] in ("fit", "adapt"):
                assert value in known[option], f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_public_names_of_the_pages_exist(page: Path) -> None:
    """`kizu.metrics.auroc(`, and `kizu.detector("name", keyword=`."""
    text = page.read_text("utf-8")
    if page.name in HISTORY:
        return
    for name in set(re.findall(r"kizu\.([a-z_]+(?:\.[A-Za-z_]+)?)\(", text)):
        value: object = kizu
        for part in name.split("."):
            value = getattr(value, part)
        assert callable(value)
    for name, keywords in re.findall(r'kizu\.detector\(\s*"(\w+)"([^()]*)\)', text):
        if name == "student":  # the tutorial's own
            continue
        known = {*parameter_names(registry.load("detectors", name)), "adaptation"}
        assert set(re.findall(r"(\w+)=", keywords)) <= known, f"{page.name}: {name} {keywords}"


def test_contributing_names_every_kind_of_member_and_every_hook() -> None:
    """A method that a member writes is named where a contributor looks for it."""
    from kizu.adaptation.base import GIVEN
    from kizu.detectors.learned import LearnedDetector
    from kizu.detectors.one_pass import OnePassDetector
    from kizu.pretraining.base import Pretraining
    from kizu.representations.base import Representation

    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    abstract = (OnePassDetector, LearnedDetector, Representation)
    hooks = {name for kind in abstract for name in kind.__abstractmethods__} | set(GIVEN)
    assert not {name for name in hooks if not re.search(rf"`[^`]*\b{name}\b", text)}
    for room in ("detectors", "representations", "adaptation", "datasets", "metrics", "protocols", "views"):
        assert f"src/kizu/{room}/NAME.py" in text, room
    for name in ("build", "project", "ssl_loss", "check_parameters", "on_encoder_loaded"):
        assert name in text
        assert hasattr(Pretraining, name)
    for path in re.findall(r"`((?:src/|tests/|tools/|docs/)[a-z_/]+\.(?:py|md))`", text):
        assert (ROOT / path).exists(), path


def test_the_site_has_every_page() -> None:
    """Each page is in the navigation, and each entry of the API reference exists."""
    config = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        if name != "LOG.md" and not name.startswith("results/"):
            assert name in config, f"mkdocs.yml does not list {name}"
    for listed in re.findall(r"([\w/]+\.md)$", config, re.MULTILINE):
        assert (ROOT / "docs" / listed).exists() or listed == "LOG.md", listed
    assert "font: false" in config
    reference = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    for name in re.findall(r"^::: kizu\.([\w.]+)$", reference, re.MULTILINE):
        assert _exists(name), f"the API reference names kizu.{name}"
    for name in registry.names("detectors"):
        assert f"kizu.detectors.{name}." in reference, f"docs/api/detectors.md does not list {name}"


def _exists(name: str) -> bool:
    """Whether kizu.NAME is a module, or what a module defines."""
    try:
        importlib.import_module(f"kizu.{name}")
    except ImportError:
        module, _, last = f"kizu.{name}".rpartition(".")
        return hasattr(importlib.import_module(module), last)
    return True


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


METHODS = sorted((ROOT / "docs" / "methods").glob("*.md"))
ORDER = ("Idea", "Formula", "Example", "Parameters", "Differences", "Speed")


@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.name)
def test_a_card_goes_from_the_idea_to_the_speed(page: Path) -> None:
    """The headings of a method's page: idea, formula and example are there, and nothing comes out of turn."""
    headings = re.findall(r"^## (?:Size and )?(\w+)", page.read_text("utf-8"), re.MULTILINE)
    found = [ORDER.index(word.capitalize()) for word in headings if word.capitalize() in ORDER]
    assert {0, 1, 2} <= set(found), page.name
    assert found == sorted(found), page.name


@pytest.mark.parametrize("page", METHODS, ids=lambda page: page.name)
def test_examples_of_the_cards_print_what_they_say(page: Path) -> None:
    import doctest

    assert doctest.testfile(str(page), module_relative=False).failed == 0
