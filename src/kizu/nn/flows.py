"""Normalising flows: invertible networks with a known log-determinant, so that densities can be computed.

The coupling blocks and permutations are FrEIA's (MIT; Ardizzone et al.). Sources: Dinh, Sohl-Dickstein and
Bengio, "Density estimation using Real NVP", ICLR 2017 (coupling); Kingma and Dhariwal, "Glow", NeurIPS 2018;
Gudovskiy, Ishizaka and Kozuka, "CFLOW-AD", WACV 2022 (condition); Rudolph, Wandt and Rosenhahn, "Same same
but DifferNet", WACV 2021. Three things differ from FrEIA as it comes. Permutations are drawn from torch's
generator, so that one seed decides over the whole flow, and NumPy's generator is left alone. The inverse of a
permutation is not stored. Under bfloat16 autocast only the sub-networks compute in bfloat16: everything that
carries the state from block to block and the log-determinant stay in full precision, since rounding there
adds up over the blocks (measured: docs/methods/cflow.md)."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kizu.errors import UsageError

with warnings.catch_warnings():  # the first import compiles a docstring with a backslash in it
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", SyntaxWarning)
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import AllInOneBlock, GLOWCouplingBlock, PermuteRandom

SHARE = 0.636
"""Of FrEIA's and DifferNet's soft clamp: 2 / pi, so that the arc tangent ends at 1."""


class Flow(nn.Module):
    """x (N, D) -> z (N, D) and log |det dz/dx| (N,), z being standard normal for what it was trained on.

    sequence: FrEIA's blocks one after the other. `conditional_flow` and `permuted_flow` make flows."""

    def __init__(self, sequence: Any) -> None:
        super().__init__()
        self.sequence = sequence

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """condition: (N, D') where the flow has one."""
        z, log_determinant = self.sequence(x, c=_listed(condition))
        return z, log_determinant

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """z (N, D) -> x (N, D)."""
        for block in self.sequence:
            if isinstance(block, AllInOneBlock):
                block.w_perm_inv = block.w_perm.detach().T
        x: Tensor = self.sequence(z, c=_listed(condition), rev=True)[0]
        return x

    def log_likelihood(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """log p(x) (N,) in nats, by the change of variables: log N(z; 0, 1) + log |det dz/dx|."""
        z, log_determinant = self(x, condition)
        return log_normal(z) + log_determinant


class Subnet(nn.Module):
    """Fully connected: (N, inputs) -> (N, outputs), `layers` hidden layers of `width` with ReLU.

    What comes out has the type of what goes in, whatever autocast does between."""

    def __init__(self, inputs: int, outputs: int, *, width: int, layers: int) -> None:
        super().__init__()
        widths = [inputs, *[width] * layers]
        hidden = [part for pair in itertools.pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs)."""
        out: Tensor = self.layers(x)
        return out.to(x.dtype)


def conditional_flow(D: int, *, condition: int, blocks: int, clamp: float) -> Flow:
    """CFLOW's: affine coupling of one half by the other and the condition (condition values a row), a learned
    scale and offset for each dimension, a random rotation; `blocks` times.

    Each sub-network has one hidden layer, twice as wide as its input. clamp: of the logarithm of a scale.
    Weights are drawn from torch's generator. Raises UsageError for D below 2.

    >>> flow = conditional_flow(6, condition=4, blocks=2, clamp=1.9)
    >>> z, log_determinant = flow(torch.zeros(3, 6), torch.zeros(3, 4))
    >>> z.shape, log_determinant.shape
    (torch.Size([3, 6]), torch.Size([3]))
    """
    sequence = _started(D)
    with _numpy_left_alone():
        for _ in range(blocks):
            sequence.append(
                AllInOneBlock,
                cond=0,
                cond_shape=(condition,),
                subnet_constructor=_twice_as_wide,
                affine_clamping=clamp,
                global_affine_type="SOFTPLUS",
            )
    for block in sequence:
        del block.w_perm_inv
        block.w_perm = nn.Parameter(random_rotation(D), requires_grad=False)
        block.permute_function = _full_precision_linear
        block.global_scale_activation = _softplus_scale
    return Flow(sequence)


def permuted_flow(D: int, *, blocks: int, clamp: float, width: int, layers: int) -> Flow:
    """DifferNet's: a fixed permutation, then affine coupling of either half by the other; `blocks` times.

    width, layers: of the hidden layers of each sub-network. clamp: of the logarithm of a scale. Weights and
    permutations are drawn from torch's generator. Raises UsageError for D below 2.

    >>> permuted_flow(6, blocks=2, clamp=3.0, width=8, layers=3)(torch.zeros(3, 6))[0].shape
    torch.Size([3, 6])
    """
    sequence = _started(D)
    constructor = functools.partial(Subnet, width=width, layers=layers)
    with _numpy_left_alone():
        for _ in range(blocks):
            sequence.append(PermuteRandom)
            sequence.append(
                GLOWCouplingBlock,
                subnet_constructor=constructor,
                clamp=clamp,
                clamp_activation=functools.partial(_soft_clamp, clamp=clamp),
            )
    for block in sequence:
        if isinstance(block, PermuteRandom):
            order = torch.randperm(D)
            block.perm = nn.Parameter(order, requires_grad=False)
            block.perm_inv = nn.Parameter(order.argsort(), requires_grad=False)
    return Flow(sequence)


def log_normal(z: Tensor) -> Tensor:
    """log N(z; 0, 1) (N,) of z (N, D), in nats.

    >>> round(float(log_normal(torch.zeros(1, 2)).exp() * 2 * math.pi), 4)
    1.0
    """
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # it is kept, and may be used where gradients are
def position_encoding(h: int, w: int, D: int) -> Tensor:
    """(D, h, w) float32: sines and cosines of the column in the first half of D, of the row in the second.

    With w_k = 10000^(-2k / (D/2)): channels 2k and 2k + 1 of a half are sin(w_k i) and cos(w_k i), i being
    the number of the column or row. Source: Vaswani et al., NeurIPS 2017, section 3.5, for two directions as
    in CFLOW-AD. Raises UsageError for a D that is no multiple of 4.

    >>> position_encoding(1, 2, 4)[:, 0, 1]
    tensor([0.8415, 0.5403, 0.0000, 1.0000])
    """
    if D < 4 or D % 4:
        raise UsageError(f"A position code in two directions has a multiple of 4 values, got {D}.")
    frequencies = 10000.0 ** (-torch.arange(0, D // 2, 2, dtype=torch.float64) / (D // 2))
    columns, rows = (_waves(frequencies, count) for count in (w, h))
    wide = torch.cat([columns[:, None, :].expand(-1, h, -1), rows[:, :, None].expand(-1, -1, w)])
    return wide.float().contiguous()


def random_rotation(D: int) -> Tensor:
    """(D, D) orthogonal, of any direction equally likely (Haar), from torch's generator.

    Source: Mezzadri, "How to generate random matrices from the classical compact groups", 2007, section 5."""
    q, r = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64))
    return (q * r.diagonal().sign()).to(torch.get_default_dtype())


def _waves(frequencies: Tensor, count: int) -> Tensor:
    """(2 F, count): sin and cos in turn."""
    angles = frequencies[:, None] * torch.arange(count, dtype=torch.float64)
    return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)


def _started(D: int) -> Any:
    if D < 2:
        raise UsageError(f"A flow couples two halves of a feature: it takes at least 2 channels, got {D}.")
    return SequenceINN(D)


def _listed(condition: Tensor | None) -> list[Tensor]:
    return [] if condition is None else [condition]


def _twice_as_wide(inputs: int, outputs: int) -> Subnet:
    return Subnet(inputs, outputs, width=2 * inputs, layers=1)


def _soft_clamp(s: Tensor, *, clamp: float) -> Tensor:
    """About 2 / pi atan(s / clamp), which the block multiplies by clamp: about s near 0, at most 1."""
    return SHARE * torch.atan(s / clamp)


def _softplus_scale(a: Tensor) -> Tensor:
    """As FrEIA's "SOFTPLUS", where it is a lambda, which cannot be pickled."""
    return 0.1 * functional.softplus(a, beta=0.5)


def _full_precision_linear(x: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return functional.linear(x, weight)


@contextlib.contextmanager
def _numpy_left_alone() -> Iterator[None]:
    """FrEIA draws permutations from NumPy's global generator; they are drawn anew, so it is put back."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
