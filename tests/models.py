"""Small models of every shape for tests of what is computed from a fit: unsorted, weighted, with offset."""

from __future__ import annotations

import numpy as np
import pandas as pd

import mmcore as mm


def frame(n: int = 60, groups: int = 9, seed: int = 1) -> pd.DataFrame:
    """Unsorted, unbalanced groups ``g``, crossed ``h``, ``cask`` within ``batch``, covariates, weights."""
    rng = np.random.default_rng(seed)
    batch = rng.integers(0, max(groups // 3, 3), n)
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "z": rng.normal(size=n) + 3.0,
            "g": [f"g{i}" for i in rng.integers(0, groups, n)],
            "h": [f"h{i}" for i in rng.integers(0, max(groups // 2, 3), n)],
            "batch": [f"b{i}" for i in batch],
            "cask": [f"b{i}c{j}" for i, j in zip(batch, rng.integers(0, 3, n), strict=True)],
            "w": rng.uniform(0.3, 3.0, n),
            "off": rng.normal(size=n) * 2.0,
        }
    )
    effect = {level: v for level, v in zip(data.g.unique(), rng.normal(size=data.g.nunique()), strict=True)}
    data["y"] = 20 + data.x - 0.5 * data.z + data.g.map(effect).astype(float) + rng.normal(size=n)
    data.index = pd.Index([f"r{i}" for i in rng.permutation(n)])
    return data


SMALL = {
    "intercept": ("y ~ x + z + (1 | g)", [0.8], {}),
    "slope": ("y ~ x + (x | g)", [0.9, -0.4, 0.5], {}),
    "ml": ("y ~ x + (x | g)", [0.9, -0.4, 0.5], {"reml": False}),
    "three effects": ("y ~ x + (x + z | g)", [0.9, -0.4, 0.1, 0.5, 0.2, 0.3], {}),
    "double bar": ("y ~ x + (x || g)", [0.7, 1.3], {}),
    "slope far from its origin": ("y ~ I(x + 30) + (I(x + 30) | g)", [9.0, -0.4, 0.5], {"weights": "w"}),
    "singular": ("y ~ x + (x | g)", [0.0, 0.0, 0.0], {}),
    "singular slope": ("y ~ x + (x | g)", [0.8, 0.5, 0.0], {}),
    "weights and offset": ("y ~ x + z + (1 | g)", [0.8], {"weights": "w", "offset": "off"}),
    "weighted slope": ("y ~ x + (x | g)", [0.9, -0.4, 0.5], {"weights": "w"}),
    "one coefficient": ("y ~ 1 + (1 | g)", [1.1], {}),
    "no intercept": ("y ~ 0 + x + (1 | g)", [1.1], {}),
    "crossed": ("y ~ x + (1 | g) + (1 | h)", [0.8, 0.6], {}),
    "crossed slope": (
        "y ~ x + z + (x | g) + (1 | h)",
        [0.8, 0.3, 0.4, 0.6],
        {"weights": "w", "offset": "off"},
    ),
    "nested": ("y ~ x + (1 | cask) + (1 | batch)", [0.8, 0.6], {}),
    "nested slope": ("y ~ x + (1 | cask) + (x | batch)", [0.8, 0.6, 0.2, 0.4], {"weights": "w"}),
}
"""name -> formula, theta, options; evaluated on ``frame()``."""

LARGE = {
    "nested": ("y ~ x + (1 | cask) + (1 | batch)", [0.8, 0.6], {}, (450, 270)),
    "nested slopes": (
        "y ~ x + (x | cask) + (x | batch)",
        [0.8, 0.2, 0.3, 0.6, 0.2, 0.4],
        {"weights": "w"},
        (450, 200),
    ),
    "crossed": ("y ~ x + (1 | g) + (1 | h)", [0.8, 0.6], {}, (420, 120)),
    "crossed slopes": (
        "y ~ x + (x | g) + (x | h)",
        [0.8, 0.3, 0.4, 0.6, -0.2, 0.3],
        {"weights": "w"},
        (350, 60),
    ),
    "three crossed": ("y ~ x + (1 | g) + (1 | h) + (1 | batch)", [0.8, 0.6, 0.4], {}, (400, 110)),
}
"""name -> formula, theta, options, (rows, groups): over 150 random effects, so that structure is used."""


def small(name: str, seed: int = 1) -> mm.Fit:
    """A model of SMALL at its theta."""
    formula, theta, options = SMALL[name]
    return mm.fit_at(formula, frame(seed=seed), theta, **options)


def large(name: str) -> mm.Fit:
    """A model of LARGE at its theta."""
    formula, theta, options, (n, groups) = LARGE[name]
    return mm.fit_at(formula, frame(n, groups, seed=3), theta, **options)


def any_model(name: str) -> mm.Fit:
    """``small:NAME`` or ``large:NAME``."""
    size, _, key = name.partition(":")
    return small(key) if size == "small" else large(key)


NAMES = [f"small:{k}" for k in SMALL] + [f"large:{k}" for k in LARGE]
