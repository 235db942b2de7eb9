"""Who reads what a module gives, seen in one pass of an example: what may be merged with what.

Noted by hooks on the network at hand and a mode of this thread alone (torch's `TorchFunctionMode`), so that
networks in other threads go on undisturbed. Symbolic tracing (torch.fx) replaces `nn.Module.__call__` in the
whole process meanwhile, and is no way to do this in a library."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Key = tuple[int, int]
"""A tensor, and how often it was changed in place: the value that it has now."""
RESULT = "(result)"
"""What reads the values that the network gives back."""


class Dataflow:
    """gives, takes: module -> the value that it gives, the first that it takes, of its only call. readers:
    value -> the modules whose own code reads it. `kept` holds all values, so that none has another's key."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.gives: dict[str, Key] = {}
        self.takes: dict[str, Key] = {}
        self.readers: dict[Key, set[str]] = defaultdict(set)
        self.kept: list[Tensor] = []
        self.running: list[str] = []

    def key(self, value: Tensor) -> Key:
        """Of a value as it is now (weights that were made in inference mode do not count their changes)."""
        self.kept.append(value)
        return id(value), 0 if value.is_inference() else value._version

    def once(self, name: str) -> bool:
        """Whether the module was called, and once."""
        return self.calls[name] == 1 and name in self.gives and name in self.takes

    def only_reader(self, name: str) -> str | None:
        """The module, itself called once, that alone reads what this one gives in its only call."""
        if not self.once(name):
            return None
        readers = self.readers[self.gives[name]]
        reader = next(iter(readers)) if len(readers) == 1 else None
        fits = reader is not None and self.once(reader) and self.takes[reader] == self.gives[name]
        return reader if fits else None

    def links(self) -> dict[str, str | None]:
        """Each module that was called, and the module that alone reads what it gives."""
        return {name: self.only_reader(name) for name in self.calls}


class _Reading(TorchFunctionMode):
    """Notes for each call of a torch function that makes tensors which module makes it."""

    def __init__(self, flow: Dataflow) -> None:
        super().__init__()
        self.flow = flow

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [self.flow.key(value) for value in tensors((args, kwargs or {}))]
        made = func(*args, **(kwargs or {}))
        if any(True for _ in tensors(made)):  # to ask for a shape is no reading
            for key in inputs:
                self.flow.readers[key].add(self.flow.running[-1] if self.flow.running else RESULT)
        return made


def observed(net: nn.Module, run: Callable[[Any], Any]) -> Dataflow | None:
    """What happens in `run(net)`, one pass of an example; None where the network does not bear it.

    The network must be in evaluation mode, and used by nobody else meanwhile."""
    flow = Dataflow()
    handles = []
    for name, module in net.named_modules():
        handles += [module.register_forward_pre_hook(_entering(flow, name))]
        handles += [module.register_forward_hook(_leaving(flow, name))]
    try:
        with torch.inference_mode(False), torch.no_grad(), _Reading(flow):
            result = run(net)
    except Exception:  # whatever a network of another size, kind or type raises: it is left as it is
        return None
    finally:
        for handle in handles:
            handle.remove()
    for value in tensors(result):
        flow.readers[flow.key(value)].add(RESULT)
    return flow


def _entering(flow: Dataflow, name: str) -> Callable[..., None]:
    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        flow.calls[name] += 1
        flow.running.append(name)
        if inputs and isinstance(inputs[0], Tensor):
            flow.takes[name] = flow.key(inputs[0])

    return enter


def _leaving(flow: Dataflow, name: str) -> Callable[..., None]:
    def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        flow.running.pop()
        if isinstance(output, Tensor):
            flow.gives[name] = flow.key(output)

    return leave


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)
