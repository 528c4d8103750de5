"""Diagnostics of a fit: residuals, leverage, influence by one step and by refits."""

from .augment import hlm_augment, hlm_influence, hlm_resid
from .boundary import RandomEffectsPCA, is_singular, re_pca
from .collinearity import vif
from .deletion.case_delete import CaseDeletion, LmeInfluence, case_delete, influence, rvc
from .extract import DesignMatrices, extract_design
from .influence.coefficients import dfbeta, dfbetas, dffits
from .influence.glm import glm_covratio, glm_dfbeta, rstandard
from .influence.local import Estimates, local_influence
from .ladder import ladder
from .leverage import hatvalues, leverage
from .measures import cooks_distance, covratio, covtrace, mdffits
from .residuals.lm_list import LmList, compare_eb_ls, lm_list
from .residuals.residuals import ls_residuals, pull_resid, resid_conditional, resid_marginal, rstudent
from .rotate import rotate_ranef
from .shares import design_effect, icc, r2
from .varcomp import varcomp

__all__ = [
    "CaseDeletion",
    "DesignMatrices",
    "Estimates",
    "LmList",
    "LmeInfluence",
    "RandomEffectsPCA",
    "case_delete",
    "compare_eb_ls",
    "cooks_distance",
    "covratio",
    "covtrace",
    "design_effect",
    "dfbeta",
    "dfbetas",
    "dffits",
    "extract_design",
    "glm_covratio",
    "glm_dfbeta",
    "hatvalues",
    "hlm_augment",
    "hlm_influence",
    "hlm_resid",
    "icc",
    "influence",
    "is_singular",
    "ladder",
    "leverage",
    "lm_list",
    "local_influence",
    "ls_residuals",
    "mdffits",
    "pull_resid",
    "r2",
    "re_pca",
    "resid_conditional",
    "resid_marginal",
    "rotate_ranef",
    "rstandard",
    "rstudent",
    "rvc",
    "varcomp",
    "vif",
]
