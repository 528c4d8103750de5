"""Diagnostics of a fit: residuals, leverage, influence by one step and by refits."""

from .augment import hlm_augment, hlm_influence, hlm_resid
from .influence import cooks_distance, covratio, covtrace, mdffits
from .leverage import hatvalues, leverage
from .residuals import ls_residuals, pull_resid, resid_conditional, resid_marginal, rstudent

__all__ = [
    "cooks_distance",
    "covratio",
    "covtrace",
    "hatvalues",
    "hlm_augment",
    "hlm_influence",
    "hlm_resid",
    "leverage",
    "ls_residuals",
    "mdffits",
    "pull_resid",
    "resid_conditional",
    "resid_marginal",
    "rstudent",
]
