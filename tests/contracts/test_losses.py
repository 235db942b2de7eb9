"""What every loss of embeddings owes its users; a new file in losses/ is picked up by itself."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from kizu import registry
from kizu.errors import ShapeError, UsageError

NAMES = registry.names("losses")
INPUTS: dict[str, dict[str, tuple[int, ...]]] = {
    "angle_norm": {"first": (6, 5), "second": (6, 5)},
    "focal": {"logits": (6, 5)},
    "ssim": {"prediction": (3, 2, 4, 5), "target": (3, 2, 4, 5)},
}
"""Shapes of the tensors of a loss that takes others than (6, 5) for each positional argument."""

CLASSES = {"angle_norm": {"labels": [0, 1, 1, 0, 0, 1]}, "focal": {"targets": [0, 4, 1, 2, 3, 0]}}
"""Integer arguments of a loss: they get no gradient."""

STOPPED = {"negative_cosine": {"target"}}
"""Arguments that get no gradient by default."""

WHOLE_DERIVATIVE = {"stop_gradient": False, "detach_weights": False}
"""Options with which the gradient is that of the value."""

NOT_OF_COSINES = {"angle_norm", "focal", "ssim"}
"""Losses for which the lengths of the rows matter."""


def tensors(name: str, dtype: torch.dtype = torch.float64, requires_grad: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    parameters = inspect.signature(registry.load("losses", name)).parameters.values()
    shapes = INPUTS.get(name) or {p.name: (6, 5) for p in parameters if p.kind is not p.KEYWORD_ONLY}
    drawn = {
        key: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for key, shape in shapes.items()
    }
    return {key: value.requires_grad_(requires_grad) for key, value in drawn.items()}


def loss(name: str, given: dict[str, Tensor], **options: Any) -> Tensor:
    count = len(next(iter(given.values())))
    classes = {key: torch.tensor(value[:count]) for key, value in CLASSES.get(name, {}).items()}
    return registry.load("losses", name)(**given, **classes, **options)


@pytest.mark.parametrize("name", NAMES)
def test_signature_and_words(name: str) -> None:
    function = registry.load("losses", name)
    assert "reduction" in inspect.signature(function).parameters
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.kind is not parameter.VAR_KEYWORD
        if parameter.default not in (parameter.empty, None):
            assert parameter.kind is parameter.KEYWORD_ONLY
    assert "ower is better" in (inspect.getdoc(function) or "")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_finite_scalar_and_mean_of_rows(name: str, dtype: torch.dtype) -> None:
    value = loss(name, tensors(name, dtype))
    assert value.shape == ()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.isfinite(value)
    assert torch.allclose(loss(name, tensors(name, dtype), reduction="none").mean(), value)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_left_alone(name: str) -> None:
    given = tensors(name)
    loss(name, given)
    assert all(torch.equal(value, tensors(name)[key]) for key, value in given.items())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_what_they_should(name: str) -> None:
    given = tensors(name, requires_grad=True)
    loss(name, given).backward()
    for key, value in given.items():
        if key in STOPPED.get(name, ()):
            assert value.grad is None, key
        else:
            assert value.grad is not None, key
            assert torch.isfinite(value.grad).all()
            assert (value.grad.abs().sum(dim=-1) > 0).all(), f"a row of {key} gets no gradient"


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str) -> None:
    given = tensors(name, requires_grad=True)
    known = inspect.signature(registry.load("losses", name)).parameters
    options = {key: value for key, value in WHOLE_DERIVATIVE.items() if key in known}
    assert torch.autograd.gradcheck(
        lambda *values: loss(name, dict(zip(given, values, strict=True)), **options), tuple(given.values())
    )


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e4])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_OF_COSINES])
def test_lengths_of_rows_do_not_matter(name: str, scale: float) -> None:
    given = tensors(name)
    rows = {key: value * scale * torch.arange(1, 1 + len(value))[:, None] for key, value in given.items()}
    assert torch.allclose(loss(name, rows), loss(name, given), rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_zero_rows_stay_finite(name: str) -> None:
    given = {key: value.detach().float().mul(0).requires_grad_() for key, value in tensors(name).items()}
    value = loss(name, given)
    assert torch.isfinite(value)
    value.backward()
    assert all(v.grad is None or torch.isfinite(v.grad).all() for v in given.values())


@pytest.mark.parametrize("name", NAMES)
def test_misuse_is_refused(name: str) -> None:
    given = tensors(name)
    last = list(given)[-1]
    with pytest.raises(ShapeError, match=last):
        loss(name, {**given, last: given[last][:, :-1] if len(given) > 1 else given[last][:-1, :, None]})
    with pytest.raises(ShapeError, match="empty"):
        loss(name, {key: value[:0] for key, value in given.items()})
    with pytest.raises(UsageError, match="reduction"):
        loss(name, given, reduction="sum of squares")
    with pytest.raises(UsageError, match="floating point"):
        loss(name, {key: value.long() for key, value in given.items()})
