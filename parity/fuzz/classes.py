"""Classes of made-up models."""

from __future__ import annotations

__all__ = ["CLASSES", "GENERALISED"]

# A class is a kind of model with a quota of its own: what its specs must be like.
CLASSES: dict[str, dict[str, object]] = {
    "intercept": {},
    "slope": {"slopes": "x"},
    "two_slopes": {"slopes": "x_z"},
    "factor_slope": {"slopes": "factor", "factor": 3},
    "doublebar": {"slopes": "x", "correlated": False, "intercept": True},
    "no_random_intercept": {"slopes": "x", "intercept": False},
    "crossed": {"second": "crossed"},
    "crossed_slope": {"second": "crossed", "slopes": "x"},
    "nested": {"second": "nested"},
    "nested_slope": {"second": "nested", "second_slope": True},
    "unbalanced": {"imbalance": "heavy"},
    "singletons": {"imbalance": "singletons"},
    "near_singular": {"slopes": "x", "spread": 1, "correlation": 9},
    "singular": {"spread": 0},
    "strong": {"spread": 4, "slopes": "x"},
    "weights": {"weights": "random"},
    "extreme_weights": {"weights": "extreme"},
    "offset": {"offset": True, "weights": "random"},
    "scale_of_x": {"x_exponent": 6, "slopes": "x"},
    "scale_of_y": {"y_exponent": -7},
    "large_mean": {"y_shift": 5, "fixed_intercept": True},
    "factors": {"factor": 4, "interaction": True},
    "contrasts": {"factor": 3, "contrasts": "contr.helmert"},
    "missing": {"missing": 2},
    "labels": {"labels": "numeric"},
    "unused_level": {"labels": "unused"},
    "collinear": {"covariates": 2, "collinear": 4},
    "no_fixed_intercept": {"fixed_intercept": False},
    "likelihood": {"reml": False},
    "theta_random": {"probe": "random", "slopes": "x_z"},
    "theta_boundary": {"probe": "boundary", "slopes": "x", "second": "nested"},
    "theta_large": {"probe": "large", "second": "crossed"},
    "binomial": {"family": "binomial"},
    "poisson": {"family": "poisson"},
    "gamma": {"family": "Gamma"},
    "glm_binomial": {"family": "binomial", "mixed": False},
    "glm_poisson": {"family": "poisson", "mixed": False},
    "glm_gamma": {"family": "Gamma", "mixed": False},
}


GENERALISED = tuple(name for name, fixed in CLASSES.items() if "family" in fixed)
