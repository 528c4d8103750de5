"""Inference about a fitted model: tests, intervals, robust covariance, estimated means."""

from ..results.coefficients import register
from .bootstrap.bootstrap import Bootstrap, bootstrap
from .df.denominators import coefficient_table
from .df.kenward_roger import vcov_kr
from .df.satterthwaite import singular_directions
from .intervals.confint import confint
from .intervals.profile import LikelihoodProfile, profile
from .intervals.varcomp_se import varcomp_se
from .margins.emmeans import MarginalMeans, contrasts, emmeans
from .margins.margins import margins, predictive_margins
from .robust.robust import coef_test, vcov_robust
from .tests.against_linear import lrt_vs_linear
from .tests.anova import anova
from .tests.drop1 import drop1
from .tests.information import aicc, parameter_counts
from .tests.ranova import ranova
from .tests.wald import WaldTest, wald_test

__all__ = [
    "Bootstrap",
    "LikelihoodProfile",
    "MarginalMeans",
    "WaldTest",
    "aicc",
    "anova",
    "bootstrap",
    "coef_test",
    "coefficient_table",
    "confint",
    "contrasts",
    "drop1",
    "emmeans",
    "lrt_vs_linear",
    "margins",
    "parameter_counts",
    "predictive_margins",
    "profile",
    "ranova",
    "singular_directions",
    "varcomp_se",
    "vcov_kr",
    "vcov_robust",
    "wald_test",
]

register(coefficient_table)
