"""The studentized range: upper tail and quantile, accurate also far out.

With k independent normals, Z their largest and w = q s, s^2 a mean square on nu degrees of freedom,

    P(range > w) = k int phi(z) [Phi(z)^(k-1) - (Phi(z) - Phi(z - w))^(k-1)] dz,

whose bracket is Phi(z)^(k-1) (1 - (1 - b)^(k-1)), b = Phi(z - w) / Phi(z): no difference of nearly equal numbers.
Both integrals are over entire functions that die out at both ends, for which the trapezoidal rule is exact to rounding.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, log_ndtr

__all__ = ["range_quantile", "range_sf"]

STEP, REACH = 0.25, 9.5  # of the rule over z, about w / 2
SCAN, FINE = 200, 160  # points over log s: to find where the integrand lives, and to sum it
WIDEST = 0.14  # step over log s at which the rule errs by exp(-pi^2 / (2 step)), 1e-15
LOST = -40.0  # log of the part of an integrand that is left out
SMALL = -38.0  # log b at which (1 - b)^(k - 1) is 1 - (k - 1) b to the last digit
LARGE_DF = 1e8  # degrees of freedom that are infinite


def range_sf(q: float, k: int, df: float) -> float:
    """P(Q > q) of the studentized range of k means on ``df`` degrees of freedom; R's ptukey(lower.tail = FALSE)."""
    if np.isnan(q) or np.isnan(df):
        return np.nan
    if q <= 0:
        return 1.0
    if df >= LARGE_DF:
        return float(np.exp(_log_normal_tail(np.array([q]), k)[0]))
    ends = _interval(np.linspace(*_log_s_limits(df), SCAN), q, k, df)
    u, h = np.linspace(*ends, max(FINE, int((ends[1] - ends[0]) / WIDEST)), retstep=True)
    return float(min(np.exp(_log_integrand(u, q, k, df)).sum() * h, 1.0))


def range_quantile(p: float, k: int, df: float) -> float:
    """q with P(Q > q) = p; R's qtukey(1 - p)."""
    if not df > 0:
        return np.nan
    high = 10.0
    while range_sf(high, k, df) > p:
        high *= 4.0
    return float(brentq(lambda q: range_sf(q, k, df) - p, 1e-8, high, xtol=1e-13, rtol=1e-13))


def _log_s_limits(df: float) -> tuple[float, float]:
    """Values of log s between which its density is above 1e-300 of the largest."""
    wide = 690.0 / df + 40.0 / np.sqrt(df)
    return -min(wide, 690.0 / df + 3.0), min(40.0 / np.sqrt(df), 4.0)


def _interval(u: np.ndarray, q: float, k: int, df: float) -> tuple[float, float]:
    """The part of a scan outside which the integrand is negligible."""
    for _ in range(3):
        f = _log_integrand(u, q, k, df)
        kept = np.flatnonzero(f > f.max() + LOST)
        u = np.linspace(u[max(kept[0] - 1, 0)], u[min(kept[-1] + 1, len(u) - 1)], SCAN)
    return float(u[0]), float(u[-1])


def _log_integrand(u: np.ndarray, q: float, k: int, df: float) -> np.ndarray:
    """log of the density of log s times the tail at q s."""
    half = df / 2.0
    density = np.log(2.0) + half * np.log(half) - gammaln(half) + df * u - half * np.exp(2.0 * u)
    return density + _log_normal_tail(q * np.exp(u), k)


def _log_normal_tail(w: np.ndarray, k: int) -> np.ndarray:
    """log P(range of k normals > w), (m,)."""
    around = np.arange(-REACH, REACH + STEP / 2, STEP)
    z = w[:, None] / 2.0 + around
    log_Phi = log_ndtr(z)
    log_b = np.minimum(log_ndtr(z - w[:, None]) - log_Phi, -1e-300)
    with np.errstate(divide="ignore"):
        log_share = np.log(-np.expm1((k - 1) * np.log1p(-np.exp(log_b))))
    log_share = np.where(log_b < SMALL, np.log(k - 1) + log_b, log_share)
    log_f = -0.5 * z**2 + (k - 1) * log_Phi + log_share
    top = log_f.max(axis=1)
    total = top + np.log(np.exp(log_f - top[:, None]).sum(axis=1))
    return np.minimum(total + np.log(k * STEP) - 0.5 * np.log(2.0 * np.pi), 0.0)
