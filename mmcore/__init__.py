"""mmcore: linear mixed models and their diagnostics in NumPy and SciPy."""

from .datasets import dataset_names, load_dataset
from .diagnostics import (
    cooks_distance,
    covratio,
    covtrace,
    hatvalues,
    hlm_augment,
    hlm_influence,
    hlm_resid,
    leverage,
    ls_residuals,
    mdffits,
    pull_resid,
    resid_conditional,
    resid_marginal,
    rstudent,
)
from .errors import (
    ConvergenceWarning,
    DataError,
    DesignError,
    FitError,
    FormulaError,
    MixedModelError,
    MixedModelWarning,
    RankWarning,
    SingularWarning,
    UnsupportedError,
)
from .fit import Fit, OptInfo, fit_at, fit_design, fit_design_at, lm, lmer
from .optimize import Control, Status
from .varcorr import VarCorr

__version__ = "0.1.0"

__all__ = [
    "Control",
    "ConvergenceWarning",
    "DataError",
    "DesignError",
    "Fit",
    "FitError",
    "FormulaError",
    "MixedModelError",
    "MixedModelWarning",
    "OptInfo",
    "RankWarning",
    "SingularWarning",
    "Status",
    "UnsupportedError",
    "VarCorr",
    "cooks_distance",
    "covratio",
    "covtrace",
    "dataset_names",
    "fit_at",
    "fit_design",
    "fit_design_at",
    "hatvalues",
    "hlm_augment",
    "hlm_influence",
    "hlm_resid",
    "leverage",
    "lm",
    "lmer",
    "load_dataset",
    "ls_residuals",
    "mdffits",
    "pull_resid",
    "resid_conditional",
    "resid_marginal",
    "rstudent",
]
