"""The folder is the registry."""

import subprocess
import sys
import textwrap

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
    assert kizu.detectors.padim.PaDiM is kizu.detectors.PaDiM
    assert kizu.detectors.base.Detector is kizu.detectors.Detector is kizu.Detector


def test_every_member_of_every_room_is_an_attribute_under_its_own_name() -> None:
    for room in registry.ROOMS:
        for name in registry.names(room):
            member = registry.load(room, name)
            assert getattr(getattr(kizu, room), member.__name__) is member


def test_every_room_is_an_attribute_of_the_package() -> None:
    for room in registry.ROOMS:
        assert getattr(kizu, room).__name__ == f"kizu.{room}"


def test_completion_shows_what_is_public() -> None:
    assert {"Samples", "Prediction", "Detector", "Representation", "detector", "metrics"} <= set(dir(kizu))
    assert all(hasattr(kizu, name) for name in dir(kizu))
    for room in registry.ROOMS:
        package = getattr(kizu, room)
        assert set(package.__all__) <= set(dir(package))
        assert not [
            name for name in dir(package) if name.startswith("_") or name in ("registry", "annotations")
        ]
        assert all(hasattr(package, name) for name in dir(package))
    assert {"Detector", "PatchCore", "PaDiM", "base"} <= set(dir(kizu.detectors))


@pytest.mark.slow
def test_a_function_stays_the_function_while_threads_import() -> None:
    """In a fresh process, eight threads ask for members and import their files, in different orders."""
    code = """
        import importlib, random, threading
        import kizu
        from kizu import registry

        wrong, barrier = [], threading.Barrier(8)
        def ask(seed):
            names = [(room, name) for room in ("metrics", "losses", "views") for name in registry.names(room)]
            random.Random(seed).shuffle(names)
            barrier.wait()
            for room, name in names:
                if seed % 2:
                    importlib.import_module(f"kizu.{room}.{name}")
                package = getattr(kizu, room)
                exported = [each for each in package.__all__ if registry.is_name_of(name, each)]
                value = getattr(package, exported[0])
                if value.__module__ != f"kizu.{room}.{name}" or not callable(value):
                    wrong.append((room, name, value))
        def run(seed):
            try: ask(seed)
            except BaseException as error: wrong.append(repr(error))
        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(wrong)
    """
    assert printed(textwrap.dedent(code)) == "[]"


def test_unknown_names_teach() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'patchcore'"):
        registry.load("detectors", "pathcore")
    with pytest.raises(UnknownName, match="There is no room"):
        registry.names("kitchen")
    with pytest.raises(AttributeError, match=r"Did you mean 'PatchCore'\? There are: "):
        kizu.detectors.PathCore  # noqa: B018
    with pytest.raises(AttributeError, match="There are: "):
        kizu.detectors.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="Did you mean 'Samples'"):
        kizu.Sample  # noqa: B018
    assert not hasattr(kizu, "_nothing")
    with pytest.raises(UnknownParameter, match="Did you mean 'coreset'"):
        kizu.detector("patchcore", "random/resnet18", coreset_fracton=0.1)
    with pytest.raises(UnknownParameter, match="dataset folder"):
        kizu.dataset("folder", ".", colour="red")


HEAVY = "print([m for m in ('torch', 'numpy', 'polars', 'PIL', 'timm', 'matplotlib') if m in sys.modules])"


def test_import_is_light() -> None:
    assert printed(f"import sys, kizu\n{HEAVY}") == "[]"


def test_opening_a_room_is_light() -> None:
    rooms = ", ".join(f"kizu.{room}" for room in registry.ROOMS)
    assert printed(f"import sys, kizu\n[dir(room) for room in ({rooms})]\n{HEAVY}") == "[]"


def test_help_needs_no_torch() -> None:
    code = (
        f"import sys\nfrom kizu.apps import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n{HEAVY}"
    )
    assert printed(code).splitlines()[-1] == "[]"


def printed(code: str) -> str:
    """What a fresh process prints that runs `code`."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
