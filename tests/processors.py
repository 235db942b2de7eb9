"""The settings under which another processor's arithmetic can be had on this one, and `make processors`.

ATen, oneDNN and MKL hold one kernel for each instruction set, and these sum in different orders. A test
whose tolerance fits one kernel alone fails on somebody else's machine; here it fails on yours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from kizu.engine import has_bf16

TESTS = Path(__file__).parent
SETTINGS = {
    "oldest": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_CBWR": "AVX512"},
    "avx512-bf16": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
}
"""Variables of ATen (elementwise, reductions), oneDNN (convolutions) and MKL (products, LAPACK)."""
NUMERIC = (
    "test_batch_norm.py",
    "test_contrastive_losses.py",
    "test_cosine_loss.py",
    "test_gaussian.py",
    "test_maps.py",
    "test_nested_gaussians.py",
    "test_padim.py",
    "test_patches.py",
)
"""Fast files of tests that compare figures, wherever they lie below tests/."""


def missing(setting: str) -> str:
    """Why this processor cannot run `setting`, or need not; empty where it is to be run.

    oneDNN and MKL ignore what a processor lacks, ATen dies of an illegal instruction: so it is not tried."""
    capability = torch.backends.cpu.get_cpu_capability()
    if setting == "avx2" and capability == "DEFAULT":
        return "this processor has no AVX2"
    if setting.startswith("avx512") and capability != "AVX512":
        return "this processor has no AVX-512"
    if setting == "avx512-bf16" and not has_bf16(torch.device("cpu")):
        return "this processor has no bfloat16 instructions"
    if setting == native():
        return "it is what this processor does anyway"
    return ""


def native() -> str:
    """The setting that changes nothing on this processor; "" where each changes something (AMX, no AVX2)."""
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX2":
        return "avx2"
    if capability != "AVX512" or getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16"):
        return ""
    return "avx512-bf16" if has_bf16(torch.device("cpu")) else "avx512"


def numeric_files() -> list[Path]:
    """Those of NUMERIC, each of which must be there."""
    files = {name: list(TESTS.rglob(name)) for name in NUMERIC}
    absent = [name for name, paths in files.items() if not paths]
    if absent:
        raise FileNotFoundError(
            f"tests/ has no {', '.join(absent)}: correct NUMERIC in {Path(__file__).name}"
        )
    return [path for paths in files.values() for path in paths]


def run(setting: str, arguments: Sequence[object]) -> subprocess.CompletedProcess[str]:
    """pytest with `arguments` under `setting`, in a process that inherits nothing of the pytest around it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=TESTS.parent,
        env=environment | SETTINGS[setting],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def main(arguments: Sequence[str]) -> int:
    """The suite under each setting in turn; 0 if it passed under all that this processor can do."""
    failed = 0
    for setting in SETTINGS:
        reason = missing(setting)
        if reason:
            print(f"{setting}: left out, {reason}", flush=True)
            continue
        result = run(setting, arguments)
        good = result.returncode == 0
        print(f"{setting}: {'passed' if good else result.stdout}", flush=True)
        failed += not good
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
