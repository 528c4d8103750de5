"""Models made up from a few small numbers: what a fuzzer draws, shrinks, prints and stores.

A `Spec` holds small integers and words only; the data come from a seeded generator inside, so that a spec of
a dozen words is the whole model, on every machine. Validity is built in: there are always enough rows for the
effects asked for. Pathologies (imbalance, singletons, scales of 1e+-8, near-collinear columns, missing rows,
odd labels) are fields."""

from typing import Annotated, Literal

import msgspec
import numpy as np
import pandas as pd


def _small(low: int, high: int) -> msgspec.Meta:
    return msgspec.Meta(ge=low, le=high)


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One made-up model. The defaults are the plainest one: a balanced random intercept."""

    seed: Annotated[int, _small(0, 2**31)] = 0
    levels: Annotated[int, _small(2, 30)] = 4  # of the factor g
    rows: Annotated[int, _small(1, 40)] = 3  # per level of g; more where the model needs them
    imbalance: Literal["none", "mild", "heavy", "singletons"] = "none"
    slopes: Literal["none", "x", "x_z", "factor"] = "none"  # effects of the term on g
    intercept: bool = True  # in the term on g
    correlated: bool = True  # False: a double bar
    second: Literal["none", "crossed", "nested"] = "none"  # a second factor h
    second_levels: Annotated[int, _small(2, 12)] = 3
    second_slope: bool = False
    covariates: Annotated[int, _small(0, 2)] = 1  # fixed effects of x, then z
    factor: Annotated[int, _small(0, 5)] = 0  # levels of a fixed factor f; 0 and 1: none
    interaction: bool = False  # of x and f
    fixed_intercept: bool = True
    spread: Annotated[int, _small(0, 4)] = 2  # sd of the random effects: SPREADS
    correlation: Annotated[int, _small(-10, 10)] = 0  # of the effects of a level, in tenths
    x_exponent: Annotated[int, _small(-8, 8)] = 0  # x is multiplied by this power of ten
    y_exponent: Annotated[int, _small(-8, 8)] = 0
    y_shift: Annotated[int, _small(0, 6)] = (
        0  # y moves by this power of ten of its residual sd; 0: not at all
    )
    collinear: Annotated[int, _small(0, 6)] = 0  # z is x plus 10^-this times noise; 0: independent
    weights: Literal["none", "random", "extreme"] = "none"
    offset: bool = False
    missing: Annotated[int, _small(0, 3)] = 0  # rows with a missing value
    labels: Literal["plain", "text", "numeric", "shuffled", "unused"] = "plain"
    contrasts: Literal["", "contr.sum", "contr.helmert"] = ""
    reml: bool = True
    probe: Literal["optimum", "random", "boundary", "large"] = (
        "optimum"  # the theta where both sides are asked
    )
    family: Literal["gaussian", "binomial", "poisson", "Gamma"] = "gaussian"
    link: Literal["", "probit", "cloglog", "log"] = ""  # "": the first of LINKS
    mixed: bool = True  # False: the fixed part alone
    change: Literal["", "permute", "relabel"] = ""  # the same model told otherwise (metamorphic properties)


SPREADS = (0.0, 0.05, 0.5, 1.0, 8.0)
# Links that a family is tried with. Not the inverse, which can leave the domain of a Gamma, nor the square root, under
# which eta and -eta are the same mean: the modes of a level may be either.
LINKS: dict[str, tuple[str, ...]] = {
    "gaussian": ("",), "binomial": ("", "probit", "cloglog"), "poisson": ("",), "Gamma": ("log",),
}  # fmt: skip


def settled(spec: Spec) -> Spec:
    """The spec with what its parts imply: covariates and levels that slopes and interactions need."""
    needed = {"none": 0, "x": 1, "x_z": 2, "factor": 0}[spec.slopes]
    if spec.second_slope or spec.interaction:
        needed = max(needed, 1)
    if spec.collinear:
        needed = 2
    factor = spec.factor if spec.factor > 1 else 0
    if spec.slopes == "factor" or spec.interaction or spec.contrasts:
        factor = max(factor, 2)
    if spec.family != "gaussian":
        spec = _settled_family(spec)
    return msgspec.structs.replace(
        spec,
        covariates=max(spec.covariates, needed), factor=factor,
        intercept=spec.intercept or spec.slopes == "none",
        correlated=spec.correlated or spec.slopes in ("none", "factor") or not spec.intercept,
        second_slope=spec.second_slope and spec.second != "none",
        y_shift=spec.y_shift if spec.fixed_intercept else 0,  # else the random effects would have to carry it
    )  # fmt: skip


def _settled_family(spec: Spec) -> Spec:
    """A generalised model without the pathologies of scale; proportions have trials, or the effects run away."""
    links = LINKS[spec.family]
    plain = {"x_exponent": 0, "y_exponent": 0, "y_shift": 0, "collinear": 0, "probe": "optimum", "reml": True}
    return msgspec.structs.replace(
        spec,
        link=spec.link if spec.link in links else links[0],
        weights="random" if spec.family == "binomial" else "none",
        spread=min(spec.spread, 3), slopes=spec.slopes if spec.mixed else "none",
        second=spec.second if spec.mixed else "none", **plain,
    )  # fmt: skip


# --- the model ------------------------------------------------------------------------------------------


def formula(spec: Spec) -> str:
    """The formula, in lme4's language."""
    spec = settled(spec)
    fixed = ["1" if spec.fixed_intercept else "0", *("x", "z")[: spec.covariates]]
    fixed += ["f"] if spec.factor else []
    fixed += ["x:f"] if spec.interaction else []
    bar = "|" if spec.correlated else "||"
    random = [f"({' + '.join(_inside(spec))} {bar} g)"] if spec.mixed else []
    if spec.second != "none":
        group = "h" if spec.second == "crossed" else "g:h"
        random.append(f"({'1 + x' if spec.second_slope else '1'} | {group})")
    return "y ~ " + " + ".join([*fixed, *random])


def _inside(spec: Spec) -> list[str]:
    slopes = {"none": [], "x": ["x"], "x_z": ["x", "z"], "factor": ["f"]}[spec.slopes]
    return ["1" if spec.intercept else "0", *slopes]


def blocks(spec: Spec) -> tuple[tuple[str, ...], ...]:
    """Effects of each random term, in the order of the formula; `f` stands for an effect of the factor."""
    spec = settled(spec)
    if not spec.mixed:
        return ()
    effects = ["1"] if spec.intercept else []
    effects += {"none": [], "x": ["x"], "x_z": ["x", "z"], "factor": ["f"] * (spec.factor - spec.intercept)}[
        spec.slopes
    ]
    first = [tuple(effects)] if spec.correlated else [(effect,) for effect in effects]
    second = [] if spec.second == "none" else [("1", "x") if spec.second_slope else ("1",)]
    return (*first, *second)


def probe_theta(spec: Spec, probe: str = "") -> np.ndarray:
    """(n_theta,) a theta in lme4's order, on the scale of the covariates: "random", "boundary" or "large"."""
    rng = np.random.Generator(np.random.PCG64([spec.seed, 1]))
    parts = []
    for effects in _lme4_order(spec):
        L = np.array([[rng.uniform(-1.5, 1.5) for _ in effects] for _ in effects])
        L /= np.array([10.0**spec.x_exponent if effect == "x" else 1.0 for effect in effects])[:, None]
        L *= {"boundary": rng.integers(0, 2, L.shape), "large": 5.0}.get(probe or spec.probe, 1.0)
        parts += [L[j:, j] for j in range(len(effects))]
    return np.concatenate(parts) if parts else np.zeros(0)


def _lme4_order(spec: Spec) -> tuple[tuple[str, ...], ...]:
    """Decreasing number of levels; when anything has to move, ties are reversed."""
    terms = blocks(spec)
    if spec.second == "none":
        return terms
    frame = data(msgspec.structs.replace(spec, change="")).dropna()
    group = ["g", "h"] if spec.second == "nested" else ["h"]
    levels = [frame["g"].nunique()] * (len(terms) - 1) + [len(frame[group].drop_duplicates())]
    if levels == sorted(levels, reverse=True):
        return terms
    return tuple(terms[i] for i in sorted(range(len(terms)), key=lambda i: levels[i])[::-1])


def arguments(spec: Spec) -> dict[str, object]:
    """What else the model says: family, weights and offset columns, contrasts, the criterion."""
    spec = settled(spec)
    out: dict[str, object] = {"reml": spec.reml, "family": spec.family}
    if spec.link:
        out["link"] = spec.link
    if spec.weights != "none":
        out["weights"] = "w"
    if spec.offset:
        out["offset"] = "o"
    if spec.contrasts:
        out["contrasts"] = {"f": spec.contrasts}
    return out


# --- the data -------------------------------------------------------------------------------------------


def data(spec: Spec) -> pd.DataFrame:
    """The data frame; the index holds 1-based row numbers of the data as first made."""
    spec = settled(spec)
    rng = np.random.Generator(np.random.PCG64(spec.seed))
    g = _groups(spec, rng)
    h = _second(spec, g, rng)
    n = len(g)
    x, z = rng.normal(size=n), rng.normal(size=n)
    if spec.collinear:
        z = x + 10.0**-spec.collinear * z
    f = _balanced(max(spec.factor, 1), n, rng)
    noise = rng.normal(size=n)
    weights = _weights(spec, n, rng)
    offset = rng.normal(size=n) if spec.offset else np.zeros(n)
    y = 1.0 + 0.7 * x - 0.4 * z + 0.3 * f + offset + noise / np.sqrt(weights)
    y += _random_part(spec, g, h, x, z, f, rng)
    y = (y + (10.0**spec.y_shift if spec.y_shift else 0.0)) * 10.0**spec.y_exponent
    if spec.family != "gaussian":
        eta, trials = y - noise / np.sqrt(weights), np.ceil(2.0 * weights)
        weights = trials if spec.family == "binomial" else weights
        y = _response(spec, eta, trials, rng)
    frame = pd.DataFrame(
        {
            "y": y, "x": x * 10.0**spec.x_exponent, "z": z, "f": _factor("f", f, spec, "plain", rng),
            "g": _factor("g", g, spec, spec.labels, rng), "h": _factor("h", h, spec, spec.labels, rng),
            "w": weights, "o": offset * 10.0**spec.y_exponent,
        },
        index=pd.RangeIndex(1, n + 1),
    )  # fmt: skip
    for row in rng.choice(n, spec.missing, replace=False):
        frame.iloc[row, frame.columns.get_loc(("y", "x", "g")[row % 3])] = None
    return _changed(frame, spec)


def _response(spec: Spec, eta: np.ndarray, trials: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) of the family, at half the linear predictor: means far out say nothing."""
    match spec.family:
        case "binomial":
            return rng.binomial(trials.astype(int), 1.0 / (1.0 + np.exp(0.4 - 0.5 * eta))) / trials
        case "poisson":
            return rng.poisson(np.exp(np.minimum(0.5 * eta + 0.5, 5.0))).astype(float)
    return rng.gamma(3.0, np.exp(0.5 * eta) / 3.0)


def _groups(spec: Spec, rng: np.random.Generator) -> np.ndarray:
    """(n,) codes of g: as unequal as asked for, and with enough rows for the effects of every term."""
    sizes = np.full(spec.levels, spec.rows)
    match spec.imbalance:
        case "mild":
            sizes += rng.integers(0, spec.rows + 1, spec.levels)
        case "heavy":
            sizes = np.maximum(1, (sizes * 2.0 ** rng.uniform(-2, 2.5, spec.levels)).astype(int))
        case "singletons":
            sizes = np.where(np.arange(spec.levels) % 2 == 1, 1, 2 * sizes)
    effects = sum(map(len, blocks(spec)))
    levels = spec.levels * (spec.second_levels if spec.second == "nested" else 1)
    levels = max(levels, spec.second_levels)
    needed = effects * levels + 2 * (spec.covariates + spec.factor) + spec.missing * (effects + 1) + 5
    sizes[0] += max(0, needed - int(sizes.sum())) % spec.levels
    sizes += max(0, needed - int(sizes.sum()) + spec.levels - 1) // spec.levels
    return np.repeat(np.arange(spec.levels), sizes)


def _second(spec: Spec, g: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) codes of h; every level of h occurs."""
    if spec.second == "nested":
        within = np.concatenate([np.arange(count) for count in np.bincount(g)])
        return within % spec.second_levels
    return _balanced(spec.second_levels, len(g), rng)


def _balanced(levels: int, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(np.arange(n) % levels)


def _weights(spec: Spec, n: int, rng: np.random.Generator) -> np.ndarray:
    match spec.weights:
        case "random":
            return rng.uniform(0.2, 5.0, n)
        case "extreme":
            return 10.0 ** rng.uniform(-4, 4, n)
    return np.ones(n)


def _random_part(
    spec: Spec,
    g: np.ndarray,
    h: np.ndarray,
    x: np.ndarray,
    z: np.ndarray,
    f: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    columns = [np.ones(len(g))] if spec.intercept else []
    columns += {"none": [], "x": [x], "x_z": [x, z], "factor": [f.astype(float)]}[spec.slopes]
    part = _effects(spec, columns, g, rng)
    if spec.second != "none":
        group = h if spec.second == "crossed" else g * spec.second_levels + h
        part += _effects(spec, [np.ones(len(g)), x] if spec.second_slope else [np.ones(len(g))], group, rng)
    return part


def _effects(
    spec: Spec, columns: list[np.ndarray], codes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Z b for effects of one sd and one correlation between neighbours."""
    b = rng.normal(size=(codes.max() + 1, len(columns)))
    rho = spec.correlation / 10
    for k in range(1, len(columns)):
        b[:, k] = rho * b[:, 0] + np.sqrt(1 - rho**2) * b[:, k]
    return SPREADS[spec.spread] * sum(column * b[codes, k] for k, column in enumerate(columns))


def _factor(name: str, codes: np.ndarray, spec: Spec, labels: str, rng: np.random.Generator) -> pd.Series:
    count = int(codes.max()) + 1
    if labels == "numeric":
        names = [str(7 * (count - i)) for i in range(count)]
    else:
        names = [f"{name}{chr(97 + i % 26)}{i // 26 or ''}" for i in range(count)]
    if spec.change == "relabel" and name != "f":
        names = [relabelled(label) for label in names]
    if labels == "text":
        return pd.Series([names[code] for code in codes], dtype="str", index=pd.RangeIndex(1, len(codes) + 1))
    order = list(names)
    if labels == "shuffled":
        order = [order[i] for i in rng.permutation(count)]
    if labels == "unused":
        order.insert(count // 2, f"{name}_unused")
    values = pd.Categorical([names[code] for code in codes], categories=order)
    return pd.Series(values, index=pd.RangeIndex(1, len(codes) + 1))


def relabelled(label: str) -> str:
    """The name of a level after the change "relabel"; the order of names does not change."""
    return f"{label}_new"


def _changed(frame: pd.DataFrame, spec: Spec) -> pd.DataFrame:
    if spec.change != "permute":
        return frame
    order = np.random.Generator(np.random.PCG64([spec.seed, 2])).permutation(len(frame))
    return frame.iloc[order]
