"""How far an engine's values are from the reference's: one error per element, by the measure the registry
names.

All measures are zero at agreement, free of the unit of y, and infinite where one side is infinite and the
other is not. NaN marks elements that neither side defines.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from parity.schema.policy import Policy
from parity.schema.quantities import Measure, Quantity, Unit
from parity.schema.results import Results, Value

DIGITS = 15.0  # a double carries no more


# Residuals that are divided by sqrt(1 - h).
STUDENTIZED = ("resid_conditional_studentized", "resid_marginal_studentized", "rstudent_lme4")
# What `scales` reads of a reference.
YARDSTICKS = (
    "y_response", "se_fixef", "ranef", "vcov_fixef", "hatvalues", "covtrace_marginal_group", "fitted",
    "resid_response", "resid_pearson", "sigma",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scales:
    """What the reference says about sizes: the yardsticks of the measures."""

    sd_y: float  # standard deviation of the response; 0 where the reference has none
    se: Mapping[str, float]  # standard error of each fixed effect
    modes: float  # largest random effect; 0 where the reference has none
    condition: float  # condition number of X'V^-1X with unit diagonal; 1 where not known
    location: float  # largest standardised mean sqrt(w) |fitted| / sigma: residuals lack that many digits
    escape: float  # 1 / (1 - h) of the row nearest to leverage one: what deleting it makes of rounding
    escape_level: float  # the same of the level that takes most information with it: COVTRACE + 1, or escape
    floor: float  # smallest scale, as a fraction of the natural one
    zero: float  # relative variance that counts as zero

    def condition_of(self, quantity: Quantity) -> float:
        """By how much rounding can grow in a quantity."""
        size = max(self.condition, self.location)
        if quantity.group != "influence" and quantity.name not in STUDENTIZED:
            return size
        return size * (self.escape_level if quantity.index == "level" else self.escape)

    def natural(self, unit: Unit) -> float:
        """The size of ordinary numbers of a unit."""
        return {"1": 1.0, "log": 1.0, "y": self.sd_y, "y^2": self.sd_y**2}[unit]


def scales(reference: Results, policy: Policy) -> Scales:
    """The yardsticks that a reference provides."""
    y = reference.values.get("y_response")
    se = reference.values.get("se_fixef")
    modes = reference.values.get("ranef")
    escape = _escape(reference.values.get("hatvalues"))
    return Scales(
        sd_y=float(np.std(y.values, ddof=1)) if y is not None and len(y.values) > 1 else 0.0,
        se=dict(zip(se.labels, se.values.tolist(), strict=True)) if se is not None else {},
        modes=0.0 if modes is None else float(np.nanmax(np.abs(modes.values), initial=0.0)),
        condition=_condition(reference.values.get("vcov_fixef")),
        location=_location(reference),
        escape=escape,
        escape_level=max(escape, _escape_level(reference.values.get("covtrace_marginal_group"))),
        floor=policy.scale.floor,
        zero=policy.singular.threshold,
    )


def errors(measure: Measure, got: np.ndarray, want: Value, unit: Unit, scale: Scales) -> np.ndarray:
    """(m,) error of each element of `got` (m,), which is aligned with `want`."""
    reference = want.values
    finite = np.isfinite(got) & np.isfinite(reference)
    with np.errstate(all="ignore"):
        result = _finite_errors(measure, got, want, unit, scale, finite)
        same = (got == reference) | (np.isnan(got) & np.isnan(reference))
    result = np.where(finite, result, np.where(same, 0.0, np.inf))
    return np.where(np.isnan(got) & np.isnan(reference), np.nan, result)


def digits(error: float) -> float:
    """Decimal digits of agreement: -log10(error), between 0 and 15."""
    if not error > 0:
        return DIGITS if error == 0 else 0.0
    return float(np.clip(-np.log10(error), 0.0, DIGITS))


def log_relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Smallest LRE of the elements, -log10(|x - c| / |c|), or -log10 |x| where c = 0; between 0 and 15."""
    used = np.isfinite(got) & np.isfinite(want)
    if not used.any():
        return 0.0
    x, c = got[used], want[used]
    with np.errstate(all="ignore"):
        error = np.where(c == 0, np.abs(x), np.abs(x - c) / np.abs(c))
    return digits(float(np.max(error)))


def _finite_errors(
    measure: Measure, got: np.ndarray, want: Value, unit: Unit, scale: Scales, finite: np.ndarray
) -> np.ndarray:
    c = want.values
    difference = np.abs(got - c)
    size = np.abs(c)
    match measure:
        case "exact" | "mixed":
            return difference / np.maximum(1.0, size)
        case "gap":
            return difference
        case "criterion":
            return difference / (1.0 + size)
        case "relative":
            return _divide(difference, size)
        case "standard_errors" if all(label in scale.se for label in want.labels):
            return _divide(difference, np.array([scale.se[label] for label in want.labels]))
        case "whitened" if finite.all():
            return _whitened(got, c, scale, unit)
        case "covariance" if finite.all():
            return _covariance(difference, want, scale)
        case "scaled_by_sd_y" if scale.sd_y > 0:
            return difference / scale.sd_y
        case "scaled_by_modes":
            return _scaled(difference, np.append(size[finite], scale.modes), scale, unit)
        case "root":
            return _of_roots(difference, np.abs(got) + size, size[finite], scale, unit)
    return _scaled(difference, size[finite], scale, unit)


def _scaled(difference: np.ndarray, size: np.ndarray, scale: Scales, unit: Unit) -> np.ndarray:
    return _divide(difference, np.full_like(difference, _largest(size, scale, unit)))


def _of_roots(
    difference: np.ndarray, together: np.ndarray, size: np.ndarray, scale: Scales, unit: Unit
) -> np.ndarray:
    """|x^2 - c^2| / (|x| + |c|), which is |x - c|, with a divisor that is no smaller than the floor."""
    largest = _largest(size, scale, unit)
    return difference * np.minimum(1.0, together / (scale.floor * largest)) / largest


def _largest(size: np.ndarray, scale: Scales, unit: Unit) -> float:
    return max(float(np.max(size, initial=0.0)), scale.floor * scale.natural(unit))


def _divide(difference: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.where(difference == 0, 0.0, difference / size)


def _whitened(got: np.ndarray, want: np.ndarray, scale: Scales, unit: Unit) -> np.ndarray:
    p = round(len(want) ** 0.5)
    if p * p != len(want):
        raise ValueError(f"a covariance of {len(want)} entries is not square")
    target = want.reshape(p, p)
    try:
        factor = np.linalg.cholesky((target + target.T) / 2)
    except np.linalg.LinAlgError:
        return _scaled(np.abs(got - want), np.abs(want), scale, unit)
    half = np.linalg.solve(factor, got.reshape(p, p) - target)
    return np.abs(np.linalg.solve(factor, half.T)).T.reshape(-1)


def _covariance(difference: np.ndarray, want: Value, scale: Scales) -> np.ndarray:
    sizes = dict(zip(want.labels, want.values.tolist(), strict=True))
    residual = sizes.get("Residual", 1.0)
    scale_of = {
        label: size if size > scale.zero * residual else scale.zero**0.5 * residual
        for label, size in sizes.items()
    }
    return _divide(difference, np.array([_standard(label, scale_of) for label in want.labels]))


def _standard(label: str, sizes: Mapping[str, float]) -> float:
    """sqrt(c_ii c_jj) of the entry `group|i|j`; names may themselves contain the separator."""
    if label == "Residual":
        return sizes[label]
    parts = label.split("|")
    for first in range(1, len(parts) - 1):
        for second in range(first + 1, len(parts)):
            group, i, j = ("|".join(p) for p in (parts[:first], parts[first:second], parts[second:]))
            row, column = sizes.get(f"{group}|{i}|{i}"), sizes.get(f"{group}|{j}|{j}")
            if row is not None and column is not None:
                return (row * column) ** 0.5
    raise ValueError(f"the covariance entry {label!r} has no variances to be measured with")


def _location(reference: Results) -> float:
    """sqrt(w) is read off the residuals."""
    names = ("fitted", "resid_response", "resid_pearson", "sigma")
    if any(name not in reference.values for name in names):
        return 1.0
    fitted, response, pearson, sigma = (reference.values[name].values for name in names)
    if not len(fitted) == len(response) == len(pearson):
        return 1.0
    with np.errstate(all="ignore"):
        sizes = np.abs(fitted * pearson / response / sigma)
    return float(np.max(sizes[np.isfinite(sizes)], initial=1.0))


def _escape(hat: Value | None) -> float:
    if hat is None:
        return 1.0
    left = 1.0 - hat.values[np.isfinite(hat.values)]
    return float(1.0 / np.min(left[left > 0], initial=1.0))


def _escape_level(covtrace: Value | None) -> float:
    """COVTRACE sums 1 / (1 - b) - 1 over the eigenvalues b of the part of the information that a level takes."""
    if covtrace is None:
        return 1.0
    return 1.0 + float(np.max(covtrace.values[np.isfinite(covtrace.values)], initial=0.0))


def _condition(vcov: Value | None) -> float:
    if vcov is None or not np.isfinite(vcov.values).all() or not len(vcov.values):
        return 1.0
    p = round(len(vcov.values) ** 0.5)
    if p * p != len(vcov.values):
        return 1.0
    matrix = vcov.values.reshape(p, p)
    root = np.sqrt(np.abs(np.diag(matrix)))
    if not (root > 0).all():
        return 1.0
    eigenvalues = np.linalg.eigvalsh(matrix / np.outer(root, root))
    return float(eigenvalues[-1] / eigenvalues[0]) if eigenvalues[0] > 0 else np.inf
