"""Whether what a model promises can hold on the images at hand: sentences for the terminal and the page.

Two tests, both without any assumption on the distribution of scores (`kizu.calibration.exceedance_p_value`),
at a level of LEVEL: on a batch of good parts like those of the calibration each of them speaks up with at
most that probability. In a model whose scores were made in folds ("cross") that is an estimate, as its rate
is."""

from __future__ import annotations

import numpy as np

from kizu.calibration import exceedance_p_value
from kizu.detectors.decision import Decision
from kizu.errors import counted

LEVEL = 0.001
"""The probability of a false cry."""


def other_product(unlike: int, images: int, decision: Decision | None) -> str | None:
    """What to say of a batch of which `unlike` images look unlike the good ones as a whole
    (`Prediction.unlike`): None unless these are at least half of it, and more than chance explains."""
    look = decision.appearance if decision else None
    if look is None or 2 * unlike < images:
        return None
    if exceedance_p_value(unlike, images, look.above, look.parts) > LEVEL:
        return None
    return (
        f"These images do not look like the product that the model knows: {unlike} of "
        f"{counted(images, 'image')} as a whole lie farther from its good images than "
        f"{look.parts - look.above} of {look.parts} of these from each other. Scores and decisions "
        "say nothing then. Is it the right "
        "model, the same camera, the same place and light? If that is how the product looks now, fit or "
        "`kizu update` the model with good images like these."
    )


def broken_promise(called: int, images: int, decision: Decision | None, *, good: bool) -> str | None:
    """What to say where `called` of some images were called anomalous, more than the promise explains; else
    None. good: whether the images are known to be good."""
    if decision is None or not images:
        return None
    p_value = exceedance_p_value(called, images, decision.parts_above, decision.parts)
    if p_value > LEVEL:
        return None
    word = "promised" if decision.method == "split" and not decision.fixed else "expected"
    rate = f"{decision.false_alarm_rate:.2%}"
    chance = f"below 1 in {round(1 / LEVEL)}"
    cure = (
        "Calibrate again on good images of today (`kizu calibrate MODEL GOOD`) or learn from them (`kizu "
        "update MODEL GOOD`); give photographs of one part one group; look for a change of light, camera or "
        "material."
    )
    if good:
        return (
            f"The promise does not hold on these images: {called} of {counted(images, 'good part')} were "
            f"called anomalous, where {rate} were {word}; the probability of that is {chance} if they are "
            f"like the {decision.parts} of the calibration. {cure}"
        )
    return (
        f"{called} of {counted(images, 'image')} were called anomalous: more than good parts alone explain "
        f"({rate} {word}; the probability is {chance}). Either several of these parts are flawed, or the "
        f"promise does not hold here. Look at some of them; if they are good: {cure[0].lower()}{cure[1:]}"
    )


def doubts(
    decision: Decision | None, good: np.ndarray, flagged: np.ndarray | None, unlike: np.ndarray | None
) -> list[str]:
    """What makes the figures of labelled images doubtful: another product, a promise that does not hold.

    good, flagged, unlike: (n,) bool; None where there is no decision, or where that is not known."""
    if decision is None or flagged is None:
        return []
    other = None if unlike is None else other_product(int(unlike.sum()), len(unlike), decision)
    broken = broken_promise(int(flagged[good].sum()), int(good.sum()), decision, good=True)
    return [sentence for sentence in (other, broken) if sentence]
