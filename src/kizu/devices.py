"""What the machine can do: which device is there, and whether it multiplies bfloat16 natively."""

from __future__ import annotations

import functools

import torch


@functools.cache
def has_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic is native there."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def pick_device() -> str:
    """The GPU when there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
