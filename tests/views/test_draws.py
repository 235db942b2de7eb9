"""One generator for a batch, or one for each image: then its company does not matter."""

from __future__ import annotations

import pytest
import torch

from kizu.errors import UsageError
from kizu.views._random import uniforms
from kizu.views.cutpaste import cutpaste
from kizu.views.perlin import perlin
from kizu.views.smooth_blend import smooth_blend
from kizu.views.strong import RECIPES, strong
from kizu.views.weak import weak

VIEWS = {
    **{
        f"strong {recipe}": lambda x, g, recipe=recipe: strong(x, generator=g, recipe=recipe, size=(24, 24))
        for recipe in RECIPES
    },
    "weak": lambda x, g: weak(x, generator=g),
    **{
        f"smooth_blend {kind}": lambda x, g, kind=kind: smooth_blend(x, generator=g, reading=kind)
        for kind in ("clean", "pasted", "paper")
    },
    **{
        f"cutpaste {kind}": lambda x, g, kind=kind: cutpaste(x, generator=g, kind=kind)
        for kind in ("patch", "scar", "both")
    },
    **{
        f"perlin {kind}": lambda x, g, kind=kind: perlin(x, 1 - FOREIGN, generator=g, recipe=kind)
        for kind in ("draem", "glass")
    },
}
FOREIGN = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(8))


def each(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("name", VIEWS)
def test_a_image_of_its_own_generator(name: str) -> None:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    batch = VIEWS[name](images, each(1, 2, 3, 4))
    for row, seed in enumerate((1, 2, 3, 4)):
        assert torch.allclose(VIEWS[name](images[row : row + 1], each(seed))[0], batch[row], atol=1e-5)
    assert torch.allclose(VIEWS[name](images[[2, 0]], each(3, 1)), batch[[2, 0]], atol=1e-5)
    assert torch.equal(VIEWS[name](images[:1], each(1)), VIEWS[name](images[:1], each(1)[0])), (
        "one of a list is one"
    )


def test_generators_go_on_from_call_to_call() -> None:
    generators = each(5, 6)
    first, second = uniforms(generators, 2, 3), uniforms(generators, 2, 3)
    alone = torch.Generator().manual_seed(6)
    assert torch.equal(first[1:], uniforms(alone, 1, 3))
    assert torch.equal(second[1:], uniforms(alone, 1, 3))
    assert not torch.equal(first, second)
    assert first.dtype == torch.float64


def test_as_many_generators_as_images() -> None:
    images = torch.rand(3, 3, 32, 32)
    for wrong in (each(1, 2), tuple(each(1, 2, 3, 4))):
        with pytest.raises(UsageError, match=f"One generator for each image: 3 are needed, got {len(wrong)}"):
            weak(images, generator=wrong)
    for wrong in (7, None, [1, 2, 3]):
        with pytest.raises(UsageError, match=r"must be a torch\.Generator"):
            weak(images, generator=wrong)  # type: ignore[arg-type]
