"""Bootstrap of any fit: parametric, of residuals or of clusters; percentile, basic and BCa intervals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from ...errors import DataError, FitError, MixedModelWarning, UnsupportedError
from ...glmm.fit import is_generalized
from ...glmm.residual import require_residual
from ...results.fit import Fit
from ...results.progress import Progress, spread
from ..intervals.level import tails
from ..intervals.parameters import parameters, require_fit, values
from .replicate import BLOCK, Block, Plan, Replicates, run, statistic_of, without_cluster
from .resample import cluster_codes

__all__ = ["Bootstrap", "bootstrap"]

TYPES = ("parametric", "residual", "cluster")
INTERVALS = ("percentile", "basic", "bca")
TOGETHER = 8  # blocks fitted in one go where there is no executor


@dataclass(frozen=True)
class Bootstrap:
    """Replicates of the parameters of a fit (or of a statistic)."""

    replicates: pd.DataFrame  # (nsim, k) a row per replicate, NaN for those that failed
    estimate: pd.Series  # (k,) of the fit itself
    converged: np.ndarray  # (nsim,) bool
    singular: np.ndarray  # (nsim,) bool: on the boundary; these count
    failures: pd.Series  # message by replicate, of those that could not be fitted
    plan: Plan

    @property
    def se(self) -> pd.Series:
        """Standard deviation of the replicates."""
        return self.replicates.std().rename("se")

    @property
    def bias(self) -> pd.Series:
        """Mean of the replicates less the estimate."""
        return (self.replicates.mean() - self.estimate).rename("bias")

    def summary(self) -> pd.DataFrame:
        """estimate, bias, std.error and the number of replicates by parameter."""
        columns = {"estimate": self.estimate, "bias": self.bias, "std.error": self.se}
        return pd.DataFrame({**columns, "replicates": self.replicates.count()})

    def confint(self, level: float = 0.95, method: str = "percentile") -> pd.DataFrame:
        """Intervals by parameter, columns ``low`` and ``high``.

        ``percentile``: quantiles of the replicates, the (R + 1) p th of R in order. ``basic``: these mirrored at the
        estimate. ``bca``: bias-corrected and accelerated (Efron 1987), the acceleration from a jackknife over clusters
        (rows where there are none). R's boot.ci, types "perc", "basic" and "bca".
        """
        if method not in INTERVALS:
            raise UnsupportedError(f"method={method!r} is not one of {', '.join(map(repr, INTERVALS))}")
        probabilities = np.array(tails(level))
        shape = self._acceleration() if method == "bca" else np.zeros(len(self.estimate))
        rows = {
            name: self._limits(str(name), method, probabilities, a)
            for name, a in zip(self.estimate.index, shape, strict=True)
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["low", "high"])

    def _limits(self, name: str, method: str, p: np.ndarray, a: float) -> list[float]:
        draws, estimate = self.replicates[name].dropna().to_numpy(), float(self.estimate[name])
        if len(draws) < 2:
            raise FitError(
                f"{name}: {len(draws)} replicates succeeded, which is no distribution; see .failures"
            )
        if method == "bca":
            p = _adjusted(draws, estimate, p, a)
        if (len(draws) + 1) * min(p[0], 1.0 - p[1]) < 1.0:
            warnings.warn(
                MixedModelWarning(
                    f"{name}: {len(draws)} replicates are too few for this level; limits are the extremes"
                ),
                stacklevel=4,
            )
        low, high = np.quantile(draws, p, method="weibull")
        return [2.0 * estimate - high, 2.0 * estimate - low] if method == "basic" else [low, high]

    def _acceleration(self) -> np.ndarray:
        """(k,) a = sum d^3 / 6 (sum d^2)^(3/2), d the drops of a jackknife."""
        fit, codes = self.plan.fit, self.plan.codes
        if codes is None:
            codes = cluster_codes(fit, None) if fit.design.terms else np.arange(fit.design.n)
        left = without_cluster(self.plan, codes).values
        d = np.nanmean(left, axis=0) - left
        spread_ = np.nansum(d**2, axis=0) ** 1.5
        return np.where(spread_ > 0, np.nansum(d**3, axis=0) / np.where(spread_ > 0, 6.0 * spread_, 1.0), 0.0)


def _adjusted(draws: np.ndarray, estimate: float, p: np.ndarray, a: float) -> np.ndarray:
    """Probabilities of BCa; draws equal to the estimate count half."""
    below = (np.sum(draws < estimate) + 0.5 * np.sum(draws == estimate)) / len(draws)
    z0 = norm.ppf(np.clip(below, 0.5 / len(draws), 1.0 - 0.5 / len(draws)))
    z = z0 + norm.ppf(p)
    return norm.cdf(z0 + z / (1.0 - a * z))


def bootstrap(
    fit: Fit,
    nsim: int = 1000,
    rng: int | np.random.SeedSequence | np.random.Generator | None = None,
    *,
    type: str = "parametric",
    cluster: str | Sequence[Any] | np.ndarray | None = None,
    statistic: Callable[[Any], Any] | None = None,
    progress: bool = False,
    executor: Any = None,
) -> Bootstrap:
    """Refit the model to resampled data.

    Parameters
    ----------
    fit : Fit
        Of ``lm``, ``glm``, ``lmer`` or ``glmer``.
    nsim : int
        Replicates.
    rng : int, SeedSequence, Generator or None
        A seed. The replicates of a seed are the same whatever the executor, and those of a smaller ``nsim`` are the
        first of a larger one. A Generator is drawn from once.
    type : {"parametric", "residual", "cluster"}
        Responses drawn from the model, random effects anew (lme4's ``bootMer(use.u = FALSE)``); from its residuals and
        conditional modes, turned to have the estimated variances (linear models); or whole clusters with replacement.
    cluster : str, labels of the rows or None
        Of ``type="cluster"``: a grouping factor by name, or (n,) labels. None: the outermost factor.
    statistic : callable or None
        ``statistic(fit)`` gives a Series, a mapping or numbers; None: all parameters (lme4's names).
    progress : bool
        Show a line on standard error.
    executor : None, str, joblib.Parallel, Dask client or Executor
        Where blocks of replicates are fitted: here (None), the name of a joblib backend, or anything with ``submit`` or
        ``map``.

    Returns
    -------
    Bootstrap

    Raises
    ------
    DataError
        For ``nsim`` below 2, an unknown cluster.
    FitError
        If the model leaves no residual.
    UnsupportedError
        For an unknown type, residuals of a generalized model, a fit from partitions.

    Notes
    -----
    A replicate that cannot be fitted is a row of NaN, with its message in ``failures``; a singular one counts, as in
    lme4. Linear mixed models with one grouping factor are fitted in step, one Newton iteration for all. The size of a
    negative binomial is held at its estimate.

    References
    ----------
    Efron and Tibshirani (1993). Davison and Hinkley (1997), chapter 5.

    Examples
    --------
    >>> import mmcore as mm
    >>> from mmcore.inference.bootstrap.bootstrap import bootstrap
    >>> fit = mm.lmer("Yield ~ 1 + (1 | Batch)", mm.load_dataset("Dyestuff"))
    >>> boot = bootstrap(fit, 200, 1)
    >>> boot.confint().loc["sigma"].round(0).tolist()
    [35.0, 61.0]
    """
    plan = _plan(fit, type, cluster, statistic)
    if isinstance(nsim, bool) or not isinstance(nsim, int | np.integer) or nsim < 2:
        raise DataError(f"nsim must be a whole number of at least 2 replicates, got {nsim!r}")
    blocks = _blocks(plan, int(nsim), rng)
    _check(executor)
    if executor is None:
        tasks = [blocks[at : at + TOGETHER] for at in range(0, len(blocks), TOGETHER)]
    else:
        tasks = [[block] for block in blocks]
    count = Progress(int(nsim), progress, "replicates")
    parts = spread(run, tasks, executor, lambda task: count(sum(block.size for block in task)))
    return _collected(plan, parts)


def _plan(fit: Fit, type: str, cluster: Any, statistic: Any) -> Plan:
    require_fit(fit, "bootstrap")
    if type not in TYPES:
        raise UnsupportedError(f"type={type!r} is not one of {', '.join(map(repr, TYPES))}")
    if type == "residual" and is_generalized(fit):
        raise UnsupportedError(
            "residuals of a generalized model have no common distribution: use type='parametric'"
        )
    if cluster is not None and type != "cluster":
        raise DataError(f"cluster= is for type='cluster', not {type!r}")
    fit.require_rows("bootstrap")
    require_residual(fit, "is nothing to draw")
    if fit.residual is not None and fit.family is None and type != "parametric":
        raise UnsupportedError("a model with residual='varident(...)' has a parametric bootstrap only")
    labels = cluster if cluster is None or isinstance(cluster, str) else np.asarray(cluster)
    return Plan(fit, type, cluster_codes(fit, labels) if type == "cluster" else None, statistic)


def _check(executor: Any) -> None:
    """Raise UnsupportedError for the name of a joblib backend that is none, or without joblib."""
    if not isinstance(executor, str):
        return
    try:
        from joblib.parallel import BACKENDS
    except ImportError as error:
        raise UnsupportedError(f"executor={executor!r} needs joblib, which is not installed") from error
    if executor not in BACKENDS:
        raise UnsupportedError(
            f"executor={executor!r} is no backend of joblib; it has {', '.join(sorted(BACKENDS))}"
        )


def _blocks(plan: Plan, nsim: int, rng: Any) -> list[Block]:
    if isinstance(rng, np.random.Generator):
        rng = np.random.SeedSequence(rng.integers(0, 2**32, 4).tolist())
    elif isinstance(rng, np.random.SeedSequence):
        rng = np.random.SeedSequence(rng.entropy, spawn_key=rng.spawn_key)  # its own children are not used up
    elif rng is None or (isinstance(rng, int | np.integer) and not isinstance(rng, bool) and rng >= 0):
        rng = np.random.SeedSequence(None if rng is None else int(rng))
    else:
        raise DataError(f"rng must be a seed (a whole number), a SeedSequence or a Generator, got {rng!r}")
    firsts = range(0, nsim, BLOCK)
    seeds = rng.spawn(len(firsts))
    return [Block(plan, at, min(BLOCK, nsim - at), seed) for at, seed in zip(firsts, seeds, strict=True)]


def _collected(plan: Plan, parts: list[Replicates]) -> Bootstrap:
    fit = plan.fit
    if plan.statistic is None:
        every = parameters(fit)
        Lambda = fit.Lambda if fit.design.terms else ()
        estimate = dict(zip([p.name for p in every], values(every, Lambda, fit.sigma, fit.beta), strict=True))
    else:
        estimate = statistic_of(plan, fit)
    failures: dict[int, str] = {}
    first = 0
    for part in parts:
        failures |= {first + i: message for i, message in part.failures.items()}
        first += len(part.values)
    replicates = pd.DataFrame(np.concatenate([p.values for p in parts]), columns=list(estimate))
    if failures:
        warnings.warn(
            MixedModelWarning(f"{len(failures)} of {first} replicates could not be fitted: see .failures"),
            stacklevel=3,
        )
    return Bootstrap(
        replicates, pd.Series(estimate, name="estimate", dtype=float),
        np.concatenate([p.converged for p in parts]), np.concatenate([p.singular for p in parts]),
        pd.Series(failures, name="failure", dtype=object), plan,
    )  # fmt: skip
