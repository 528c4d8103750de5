"""Diagnostics of a fit: residuals, leverage, influence by one step and by refits."""

from .augment import hlm_augment, hlm_influence, hlm_resid
from .deletion import CaseDeletion, LmeInfluence, case_delete, influence, rvc
from .leverage import hatvalues, leverage
from .measures import cooks_distance, covratio, covtrace, mdffits
from .residuals import ls_residuals, pull_resid, resid_conditional, resid_marginal, rstudent
from .varcomp import varcomp

__all__ = [
    "CaseDeletion",
    "LmeInfluence",
    "case_delete",
    "cooks_distance",
    "covratio",
    "covtrace",
    "hatvalues",
    "hlm_augment",
    "hlm_influence",
    "hlm_resid",
    "influence",
    "leverage",
    "ls_residuals",
    "mdffits",
    "pull_resid",
    "resid_conditional",
    "resid_marginal",
    "rstudent",
    "rvc",
    "varcomp",
]
