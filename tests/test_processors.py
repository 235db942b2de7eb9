"""The numeric tests pass with the arithmetic of other processors too (`make processors`: the whole suite)."""

from __future__ import annotations

import processors
import pytest
import torch
from processors import SETTINGS, missing, numeric_files, run


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_numeric_tests_pass_under(setting: str) -> None:
    if reason := missing(setting):
        pytest.skip(reason)
    result = run(setting, ["-m", "not slow and not gpu and not network and not data", *numeric_files()])
    assert result.returncode == 0, result.stdout[-4000:]


def test_the_list_of_numeric_tests_names_files_that_are_there() -> None:
    assert numeric_files()


@pytest.mark.parametrize(
    ("capability", "bf16", "amx", "left"),
    [
        ("DEFAULT", False, False, ["oldest"]),
        ("AVX2", False, False, ["oldest"]),
        ("AVX512", False, False, ["oldest", "avx2"]),
        ("AVX512", True, False, ["oldest", "avx2", "avx512"]),
        ("AVX512", True, True, ["oldest", "avx2", "avx512", "avx512-bf16"]),
    ],
)
def test_a_processor_runs_what_it_can_and_does_not_do_anyway(
    capability: str, bf16: bool, amx: bool, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx}, raising=False)
    monkeypatch.setattr(processors, "has_bf16", lambda device: bf16)
    assert [setting for setting in SETTINGS if not missing(setting)] == left
