"""The house rules, checked on the syntax tree: rooms import lower levels only, members of a room never import
each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import kizu
from kizu import registry

SOURCE = Path(kizu.__file__).parent
LEVELS = {
    "__init__": 0, "types": 0, "errors": 0, "checks": 0, "registry": 0, "store": 0, "outputs": 0, "locks": 0,
    "launchers": 0, "untrusted": 0, "card_fields": 0, "card_parameters": 0,
    "card_representations": 0, "cards": 0, "images": 0,
    "image_files": 0, "digests": 0, "grey_depth": 0,
    "sample_table": 0, "engine": 0, "accel": 0, "precision": 0,
    "samples": 1, "synthetic": 1, "masks": 1, "views": 1, "nn": 1, "losses": 1, "neighbours": 1, "maps": 1,
    "calibration": 1, "metrics": 1, "roi": 1, "regions": 1,
    "loader": 2, "arrays": 2, "datasets": 2, "representations": 2, "training": 2,
    "reader": 3, "pretraining": 4, "adaptation": 4,
    "detectors": 5,
    "protocols": 5, "papers": 5,
    "evaluation": 6,
    "reports": 7,
    "apps": 8,
    "__main__": 9,
}  # fmt: skip
TORCH_FREE = (
    *(
        "reports",
        "papers",
        "images",
        "image_files",
        "grey_depth",
        "digests",
        "outputs",
        "locks",
        "launchers",
        "errors",
        "checks",
        "registry",
    ),
    *("samples", "sample_table"),
)


def imports(tree: ast.AST) -> list[str]:
    """Full dotted names of what a module imports, at any depth; names under TYPE_CHECKING too: a type is a
    dependency."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def complaints(module: str, tree: ast.AST) -> list[str]:
    """What a module (dotted, without "kizu.") may not import."""
    room, _, member = module.partition(".")
    found = []
    for name in imports(tree):
        if not name.startswith("kizu."):
            continue
        other, _, rest = name.removeprefix("kizu.").partition(".")
        if other not in LEVELS:
            continue
        target = rest.partition(".")[0]
        if other == room:
            members = registry.names(room) if room in registry.ROOMS else []
            if target in members and member in members and target != member:
                found.append(f"{module} imports its sibling {name}")
        elif any(part.startswith("_") for part in rest.split(".")):
            found.append(f"{module} imports another room's machinery: {name}")
        elif LEVELS[other] > LEVELS[room]:
            found.append(f"{module} (level {LEVELS[room]}) imports upward: {name} (level {LEVELS[other]})")
        elif LEVELS[other] == LEVELS[room] != 0:
            found.append(f"{module} imports sideways: {name}")
    return found


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") or "__init__"


LAZY = {"__init__"}
"""kizu/__init__ is the door: it imports any room, inside functions only."""


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_go_down(path: Path) -> None:
    module = dotted(path)
    if module in LAZY:
        return
    assert module.partition(".")[0] in LEVELS, f"{module} is in no room of the design"
    assert not complaints(module, ast.parse(path.read_text("utf-8")))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("detectors.padim", "from kizu.detectors.patchcore import PatchCore"),
        ("metrics.auroc", "from kizu.maps import upsample"),
        ("datasets.folder", "import kizu.detectors.base"),
        ("store", "from kizu.metrics import auroc"),
        ("reports.html", "from kizu.apps import cli"),
        ("evaluation.run", "from kizu.datasets._layout import Row"),
    ],
)
def test_a_planted_import_is_caught(module: str, line: str) -> None:
    assert complaints(module, ast.parse(line))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("detectors.padim", "from kizu.detectors.base import Detector"),
        ("detectors.padim", "from kizu.representations.sources import open_representation"),
        ("apps.cli", "from kizu.apps import _commands"),
        ("detectors._files", "from kizu import store"),
    ],
)
def test_a_fair_import_passes(module: str, line: str) -> None:
    assert not complaints(module, ast.parse(line))


@pytest.mark.parametrize(
    "path", [p for p in modules() if dotted(p).partition(".")[0] in TORCH_FREE], ids=dotted
)
def test_no_torch_where_none_belongs(path: Path) -> None:
    assert not [
        name
        for name in imports(ast.parse(path.read_text("utf-8")))
        if name.partition(".")[0] in ("torch", "timm", "torchvision")
    ]


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_size_and_habits(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 300, "a file has at most 300 lines"
    assert ast.get_docstring(tree), "a module says what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (own[-1].end_lineno or 0) - own[0].lineno + 1 if own else 0
            assert lines <= 40, f"{node.name} has {lines} lines; a function has at most 40"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, "a bare except hides errors"
    assert not {name.partition(".")[0] for name in imports(tree)} & {
        "pickle",
        "dill",
        "joblib",
        "cloudpickle",
    }


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_public_things_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    machinery = path.name.startswith("_") and path.name != "__init__.py"
    for node in tree.body:
        if (
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and not machinery
        ):
            assert ast.get_docstring(node), f"{node.name} has no docstring"
