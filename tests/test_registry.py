"""The folder is the registry."""

import subprocess
import sys

import pytest

import kizu
from kizu import registry
from kizu.errors import UnknownName, UnknownParameter


def test_every_member_of_every_room_loads() -> None:
    for room in registry.ROOMS:
        for name in registry.names(room):
            assert callable(registry.load(room, name)), (room, name)
            assert registry.summary(room, name)


def test_a_member_is_an_attribute_of_its_room() -> None:
    import kizu.metrics.auroc  # the file has been imported: the attribute is still the function

    assert kizu.metrics.auroc([0.1, 0.9], [0, 1]) == 1.0
    assert kizu.detectors.PaDiM.__name__ == "PaDiM"
    assert kizu.detectors.padim is kizu.detectors.PaDiM


def test_every_room_is_an_attribute_of_the_package() -> None:
    for room in registry.ROOMS:
        assert getattr(kizu, room).__name__ == f"kizu.{room}"


def test_unknown_names_teach() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'patchcore'"):
        registry.load("detectors", "pathcore")
    with pytest.raises(UnknownName, match="There is no room"):
        registry.names("kitchen")
    with pytest.raises(AttributeError, match="there are: "):
        kizu.detectors.nothing  # noqa: B018
    with pytest.raises(UnknownParameter, match="Did you mean 'coreset'"):
        kizu.detector("patchcore", "random/resnet18", coreset_fracton=0.1)
    with pytest.raises(UnknownParameter, match="dataset folder"):
        kizu.dataset("folder", ".", colour="red")


def test_import_is_light() -> None:
    code = "import sys, kizu; print([m for m in ('torch', 'numpy', 'polars', 'PIL', 'timm') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom kizu.apps import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'polars', 'PIL', 'timm', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().splitlines()[-1] == "[]"
