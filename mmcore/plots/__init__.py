"""Pictures of fits, influence, profiles and effects."""

from .diagnostics import (
    dotplot_diag,
    influence_cutoffs,
    plot_dfbetas,
    plot_eb_ls,
    plot_influence,
    plot_qq,
    plot_ranef,
    plot_resid,
)
from .effects import plot_effects
from .profile import plot_profile, plot_profile_pairs

__all__ = [
    "dotplot_diag",
    "influence_cutoffs",
    "plot_dfbetas",
    "plot_eb_ls",
    "plot_effects",
    "plot_influence",
    "plot_profile",
    "plot_profile_pairs",
    "plot_qq",
    "plot_ranef",
    "plot_resid",
]
