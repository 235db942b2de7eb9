"""ADPretrain's losses: anomalous tokens point elsewhere than normal ones (angle) and are longer (norm).

Source: ADPretrain, NeurIPS 2025, section 3.2, Eq. 2 (`angle_loss`), 3, 5 and 6 (`norm_loss`), 7 (their sum,
`angle_norm`). Official code: xcyao00/ADPretrain (MIT); nothing of it is used. A token is the feature of one
position of one level of an image; two views of an image have the same positions and labels.

Paper and code disagree; each difference is a keyword. The default is:

    keyword          default      paper           code        why
    anchors          both         first           both        both views are data of equal standing
    norm             root         pseudo_huber    root        e^n of a pseudo-Huber norm is past float32 from
                                                              |x| = 88 on, which raw residuals reach
    adaptive_radius  False        False           True        True: one wrongly labelled token sets the radius
    inside           lift         contract        lift        Eq. 3 as printed pulls all normal tokens to 0,
                                                              which its text wants to avoid
    detach_weights   True         False           True        e^d is a weight; Eq. 4 as printed is the
                                                              derivative of neither reading
    averaging        violators    tokens          violators   anomalous tokens are few

Eq. 7 has half of the sum of `angle_norm`: the mean over the tokens of both views instead of the sum of two
means. All is computed in float32 at least."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from kizu.checks import bind_shape, numbers, switches, whole_numbers
from kizu.errors import UnknownName, UsageError
from kizu.losses._embeddings import at_least_float32, check_float, check_same_shape, reduce_loss, unit_rows

ANCHORS = ("both", "first")
NORMS = ("root", "pseudo_huber")
INSIDE = ("lift", "free", "contract")
AVERAGING = ("violators", "tokens")
BLOCK = 2**22
"""Similarities that stand at once (16 MiB in float32)."""
BAND = 0.99
"""Of the radius: from there to the radius lies the band in which normal tokens are left alone."""
SHARE_OF_SMALLEST = 0.9
"""Of the shortest anomalous token: the adaptive radius."""


def angle_norm(
    first: Tensor,
    second: Tensor,
    labels: Tensor,
    *,
    centre: Tensor | None = None,
    angle_weight: float = 1.0,
    temperature: float = 0.15,
    anchors: str = "both",
    norm: str = "root",
    radius: float = 0.4,
    adaptive_radius: bool = False,
    margin: float = 0.75,
    inside: str = "lift",
    detach_weights: bool = True,
    averaging: str = "violators",
    block: int = BLOCK,
    reduction: str = "mean",
) -> Tensor:
    """Lower is better: angle_weight x `angle_loss` + `norm_loss` of the first view + that of the second.

    The keywords are those of the two. reduction: "mean" -> (), "none" -> (2N,), the tokens of `first` before
    those of `second`; their mean is the loss. Raises ShapeError, UsageError, UnknownName.

    >>> import torch
    >>> tokens, labels = torch.tensor([[0.95, 0.0], [0.0, 4.0]]), torch.tensor([0, 1])
    >>> angle_norm(tokens, tokens, labels)  # the angle loss alone: 0.95 lies in the band, 4 is long enough
    tensor(-5.9735)
    """
    numbers(least=0, angle_weight=angle_weight)
    angle = angle_loss(
        first, second, labels, centre=centre, temperature=temperature, anchors=anchors, block=block,
        reduction="none",
    )  # fmt: skip
    norms = [
        norm_loss(
            view, labels, norm=norm, radius=radius, adaptive_radius=adaptive_radius, margin=margin,
            inside=inside, detach_weights=detach_weights, averaging=averaging, reduction="none",
        )
        for view in (first, second)
    ]  # fmt: skip
    if anchors == "first":
        angle = torch.cat([2 * angle, torch.zeros_like(angle)])
    return reduce_loss(angle_weight * angle + 2 * torch.cat(norms), reduction)


def angle_loss(
    first: Tensor,
    second: Tensor,
    labels: Tensor,
    *,
    centre: Tensor | None = None,
    temperature: float = 0.15,
    anchors: str = "both",
    block: int = BLOCK,
    reduction: str = "mean",
) -> Tensor:
    """Lower is better: -s(i, i') / T + log sum_k exp(s(i, k) / T) over all tokens k of the other label.

    s is the cosine of two tokens after `centre` is subtracted; i' is the same position in the other view,
    which does not stand in the sum, so that the loss may be negative; k goes over both views and all images.

    first, second: (N, C) tokens of two views, row i of both at one position. labels: (N,), 0 or False normal,
    1 or True anomalous. centre: (C,), None is the origin. temperature: T, above 0. anchors: "both", every
    token of both views is an anchor; "first", those of `first` only. block: similarities that stand at once;
    it bounds the memory and does not change the result. reduction: "mean" -> (), "none" -> (2N,), or (N,)
    with anchors="first". Zero where all tokens have one label. Raises ShapeError, UsageError, UnknownName.

    >>> import torch
    >>> tokens = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> angle_loss(tokens, tokens, torch.tensor([0, 1]), temperature=1.0)  # -1 + log(2 e^0)
    tensor(-0.3069)
    """
    check_same_shape(first=first, second=second)
    anomalous = _anomalous(labels, first)
    numbers(least=0, above=True, temperature=temperature)
    whole_numbers(block=block)
    _check_words(anchors=(anchors, ANCHORS))
    if centre is not None:
        check_float("centre", centre, "C", {"C": (first.shape[1], "first")})
    with torch.autocast(first.device.type, enabled=False):
        tokens = at_least_float32(torch.cat([first, second]))
        rows = unit_rows(tokens if centre is None else tokens - centre.detach().to(tokens))
        kinds = torch.cat([anomalous, anomalous])
        count = len(rows) if anchors == "both" else len(first)
        if not 0 < int(anomalous.sum()) < len(anomalous):
            return reduce_loss((rows[:count] * 0).sum(1), reduction)
        similar = (rows[: len(first)] * rows[len(first) :]).sum(1) / temperature
        total = rows.new_zeros(count)
        for kind in (False, True):
            mine = (kinds[:count] == kind).nonzero()[:, 0]
            others = rows[kinds != kind] / temperature
            total = total.index_copy(0, mine, _log_sum_exp(rows[mine], others, block))
        return reduce_loss(total - torch.cat([similar, similar])[:count], reduction)


def norm_loss(
    features: Tensor,
    labels: Tensor,
    *,
    norm: str = "root",
    radius: float = 0.4,
    adaptive_radius: bool = False,
    margin: float = 0.75,
    inside: str = "lift",
    detach_weights: bool = True,
    averaging: str = "violators",
    reduction: str = "mean",
) -> Tensor:
    """Lower is better: e^d softplus(d), d how far the norm n of a token is on the wrong side of its radius.

    Normal tokens beyond r have d = n - r; anomalous ones within r + margin have d = r + margin - n; the
    others lose nothing, save by `inside`.

    features: (N, C) tokens. labels: (N,), 0 or False normal, 1 or True anomalous. norm: see `feature_norm`.
    radius: r. adaptive_radius: r is at most 0.9 times the smallest norm of an anomalous token, without
    gradient. inside: what becomes of normal tokens within r: "lift", those below 0.99 r get d = 0.99 r - n;
    "free", nothing; "contract", d = n - r there too (Eq. 3 as printed). detach_weights: no gradient through
    e^d. averaging: "violators", three means, each over the tokens that lose something by one of the three
    rules, are added; "tokens", one mean over all N. reduction: "mean" -> (), "none" -> (N,), whose mean is
    the loss. Raises ShapeError, UsageError, UnknownName.

    >>> import torch
    >>> norm_loss(torch.tensor([[0.0, 3.0]]), torch.tensor([0]))  # n = 1, so d = 0.6
    tensor(1.8904)
    """
    check_float("features", features, "N C", {})
    anomalous = _anomalous(labels, features)
    numbers(least=0, above=True, radius=radius, margin=margin)
    switches(adaptive_radius=adaptive_radius, detach_weights=detach_weights)
    _check_words(inside=(inside, INSIDE), averaging=(averaging, AVERAGING))
    n = feature_norm(features, norm=norm)
    if adaptive_radius and bool(anomalous.any()):
        radius = min(radius, SHARE_OF_SMALLEST * float(n.detach()[anomalous].min()))
    beyond, within = n - radius, radius + margin - n
    rules = [
        (beyond, ~anomalous & ((beyond > 0) | (inside == "contract"))),
        (within, anomalous & (within > 0)),
    ]
    if inside == "lift":
        rules.append((BAND * radius - n, ~anomalous & (n < BAND * radius)))
    losses = torch.zeros_like(n)
    for distance, rows in rules:
        d = torch.where(rows, distance, 0)  # before exp: what is not chosen must not overflow
        weight = d.detach().exp() if detach_weights else d.exp()
        share = len(n) / max(int(rows.sum()), 1) if averaging == "violators" else 1.0
        losses = losses + torch.where(rows, share * weight * functional.softplus(d), 0)
    return reduce_loss(losses, reduction)


def feature_norm(features: Tensor, *, norm: str = "root") -> Tensor:
    """n of each row of (..., C), float32 at least: "root" sqrt(|x| + 1) - 1 (the released code),
    "pseudo_huber" sqrt(|x|^2 + 1) - 1 (the paper). Raises UnknownName.

    >>> import torch
    >>> feature_norm(torch.tensor([[0.96, 0.0]]))
    tensor([0.4000])
    """
    _check_words(norm=(norm, NORMS))
    values = at_least_float32(features)
    inner = values.norm(dim=-1) if norm == "root" else values.square().sum(-1)
    return (inner + 1).sqrt() - 1


def _log_sum_exp(anchors: Tensor, others: Tensor, block: int) -> Tensor:
    """(A,) log sum_k exp(anchors . others_k), some anchors at a time; the products are computed again in the
    backward pass instead of being kept."""
    rows = max(block // len(others), 1)
    parts = [
        checkpoint(_of_block, part, others, use_reentrant=False, preserve_rng_state=False)
        for part in anchors.split(rows)
    ]
    return torch.cat(parts)


def _of_block(anchors: Tensor, others: Tensor) -> Tensor:
    return (anchors @ others.T).logsumexp(1)


def _anomalous(labels: Tensor, features: Tensor) -> Tensor:
    """(N,) bool. Raises ShapeError, and UsageError for labels other than 0 and 1."""
    if not isinstance(labels, Tensor) or labels.dtype.is_floating_point or labels.dtype.is_complex:
        found = getattr(labels, "dtype", type(labels).__name__)
        raise UsageError(f"labels is a tensor of bool or whole numbers, got {found}.")
    bind_shape("labels", tuple(labels.shape), "N", {"N": (len(features), "the features")})
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise UsageError(f"labels are 0 (normal) or 1 (anomalous), got {labels.unique().tolist()[:8]}.")
    return labels.to(features.device).bool()


def _check_words(**words: tuple[str, tuple[str, ...]]) -> None:
    for name, (value, known) in words.items():
        if value not in known:
            raise UnknownName(name, str(value), known)
