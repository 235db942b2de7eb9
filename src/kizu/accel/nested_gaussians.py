"""The fast twin of PaDiM's Gaussians (reference: detectors/padim.py): what positions share is done once.

With the channels of the coarsest level first, f = (f3, f2, f1), and S + eps 1 = L L^T, the rows of W = L^-1
that belong to level 3 depend on the features f3 alone, and those of level 2 on f3 and f2. Therefore

    |W (f - mu)|^2 = d^2(f3) + d^2(f2 | f3) + d^2(f1 | f3, f2),

and positions that share a cell of level 3 share the first term, those that share a cell of level 2 too also
the second. Sums of products, rows of W and terms are computed once per group of positions (nesting.py). The
result is the same distance, and the model is less than half as large.

There are two forms, by the number of images n and of channels D:
    full       4 n > D   the rows of W, one stage after the other.
    low rank   4 n <= D  Woodbury's identity: with X (n, D) the centred rows of a position, C C^T = X X^T +
                         eps (n - 1) 1 and V = C^-1 X, the distance is sqrt((|f - mu|^2 - |V (f - mu)|^2) /
                         eps). It needs n D numbers per position instead of D^2, and no factor of a D x D
                         matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kizu import store
from kizu.accel.block_whitening import pack_rows, unpack_rows, whiten
from kizu.accel.nested_moments import NestedMoments, join_cells
from kizu.accel.nesting import Nesting, cells_of_stages, features_of_groups, nesting, nesting_of
from kizu.errors import EmptyData
from kizu.types import FeatureMaps, Grids


class NestedGaussians:
    """One Gaussian per position; same use and same distances as detectors.padim.PositionGaussians.

    eps: added to the diagonal of each covariance. Learned:
        nested_mean       (M,) float16     mean of every cell and chosen channel, stage by stage
        nested_whitening  (K,) float16     full form: rows of W of every group, stage by stage, without zeros
        nested_rows       (n, M) float32   low-rank form: the cells of each image minus their mean
    """

    def __init__(self, eps: float) -> None:
        self.eps = eps
        self.moments: NestedMoments | None = None
        self.learned: dict[str, Tensor] = {}

    @torch.inference_mode(False)
    def update(self, features: FeatureMaps) -> None:
        """Add the chosen channels [(B, d_l, h_l, w_l)] of B images, float32; all images of one size."""
        if self.moments is None:
            self.nest = nesting_of(features, torch.device("cpu"))
            self.moments = NestedMoments(nesting_of(features))
            self.dtype = torch.float64 if needs_float64(features, self.eps) else torch.float32
        cells = cells_of_stages(features, self.moments.nest)
        self.moments.update([one.to(self.dtype) for one in cells])

    @torch.inference_mode(False)
    def finalize(self) -> None:
        """Turn the sums into the learned tensors, on the CPU. Raises EmptyData without any image."""
        if self.moments is None:
            raise EmptyData("There is no image to learn from.")
        self.learned = {name: tensor.cpu() for name, tensor in self.moments.finalize(self.eps).items()}
        self.moments = None

    def tensors(self) -> dict[str, Tensor]:
        """What was learned, as a model file holds it."""
        return self.learned

    def restore(self, tensors: dict[str, Tensor], grids: Grids, widths: Sequence[int]) -> None:
        """Use what `tensors` of this class or of the reference gave. Raises ModelFileError if it does not fit
        together.

        grids, widths: (h, w) and number of chosen channels of each level."""
        self.nest = _nesting_of_file(tensors, grids, widths)
        self.learned = _checked(tensors, self.nest)

    def distance(self) -> NestedDistance:
        """The module that measures distances."""
        return NestedDistance(self.learned, self.nest, self.eps)


def needs_float64(features: FeatureMaps, eps: float) -> bool:
    """Whether the rounding of float32 could outweigh eps in a covariance, so that it has no Cholesky factor.

    Sums of products of features with squared norm t are off by some t 2^-24."""
    norm = sum(float(level.double().square().sum(1).flatten(1).amax(1).mean()) for level in features)
    return norm * 2.0**-22 > eps


class NestedDistance(nn.Module):
    """Chosen channels [(B, d_l, h_l, w_l)] -> Mahalanobis distances (B, h, w) on the finest grid.

    tensors: learned by NestedGaussians; in memory W is float32 and transposed, with its zeros.
    """

    def __init__(self, tensors: dict[str, Tensor], nest: Nesting, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.is_low_rank = "nested_rows" in tensors
        means = _split_cells(tensors["nested_mean"][None].float(), nest)
        if self.is_low_rank:
            rows = features_of_groups(
                _split_cells(tensors["nested_rows"].float(), nest), nest.stages[-1], slice(None)
            )
            factors = [_low_rank_factor(rows, eps).mT]
        else:
            factors = _unpack(tensors["nested_whitening"], nest)
        for name, values in (("mean", means), ("factor", factors)):
            for number, value in enumerate(values):
                self.register_buffer(f"{name}_{number}", value)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Distances (B, h, w) of B images whose levels have the grids that the model was fitted on."""
        nest = nesting_of(features)
        cells = cells_of_stages(features, nest)
        differences = [one - self.get_buffer(f"mean_{number}") for number, one in enumerate(cells)]
        squared = self._low_rank(differences, nest) if self.is_low_rank else self._full(differences, nest)
        return squared.sqrt_()[nest.group_of_position].T.unflatten(1, nest.finest)

    def _full(self, differences: list[Tensor], nest: Nesting) -> Tensor:
        """Squared distances (G, B) of the last stage's groups: each stage adds its term to that of its
        parents."""
        total = differences[0].new_zeros(1, 1)
        for number, stage in enumerate(nest.stages):
            difference = features_of_groups(differences, stage, slice(None))  # (G, B, D_s)
            term = torch.bmm(difference, self.get_buffer(f"factor_{number}")).square_().sum(2)
            total = term.add_(total[stage.ancestors[-1]]) if stage.ancestors else term
        return total

    def _low_rank(self, differences: list[Tensor], nest: Nesting) -> Tensor:
        """The same by Woodbury's identity."""
        difference = features_of_groups(differences, nest.stages[-1], slice(None))  # (G, B, D)
        explained = torch.bmm(difference, self.get_buffer("factor_0")).square_().sum(2)
        return (difference.square().sum(2) - explained).clamp_min_(0).div_(self.eps)


def _split_cells(flat: Tensor, nest: Nesting) -> list[Tensor]:
    """(n, M), as `join_cells` gives it -> values (C, n, d) of the cells of each stage."""
    parts = flat.split([stage.cell_count * stage.width for stage in nest.stages], dim=1)
    return [
        part.unflatten(1, (stage.cell_count, stage.width)).transpose(0, 1)
        for part, stage in zip(parts, nest.stages, strict=True)
    ]


def _unpack(whitening: Tensor, nest: Nesting) -> list[Tensor]:
    """Packed (K,) -> for each stage the transposed rows of W, (G, D_s, d)."""
    return [
        unpack_rows(part.view(stage.group_count, -1), entries, (stage.width, after))
        for part, stage, entries, after in zip(
            whitening.split(_packed_sizes(nest)),
            nest.stages,
            nest.packed_entries,
            nest.widths[1:],
            strict=True,
        )
    ]


def _low_rank_factor(rows: Tensor, eps: float) -> Tensor:
    """V (G, n, D) of centred rows X (G, n, D): V = C^-1 X with C C^T = X X^T + eps (n - 1) 1."""
    dtype = torch.float64 if needs_float64([rows.transpose(1, 2)], eps) else torch.float32
    wide = rows.to(dtype)
    gram = torch.bmm(wide, wide.mT)
    gram.diagonal(dim1=1, dim2=2).add_(eps * max(rows.shape[1] - 1, 1))
    return torch.linalg.solve_triangular(torch.linalg.cholesky(gram), wide, upper=False).float()


def _nesting_of_file(tensors: dict[str, Tensor], grids: Grids, widths: Sequence[int]) -> Nesting:
    """The nesting, once there are as many means as its cells take: a small file asks for no large tables.
    Raises ModelFileError."""
    if "mean" in tensors:
        positions = max(height * width for height, width in grids)
        store.expect("PaDiM", tensors, {"mean": f"{positions} {sum(widths)}"})
    else:
        cells = sum(height * width * chosen for (height, width), chosen in zip(grids, widths, strict=True))
        store.expect("PaDiM", tensors, {"nested_mean": f"{cells}"})
    return nesting(grids, tuple(widths), torch.device("cpu"))


def _checked(tensors: dict[str, Tensor], nest: Nesting) -> dict[str, Tensor]:
    """The learned tensors of either class as NestedGaussians has them. Raises ModelFileError if they do not
    fit."""
    D, P = nest.widths[-1], len(nest.group_of_position)
    M = sum(stage.cell_count * stage.width for stage in nest.stages)
    if "mean" in tensors:
        store.expect("PaDiM", tensors, {"mean": f"{P} {D}", "whitening": f"{P} {D * (D + 1) // 2}"})
        return _nest_reference(tensors["mean"], tensors["whitening"], nest)
    if "nested_rows" in tensors:
        shapes = {"nested_mean": f"{M}", "nested_rows": f"n {M}"}
    else:
        shapes = {"nested_mean": f"{M}", "nested_whitening": f"{sum(_packed_sizes(nest))}"}
    store.expect("PaDiM", tensors, shapes)
    return {name: tensors[name] for name in shapes}


def _nest_reference(mean: Tensor, whitening: Tensor, nest: Nesting) -> dict[str, Tensor]:
    """The reference's mean (P, D) and whitening (P, D (D + 1) / 2) -> those of NestedGaussians.

    The positions of a group have the same rows of W; those of one of them are kept."""
    P, D = mean.shape
    row, column = torch.tril_indices(D, D)
    means, packed = [], []
    for number, (stage, entries) in enumerate(zip(nest.stages, nest.packed_entries, strict=True)):
        before, after = nest.widths[number : number + 2]
        of_cell, of_group = torch.zeros(stage.cell_count).long(), torch.zeros(stage.group_count).long()
        of_cell[nest.cells_of_positions(number)] = of_group[nest.groups_of_positions(number)] = torch.arange(
            P
        )
        means.append(mean[of_cell, None, before:after])
        mine = (row >= before) & (row < after)
        rows = whitening.new_zeros(stage.group_count, after - before, after)
        rows[:, row[mine] - before, column[mine]] = whitening[of_group][:, mine]
        packed.append(pack_rows(rows, entries).flatten())
    return {"nested_mean": join_cells(means)[0], "nested_whitening": torch.cat(packed)}


def expand(tensors: dict[str, Tensor], eps: float, grids: Grids, widths: Sequence[int]) -> dict[str, Tensor]:
    """The learned tensors of NestedGaussians as the reference has them: mean (P, D), whitening (P, D (D + 1)
    / 2).

    Raises ModelFileError if they do not fit together."""
    nest = _nesting_of_file(tensors, grids, widths)
    tensors = _checked(tensors, nest)
    means = _split_cells(tensors["nested_mean"][None], nest)
    mean = torch.cat([one[nest.cells_of_positions(s), 0] for s, one in enumerate(means)], dim=1)
    P, D = mean.shape
    if "nested_rows" in tensors:
        rows = features_of_groups(
            _split_cells(tensors["nested_rows"].double(), nest), nest.stages[-1], slice(None)
        )
        covariance = rows.mT @ rows / max(rows.shape[1] - 1, 1)
        covariance.diagonal(dim1=1, dim2=2).add_(eps)
        whiten(covariance)
        W = covariance[nest.group_of_position].half()
    else:
        W = torch.zeros(P, D, D, dtype=torch.float16)
        for number, factor in enumerate(_unpack(tensors["nested_whitening"], nest)):
            before, after = nest.widths[number : number + 2]
            W[:, before:after, :after] = factor.mT[nest.groups_of_positions(number)].half()
    row, column = torch.tril_indices(D, D)
    return {"mean": mean, "whitening": W[:, row, column]}


def _packed_sizes(nest: Nesting) -> list[int]:
    """How many numbers of nested_whitening belong to each stage."""
    return [stage.group_count * len(e) for stage, e in zip(nest.stages, nest.packed_entries, strict=True)]
