"""Relative covariance of the random effects: parameters -> Sigma, with the derivatives a Newton step needs.

A *structure* describes one random-effects term with k effects. Its parameters ``par`` are what the optimizer
moves; ``theta`` are the entries of the lower Cholesky factor Lambda that lme4 reports. For ``us`` and
``diag`` the two are the same (Bates et al. 2015, eq. 4: Sigma = Lambda Lambda'); for ``cs`` and ``ar1`` the
parameters are standard deviations relative to sigma and a correlation.

The products of a model may stand in other coordinates than its effects: columns Z C of a *frame* C, with
effects b = C b~. ``sigma``, ``jacobian`` and ``curvature`` are those of b~; ``Lambda`` and ``theta`` are of
b.

A *chart* P (k, k) lets ``us`` and ``diag`` parametrise Cov(b~) = P L L' P'. The model is the same for every
P; a good one makes the effects comparable in size and puts those that vanish last, where a triangular factor
can let them go in a straight line. The *standard* parameters, those of theta, have P = C^-1.

Terms on the same grouping factor are one *block*: their Sigma is block diagonal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np

from .compound import Compound
from .diagonal import Diagonal
from .structure import START, WIDE, Structure
from .triangle import lower_factor
from .unstructured import LARGE, NEARLY_SINGULAR, Unstructured

__all__ = ["BlockCovariance", "structure_for"]

WIDE_ALONE = 6.0  # of a single parameter, where weights over decades put optima far apart
SCATTERED = 8  # such starts; fewer of two parameters
FILLED = 0.3  # of the largest standard deviation: where those that are zero start once more
FILLED_AT = (1.0, 4.0)  # with the parameters multiplied by this


def structure_for(kind: str, k: int, homogeneous: bool) -> Structure:
    """The structure a term asks for; with one effect all of them are a single standard deviation."""
    if k == 1 or kind == "us":
        return Unstructured(k)
    if kind == "diag":
        return Diagonal(k, homogeneous)
    return Compound(k, kind, homogeneous)


class BlockCovariance:
    """The structures of all blocks of a model; ``par`` is ordered term by term as in lme4's theta."""

    def __init__(self, blocks: Sequence[Sequence[int]], structures: Sequence[Structure]) -> None:
        """``blocks[b]`` lists the terms of block b; ``structures[t]`` belongs to term t."""
        self.structures = tuple(structures)
        ends = list(accumulate(s.n_par for s in structures))
        self._par = [slice(e - s.n_par, e) for s, e in zip(structures, ends, strict=True)]
        self.n_par = ends[-1] if ends else 0
        self.n_theta = sum(s.n_theta for s in structures)
        self.blocks = tuple(tuple(b) for b in blocks)
        sizes = [[structures[t].k for t in b] for b in self.blocks]
        self.rows = [[slice(sum(s[:i]), sum(s[: i + 1])) for i in range(len(s))] for s in sizes]
        self.K = tuple(sum(s) for s in sizes)
        # position in par of every parameter of a block, in the order of the block's own derivative array
        index = [[i for t in b for i in range(self._par[t].start, self._par[t].stop)] for b in self.blocks]
        self.index = tuple(np.array(i, dtype=np.intp) for i in index)
        order = [i for block in index for i in block]
        self._inverse_order = None if order == list(range(len(order))) else np.argsort(order)

    def _each(self, method: str, par: np.ndarray) -> list[np.ndarray]:
        return [getattr(s, method)(par[at]) for s, at in zip(self.structures, self._par, strict=True)]

    def start(self, relative: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """Parameters to start from; ``relative[b]`` (K_b, K_b) is a positive definite covariance in the chart."""
        if relative is None:
            return _joined([s.start() for s in self.structures])
        out = [np.zeros(0)] * len(self.structures)
        for b, terms in enumerate(self.blocks):
            for t, rows in zip(terms, self.rows[b], strict=True):
                out[t] = self.structures[t].start(relative[b][rows, rows])
        return _joined(out)

    def charted(self, charts: Sequence[np.ndarray] | None = None) -> BlockCovariance:
        """The same structures in charts, one (K, K) block-diagonal matrix per block; None: the identity."""
        out = list(self.structures)
        for b, terms in enumerate(self.blocks):
            for t, rows in zip(terms, self.rows[b], strict=True):
                out[t] = out[t].charted(None if charts is None else charts[b][rows, rows])
        return BlockCovariance(self.blocks, out)

    def separated(self, together: Sequence[np.ndarray]) -> BlockCovariance:
        """The structures for a search; ``together[b]`` (K, K): which effects of a block levels link."""
        if all(linked.all() for linked in together):
            return self
        out = list(self.structures)
        for b, terms in enumerate(self.blocks):
            for t, rows in zip(terms, self.rows[b], strict=True):
                out[t] = out[t].separated(together[b][rows, rows])
        return BlockCovariance(self.blocks, out)

    def rechart(self, par: np.ndarray) -> tuple[BlockCovariance, np.ndarray] | None:
        """Better charts and the parameters in them, or None."""
        found = self._each("rechart", par)
        if not any(found):
            return None
        pairs = [f or (s, p) for f, s, p in zip(found, self.structures, self.split(par), strict=True)]
        return BlockCovariance(self.blocks, [s for s, _ in pairs]), _joined([p for _, p in pairs])

    def alternatives(self, par: np.ndarray) -> list[np.ndarray]:
        """Other starts: all effects large if one is nearly absent, then one term changed at a time."""
        scales = np.abs(par[self.scale_index()])
        nearly = len(scales) > 1 and scales.min() < NEARLY_SINGULAR * max(scales.max(), START)
        out = [self.start([LARGE**2 * np.eye(K) for K in self.K])] if nearly else []
        for structure, at in zip(self.structures, self._par, strict=True):
            for piece in structure.alternatives(par[at]):
                out.append(par.copy())
                out[-1][at] = piece
        return out

    def scattered(self) -> list[np.ndarray]:
        """A few starts spread over all parameters evenly: multiples of 1/g, 1/g^2 ... without their whole parts, where
        g^(n + 1) = g + 1 (for one parameter the golden ratio)."""
        n, g = sum(s.n_par for s in self.structures), 2.0
        for _ in range(50):
            g = (1.0 + g) ** (1.0 / (n + 1))
        steps = g ** -np.arange(1.0, n + 1)
        count, wide = (SCATTERED, WIDE_ALONE) if n == 1 else (min(SCATTERED, 2 + 2 * n), WIDE)
        points = [(0.5 + k * steps) % 1.0 for k in range(1, count + 1)]
        return [
            _joined([s.scattered(u[at], wide) for s, at in zip(self.structures, self._par, strict=True)])
            for u in points
        ]

    def vanished(self, par: np.ndarray) -> list[np.ndarray]:
        """``par`` with one term gone at a time."""
        pieces = self.split(par)
        gone = [s.vanished(piece) for s, piece in zip(self.structures, pieces, strict=True)]
        return [_joined([*pieces[:t], gone[t], *pieces[t + 1 :]]) for t in range(len(pieces))]

    def filled(self, par: np.ndarray) -> list[np.ndarray]:
        """Starts off the scales that are zero, and farther off; a Sigma of full rank may fit better there.

        Straight up from zero the criterion rises: the other scales have to grow with them.
        """
        index = self.scale_index()
        zero = index[par[index] == 0.0]
        if not 0 < len(zero) < len(index):
            return []
        out = []
        for by in FILLED_AT:
            out.append(by * par)
            out[-1][zero] = FILLED * np.abs(out[-1][index]).max()
        return out

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(n_par,) lower and upper limits, None if nothing is limited."""
        if all(s.bounds is None for s in self.structures):
            return None
        free = [s.bounds or (np.full(s.n_par, -np.inf), np.full(s.n_par, np.inf)) for s in self.structures]
        return _joined([lo for lo, _ in free]), _joined([hi for _, hi in free])

    def split(self, par: np.ndarray) -> list[np.ndarray]:
        """``par`` cut into one piece per term."""
        return [par[s] for s in self._par]

    def sigma(self, par: np.ndarray) -> list[np.ndarray]:
        """(K, K) relative covariance of b~ per block."""
        return self._block_diagonal(par, lambda structure, piece: structure.sigma(piece))

    def roots(self, par: np.ndarray) -> list[np.ndarray]:
        """(K, K) lower L per block with L L' = ``sigma``, where possible not by way of it.

        Triangular, because with large effects that are nearly alike I + L'Z'ZL is well scaled then, and only then.
        """
        return self._block_diagonal(
            par, lambda s, piece: s.root(piece) if s.lower_root else lower_factor(s.root(piece))
        )

    def _block_diagonal(
        self, par: np.ndarray, of: Callable[[Structure, np.ndarray], np.ndarray]
    ) -> list[np.ndarray]:
        out = []
        for b, terms in enumerate(self.blocks):
            if len(terms) == 1:
                out.append(of(self.structures[terms[0]], par[self._par[terms[0]]]))
                continue
            matrix = np.zeros((self.K[b], self.K[b]))
            for t, rows in zip(terms, self.rows[b], strict=True):
                matrix[rows, rows] = of(self.structures[t], par[self._par[t]])
            out.append(matrix)
        return out

    def jacobian(self, par: np.ndarray) -> list[np.ndarray]:
        """(n_par_b, K, K) per block, parameters in the order of ``index[b]``."""
        out = []
        for b, terms in enumerate(self.blocks):
            if len(terms) == 1:
                out.append(self.structures[terms[0]].jacobian(par[self._par[terms[0]]]))
                continue
            E = np.zeros((len(self.index[b]), self.K[b], self.K[b]))
            at = 0
            for t, rows in zip(terms, self.rows[b], strict=True):
                part = self.structures[t].jacobian(par[self._par[t]])
                E[at : at + len(part), rows, rows] = part
                at += len(part)
            out.append(E)
        return out

    def in_par_order(self, values: np.ndarray) -> np.ndarray:
        """A vector or square matrix from the order of the blocks to the order of ``par``."""
        o = self._inverse_order
        if o is None:
            return values
        return values[o] if values.ndim == 1 else values[np.ix_(o, o)]

    def curvature(self, par: np.ndarray, G: Sequence[np.ndarray]) -> np.ndarray:
        """(n_par, n_par) block diagonal: <G_b, d2Sigma_b>."""
        H = np.zeros((self.n_par, self.n_par))
        for b, terms in enumerate(self.blocks):
            for t, rows in zip(terms, self.rows[b], strict=True):
                s = self._par[t]
                H[s, s] = self.structures[t].curvature(par[s], G[b][rows, rows])
        return H

    def canonical(self, par: np.ndarray) -> np.ndarray:
        """The representative with non-negative scales."""
        return _joined(self._each("canonical", par))

    def is_unique(self, par: np.ndarray) -> bool:
        """Whether no other canonical parameters nearby have the same Sigma."""
        return all(self._each("is_unique", par))

    def to_standard(self, par: np.ndarray) -> np.ndarray:
        """Canonical parameters without charts."""
        return _joined(self._each("to_standard", par))

    def from_standard(self, par: np.ndarray) -> np.ndarray:
        """Parameters in the charts of those without."""
        return _joined(self._each("from_standard", par))

    def scale_index(self) -> np.ndarray:
        """Positions in ``par`` whose zero makes the model singular."""
        return _joined(
            [s.start + t.scale_index for s, t in zip(self._par, self.structures, strict=True)], np.intp
        )

    @property
    def frames(self) -> list[np.ndarray]:
        """(K, K) frame C per block, b = C b~, block diagonal by term."""
        out = []
        for b, terms in enumerate(self.blocks):
            C = np.eye(self.K[b])
            for t, rows in zip(terms, self.rows[b], strict=True):
                if self.structures[t].frame is not None:
                    C[rows, rows] = self.structures[t].frame
            out.append(C)
        return out

    def Lambda(self, par: np.ndarray) -> tuple[np.ndarray, ...]:
        """(k, k) lower factor per term."""
        return tuple(self._each("Lambda", par))

    def theta(self, par: np.ndarray) -> np.ndarray:
        """(n_theta,) Cholesky entries in lme4's order."""
        return _joined(self._each("theta", par))

    def from_theta(self, theta: np.ndarray) -> np.ndarray:
        """Parameters from lme4's theta, term by term."""
        ends = np.cumsum([s.n_theta for s in self.structures])[:-1]
        pieces = np.split(np.asarray(theta, float), ends)[: len(self.structures)]
        return _joined([s.from_theta(piece) for s, piece in zip(self.structures, pieces, strict=True)])


def _joined(pieces: Sequence[np.ndarray], dtype: type = float) -> np.ndarray:
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=dtype)
