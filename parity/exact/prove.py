"""From a design to a proved fit: starts in double precision, the best of them, Newton and proof."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from flint import arb

from mmcore.design.build import Design
from mmcore.errors import FitError
from mmcore.lmm.fit import fit_design
from mmcore.results.fit import Fit
from parity.exact.balls import Ball, NotEnclosed, precision
from parity.exact.lmm import Chart, Point, Products, charts_at, full_charts, parameters
from parity.exact.newton import Proof, complementarity, proved_minimum

SCALES = (1.0, 0.3, 2.5, 6.0)  # of the starting value, where more than one covariance parameter is sought
RANKS = (1e-6, 1e-12)  # relative variances that count as zero, tried in turn; then all count
BITS = (320, 640, 1280)


@dataclass(frozen=True)
class ProvedFit:
    """A local minimum of the criterion, proved, and the best that the starts in double precision led to."""

    at: Point  # enclosures at the minimum
    proof: Proof
    slopes: tuple[Ball | None, ...]  # per term: least slope into the interior; None inside
    bits: int
    starts: tuple[float, ...]  # criteria that the starts led to

    @property
    def singular(self) -> bool:
        """Some term has less than full rank."""
        return any(chart.rank < chart.effects for chart in self.at.charts)


def prove(
    design: Design, *, reml: bool, digits: int, most_bits: int = BITS[-1], evidence: bool = True
) -> ProvedFit:
    """The proved fit of a design, enclosed to at least `digits` digits.

    `most_bits` bounds the work on models that cannot be proved; `evidence` is that of `proved_minimum`.

    Raises
    ------
    NotEnclosed
        if no choice of ranks and precision leads to a proof; the message is that of the last attempt.
    NotCertifiable
        for covariance structures other than unstructured.
    """
    data = Products(design, reml)
    fits = list(_fits(design, reml))
    best = min(fits, key=lambda fit: fit.criterion)
    starts = tuple(fit.criterion for fit in fits)
    trouble = "nothing was tried"
    for bits in (b for b in BITS if b <= most_bits):
        for charts in _choices(design, best):
            with precision(bits):
                try:
                    at, proof, slopes = _attempt(data, charts, best.Lambda, digits, evidence)
                except NotEnclosed as error:
                    trouble = str(error)
                    continue
                if _accurate(at, digits):
                    return ProvedFit(at, proof, slopes, bits, starts)
                trouble = f"{bits} bits leave less than {digits} digits"
    raise NotEnclosed(trouble)


def _fits(design: Design, reml: bool) -> Iterator[Fit]:
    """Optima in double precision from several starts; the first is the default one."""
    default = fit_design(design, reml=reml)
    yield default
    start = np.asarray(default.criterion_fn.covariance.theta(default.criterion_fn.covariance.start()))
    for scale in SCALES[1:]:
        try:
            yield fit_design(design, reml=reml, start=scale * start)
        except FitError:
            continue


def _choices(design: Design, fit: Fit) -> Iterator[tuple[Chart, ...]]:
    seen: list[tuple[Chart, ...]] = []
    for tolerance in RANKS:
        charts = charts_at(design, fit.Lambda, tolerance)
        if charts not in seen:
            seen.append(charts)
            yield charts
    if full_charts(design) not in seen:
        yield full_charts(design)


def _attempt(
    data: Products, charts: tuple[Chart, ...], Lambda: tuple[np.ndarray, ...], digits: int, evidence: bool
) -> tuple[Point, Proof, tuple[Ball | None, ...]]:
    start = parameters(charts, Lambda)
    proof = proved_minimum(lambda par: Point(data, charts, tuple(par)), start, digits + 15, evidence=evidence)
    at = Point(data, charts, proof.par)
    slopes = tuple(
        complementarity(score, B, chart.order)
        for score, B, chart in zip(at.score, at.factors, charts, strict=True)
    )
    return at, proof, slopes


def _accurate(at: Point, digits: int) -> bool:
    """Whether criterion and fixed effects carry the digits; the measures are looked at when written."""
    bound = arb(10) ** -digits
    values = [at.criterion, at.sigma2, *at.beta.entries()]
    return all(x.rad() <= bound * abs(x.mid()) or x.rad() <= bound for x in values)
