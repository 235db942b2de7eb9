"""The numeric tests pass with the arithmetic of other processors too (`make processors`: the whole suite)."""

from __future__ import annotations

import pytest
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
