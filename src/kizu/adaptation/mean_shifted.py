"""Mean-shifted contrastive adaptation: contrast of features seen from their centre, not from the origin.

Card. Paper: Reiss and Hoshen, "Mean-Shifted Contrastive Loss for Anomaly Detection", AAAI 2023. Official
code: talreiss/Mean-Shifted-Anomaly-Detection (licence of the repository: software research licence);
nothing of it is used. Constants (code): temperature 0.25, SGD 1e-5 without momentum, weight decay 5e-5, 20
passes in batches of 64, views of MoCo v2, batch norms in evaluation mode throughout; the features have
length one before the centre is taken away; the stem and the first two stages are frozen. Scores in the
paper: distances to the two nearest training features of length one.

Differences: the code prints the AUROC on the test set each pass; here the last step counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from kizu import checks
from kizu.adaptation._training import EncoderObjective, check_training, pooled_features, run, seed_from
from kizu.errors import TooFewImages
from kizu.losses.nt_xent import nt_xent
from kizu.representations.base import Representation
from kizu.representations.trainable import freeze_up_to, require_network, trainable_copy
from kizu.training import FitOptions, Position, SampleStore
from kizu.views.strong import strong

TRAINS = True


def check_parameters(
    *,
    temperature: float,
    angular: bool,
    frozen_level: int,
    passes: int,
    batch_size: int,
    learning_rate: float,
    training_precision: str,
) -> None:
    """Raise UsageError for values out of range."""
    checks.numbers(least=0.0, above=True, temperature=temperature)
    checks.switches(angular=angular)
    checks.whole_numbers(least=0, frozen_level=frozen_level)
    check_training(
        iterations=passes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        training_precision=training_precision,
    )


def mean_shifted(
    base: Representation,
    good: SampleStore,
    *,
    temperature: float = 0.25,
    angular: bool = False,
    frozen_level: int = 2,
    passes: int = 20,
    batch_size: int = 64,
    learning_rate: float = 1e-5,
    training_precision: str = "auto",
    generator: torch.Generator,
    options: FitOptions,
) -> Representation:
    """The network of `base` with weights whose features spread about their centre as the images differ.

    temperature: of NT-Xent. angular: also pull the features to the centre, whose length is then one.
    frozen_level: layers up to the end of this level keep their weights, 0 for none. passes: over the good
    images, in steps of batch_size.

    Raises what `check_parameters` raises; TooFewImages for one image, whose views have no other image to
    differ from; UsageError for a representation that is no network, or of which nothing is left to learn."""
    settings = {
        "temperature": temperature,
        "angular": angular,
        "frozen_level": frozen_level,
        "passes": passes,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "training_precision": training_precision,
    }
    check_parameters(**settings)  # type: ignore[arg-type]
    require_network(base, "mean_shifted")
    if len(good) < 2:
        raise TooFewImages("Views of one image have no other image to differ from: give more good images.")
    seed = seed_from(generator)
    centre = functional.normalize(pooled_features(base, good)).mean(0)
    encoder = trainable_copy(base)
    freeze_up_to(encoder, frozen_level)
    objective = MeanShiftedObjective(
        encoder,
        functional.normalize(centre, dim=0) if angular else centre,
        temperature=temperature,
        angular=angular,
        learning_rate=learning_rate,
        seed=seed,
    )
    return run(
        objective,
        base,
        good,
        method="mean_shifted",
        settings=settings,
        iterations=passes * math.ceil(len(good) / batch_size),
        batch_size=min(batch_size, len(good)),
        training_precision=training_precision,
        seed=seed,
        options=options,
    )


class MeanShiftedObjective(EncoderObjective):
    """NT-Xent of two views' features minus the centre, and their squared length with `angular`."""

    centre: Tensor

    def __init__(
        self,
        encoder: Representation,
        centre: Tensor,
        *,
        temperature: float,
        angular: bool,
        learning_rate: float,
        seed: int,
    ) -> None:
        super().__init__(encoder, batch_norm="eval")
        self.register_buffer("centre", centre.clone())
        self._temperature, self._angular, self._rate, self._seed = temperature, angular, learning_rate, seed

    def prepare(self, batch: dict[str, Tensor], position: Position) -> tuple[Tensor, Tensor]:
        """Two views of each image."""
        images, draws = batch["images"], position.generators(self._seed)
        first, second = (strong(images, generator=draws, recipe="moco_v2") for _ in range(2))
        return first, second

    def loss(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The contrast; "shift" is the mean squared length of the shifted features, the two views added."""
        first, second = (functional.normalize(self.embed(view)) - self.centre for view in batch)
        contrast = nt_xent(first, second, temperature=self._temperature)
        shift = first.square().sum(1).mean() + second.square().sum(1).mean()
        total = contrast + shift if self._angular else contrast
        return {"loss": total, "contrast": contrast.detach(), "shift": shift.detach()}

    def optimiser(self) -> torch.optim.Optimizer:
        """SGD without momentum."""
        learning = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        return torch.optim.SGD(learning, lr=self._rate, weight_decay=5e-5)
