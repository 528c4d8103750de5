"""The registry: every number that is compared, by name. Names, definitions, sources and measures stand here
once.

A quantity is a definition, never a bare name: two R functions that disagree are two quantities. Each row
names the R function that computes it (same name, in `r_reference/R/`), so the table below is also the index
of the R sources. Gates are in `policy.toml`; documentation tables and command-line listings are made from
this file.

Notation. n rows, p columns of X (full rank), q random effects; W = diag(prior weights); `V = sigma^2 (W^-1
+ Z Lambda Lambda' Z')`; `C = (X' V^-1 X)^-1`; `P = V^-1 - V^-1 X C X' V^-1`; `r = y - offset - X beta`
(marginal residual); `e = r - Z b` (conditional residual); `h` the diagonal of the matrix that maps y to the
conditional fitted values. A deleted set A (one row, or all rows of one level) changes beta by `Delta_A = C
X' V^-1[:, A] P_AA^-1 (P y)_A` and its covariance to `C_A = C + C X' V^-1[:, A] P_AA^-1 V^-1[A, :] X C`,
with theta and sigma held at their full-data values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from parity.schema.case import Kind

Lane = Literal["at_theta", "optimum", "default", "certified"]
Index = Literal[
    "scalar", "x_cell", "x_moment", "obs", "coef", "coef_pair", "theta", "covariance",
    "level_effect", "level_effect_pair", "level_row", "level", "component",
    "obs_coef", "obs_coef_pair", "obs_covariance", "obs_component",
    "level_coef", "level_coef_pair", "level_covariance", "level_component",
]  # fmt: skip
Unit = Literal["1", "y", "y^2", "log"]
Group = Literal["design", "criterion", "fixed", "random", "residual", "leverage", "influence", "deletion"]
Measure = Literal[
    "exact", "relative", "gap", "criterion", "standard_errors", "whitened", "covariance", "scaled",
    "scaled_by_sd_y", "scaled_by_modes", "root", "mixed",
]  # fmt: skip

X_MATRIX_LIMIT = 20_000  # cells of X above which x_matrix is left out and x_column_moments speaks alone
DENSE_LIMIT = 1_500  # rows above which R's dense first principles are left out

INDEXES = MappingProxyType(
    {
        "scalar": 'one number, label ""',
        "x_cell": '"row|column" of the fixed-effects matrix',
        "x_moment": '"column|sum", "column|sumsq", "column|dot_y"',
        "obs": "the 1-based number of the row in the data set, as text",
        "coef": "R's coefficient name",
        "coef_pair": '"a|b", all p * p pairs, row by row',
        "theta": "lme4's theta name, in lme4's order",
        "covariance": '"group|effect|effect", all k * k pairs of a term, row by row',
        "level_effect": '"group|level|effect"',
        "level_effect_pair": '"group|level|effect|effect"',
        "level_row": '"group|row"',
        "level": '"group|level"',
        "component": '"sigma2", then "D<row><column>" of the joint covariance of all random effects',
        "obs_coef": '"row|coefficient"',
        "obs_coef_pair": '"row|a|b"',
        "obs_covariance": '"row|group|effect|effect"',
        "obs_component": '"row|component"',
        "level_coef": '"group|level|coefficient"',
        "level_coef_pair": '"group|level|a|b"',
        "level_covariance": '"group|level|group|effect|effect"',
        "level_component": '"group|level|component"',
    }
)

MEASURES = MappingProxyType(
    {
        "exact": "max |x - c| / max(1, |c|), element by element",
        "relative": "|x - c| / |c|",
        "gap": "|x - c|, in deviance units",
        "criterion": "|x - c| / (1 + |c|)",
        "standard_errors": "max |x - c| / SE, the reference's standard error of that coefficient",
        "whitened": "max |L^-1 (x - c) L^-T|, where c = L L': free of the units of the columns of X",
        "covariance": "max |x_ij - c_ij| / sqrt(c_ii c_jj); below the singularity threshold c_ii counts as 0",
        "scaled": "max |x - c| / max |c|",
        "scaled_by_sd_y": "max |x - c| / sd(y)",
        "scaled_by_modes": "max |x - c| / max(max |c|, max |ranef|)",
        "root": "max |x - c| min(1, (|x| + |c|) / (floor M)) / M, M = max |c|: x^2 where x is near zero",
        "mixed": "max |x - c| / max(1, |c|)",
    }
)

ALL_LANES: tuple[Lane, ...] = ("at_theta", "optimum", "default", "certified")
OWN_OPTIMUM: tuple[Lane, ...] = ("optimum", "default", "certified")


@dataclass(frozen=True, slots=True)
class Quantity:
    """One comparable number or vector of numbers."""

    name: str  # key in every file, table and report; also the name of its R function
    group: Group
    index: Index  # how it is labelled: a key of INDEXES
    unit: Unit  # how it scales when y is multiplied by a constant
    definition: str
    r_source: str  # "file::function" in r_reference/R
    measure: Measure  # how far two values are apart: a key of MEASURES
    why: str  # why this measure
    lanes: tuple[Lane, ...] = ALL_LANES
    kinds: tuple[Kind, ...] = ("lmm",)  # kinds of model that have it

    @property
    def refits(self) -> bool:
        """Whether it needs a refit per unit: asked for only where the reference has it, and a reference may
        hold some of the units."""
        return self.group == "deletion"


def _design(name: str, index: Index, unit: Unit, definition: str, file: str = "quantities.R") -> Quantity:
    why = "the design must be the same before any estimate can be"
    return Quantity(name, "design", index, unit, definition, f"{file}::{name}", "exact", why)


def _criterion(
    name: str, definition: str, measure: Measure = "criterion", file: str = "quantities.R"
) -> Quantity:
    why = "a log-likelihood has no natural zero; differences of it are what tests use"
    return Quantity(name, "criterion", "scalar", "log", definition, f"{file}::{name}", measure, why)


def _residual(name: str, unit: Unit, definition: str, file: str = "first_principles.R") -> Quantity:
    measure: Measure = "scaled_by_sd_y" if unit == "y" else "scaled"
    why = "residuals near zero are differences of larger numbers: the spread of y is their scale"
    if unit == "1":
        why = "standardised residuals near zero carry no digits of their own: the largest one is the scale"
    return Quantity(name, "residual", "obs", unit, definition, f"{file}::{name}", measure, why)


def _deviance_residual(name: str, definition: str, file: str) -> Quantity:
    why = "the root of a difference: where y = mu, rounding by eps makes it sqrt(eps), so that there its square counts"
    return Quantity(name, "residual", "obs", "1", definition, f"{file}::{name}", "root", why)


def _leverage(name: str, index: Index, definition: str, file: str = "first_principles.R") -> Quantity:
    why = "a leverage near zero is a difference of larger numbers: the largest one is the scale"
    return Quantity(name, "leverage", index, "1", definition, f"{file}::{name}", "scaled", why)


def _influence(
    name: str, index: Index, definition: str, measure: Measure = "scaled", file: str = "first_principles.R"
) -> Quantity:
    why = "influence near zero is rounding; the influential units set the scale"
    if measure == "mixed":
        why = "the value without influence is one, so differences from one count absolutely"
    return Quantity(name, "influence", index, "1", definition, f"{file}::{name}", measure, why)


def _group_residuals() -> tuple[Quantity, ...]:
    """Standardised modes, and least squares in each level."""
    why = "modes and deviations near zero are differences of larger numbers"
    rows: tuple[tuple[str, Unit, str], ...] = (
        ("ranef_std_lme4", "1", "modes over the root of condvar: hlm_resid's standardised EB for lmer fits"),
        ("ranef_std_nlme", "1", "modes over the root of varcorr: hlm_resid's standardised EB for lme fits"),
        (
            "ranef_ls", "y",
            "least-squares coefficient of the level less the mean over levels (of the same parent, for nested "
            "factors), for random effects that are fixed effects too: hlm_resid's LS group residual",
        ),
        ("ranef_ls_std", "1", "ranef_ls over its standard deviation over all levels of the factor"),
        ("compare_eb_ls", "y", "ranef_ls minus ranef: the residual of HLMdiag's compare_eb_ls"),
    )  # fmt: skip
    measure: dict[str, Measure] = {
        "compare_eb_ls": "scaled_by_modes"
    }  # a difference: what it differs in is the scale
    return tuple(
        Quantity(
            n, "random", "level_effect", u, text, f"group_residuals.R::{n}", measure.get(n, "scaled"), why
        )
        for n, u, text in rows
    )


def _deletion(
    name: str, definition: str, unit: Unit = "1", measure: Measure = "scaled", per: str = ""
) -> tuple[Quantity, Quantity]:
    """The two rows of a quantity of refits: without each row, and without each level."""
    why = {
        "scaled": "what changes little is rounding of the optimum; the units that matter set the scale",
        "gap": "deviance units, in which an optimum is judged",
        "relative": "a positive scale parameter",
        "mixed": "the value without influence is one, so differences from one count absolutely",
    }[measure]
    index = {unit: f"{unit}_{per}" if per else unit for unit in ("obs", "level")}
    rows, levels = (
        Quantity(n, "deletion", index[kind], unit, definition + tail, f"deletion.R::{n}", measure, why)  # type: ignore[arg-type]
        for n, kind, tail in ((name, "obs", _REFIT_ROW), (f"{name}_group", "level", _REFIT_LEVEL))
    )
    return rows, levels


_REFIT_ROW = "; refits without each row"
_REFIT_LEVEL = "; refits without each level of a grouping factor"
_COOKS = "Delta_A' C^-1 Delta_A / p: one step, theta and sigma fixed; not lme4's cooks.distance"
_MDFFITS = "Delta_A' C_A^-1 Delta_A / p: Cook's distance measured with the covariance after the deletion"
_COVTRACE = "|tr(C^-1 C_A) - p|: growth of the covariance of beta; zero without influence"
_COVRATIO = "det C_A / det C: the same growth as a ratio of volumes; one without influence"
_LEVERAGE = {
    "overall": "diagonal of H1 + H2: leverage on the conditional fit, fixed and random part together",
    "fixef": "diagonal of H1 = X C X' V^-1: the fixed effects' part of the leverage; sums to p",
    "ranef": "diagonal of H2 = Z D Z' V^-1 (I - H1), D = sigma^2 Lambda Lambda': the random effects' part",
    "ranef_uc": "diagonal of Z Lambda Lambda' Z': the part not confounded with X; not bounded by one",
}
_ROW = ", A a single row"
_LEVEL = ", A all rows of one level of a grouping factor"
_MEAN = "; mean over the rows of one level of a grouping factor"

_ROWS = (
    _design("n_obs", "scalar", "1", "number of rows used, after rows with missing values were left out"),
    _design("p_fixed", "scalar", "1", "number of columns of X after aliased columns were dropped"),
    _design("q_random", "scalar", "1", "number of columns of Z, all terms together"),
    _design("y_response", "obs", "y", "response: left side of the formula, offset not subtracted"),
    _design("x_matrix", "x_cell", "1", f"fixed-effects matrix, cell by cell (up to {X_MATRIX_LIMIT} cells)"),
    _design("x_column_moments", "x_moment", "1", "sum, sum of squares, product with y of each column of X"),
    _design(
        "z_rows", "level_row", "1",
        "position (from 0) of the level of each row in R's order of levels, per grouping factor",
    ),
    _criterion("criterion", "what the optimiser minimises: the REML criterion, or -2 log-likelihood for ML"),
    _criterion("loglik", "log-likelihood (restricted for REML): -criterion / 2"),
    _criterion("aic", "-2 loglik + 2 df, from the restricted log-likelihood for REML fits"),
    _criterion("bic", "-2 loglik + log(n) df, n the number of rows"),
    _criterion("df", "number of parameters: fixed effects, theta and the residual variance", "exact"),
    Quantity(
        "sigma", "criterion", "scalar", "y",
        "residual standard deviation: sqrt(penalised residual sum of squares / (n - p)) for REML, / n for ML",
        "quantities.R::sigma", "relative", "a positive scale parameter",
    ),
    Quantity(
        "fixef", "fixed", "coef", "y", "estimates of the fixed effects", "quantities.R::fixef",
        "standard_errors",
        "free of the units of y and of the columns of X, and what a user would notice",
    ),
    Quantity(
        "se_fixef", "fixed", "coef", "y", "standard errors of the fixed effects: sqrt(diag(C))",
        "quantities.R::se_fixef", "relative", "a positive scale parameter",
    ),
    Quantity(
        "vcov_fixef", "fixed", "coef_pair", "y^2", "covariance matrix of the fixed effects: C",
        "quantities.R::vcov_fixef", "whitened", "the same verdict whatever the units or the coding of X",
    ),
    Quantity(
        "theta", "random", "theta", "1",
        "covariance parameters relative to sigma: lower factors Lambda, term by term, column by column",
        "quantities.R::theta", "scaled", "only for regular fits; the sign-free form is lambda_crossprod",
        OWN_OPTIMUM,
    ),
    Quantity(
        "lambda_crossprod", "random", "covariance", "1",
        "Lambda Lambda' of each term: covariance of its random effects relative to sigma^2",
        "quantities.R::lambda_crossprod", "covariance",
        "free of signs, rotations and units; safe for singular fits",
    ),
    Quantity(
        "varcorr", "random", "covariance", "y^2",
        "sigma^2 Lambda Lambda' of each term, and sigma^2 under the label \"Residual\"",
        "quantities.R::varcorr", "covariance", "free of signs, rotations and units; safe for singular fits",
    ),
    Quantity(
        "ranef", "random", "level_effect", "y", "conditional modes of the random effects: b = Lambda u",
        "quantities.R::ranef", "scaled", "modes near zero are differences of larger numbers",
    ),
    Quantity(
        "condvar", "random", "level_effect_pair", "y^2",
        "covariance of b given y, beta, theta: sigma^2 Lambda (Lambda' Z'WZ Lambda + I)^-1 Lambda'",
        "quantities.R::condvar", "scaled", "covariances near zero are differences of larger numbers",
    ),
    Quantity(
        "varcomp", "random", "component", "y^2",
        "sigma^2, then the lower triangle of each term's covariance, as HLMdiag's varcomp.mer; zeros stay",
        "group_residuals.R::varcomp", "scaled", "covariances near zero are differences of larger numbers",
    ),
    *_group_residuals(),
    _residual("fitted", "y", "conditional means: X beta + Z b + offset, through the inverse link", "quantities.R"),
    _residual("resid_response", "y", "e = y - fitted", "quantities.R"),
    _residual(
        "resid_pearson", "y",
        "sqrt(w) e, not divided by sigma; over the root of the variance function in a generalised model",
        "quantities.R",
    ),
    _residual("resid_scaled", "1", "sqrt(w) e / sigma", "quantities.R"),
    _residual(
        "rstudent_lme4", "1", "sqrt(w) e / (sigma sqrt(1 - h)): internally studentised, despite lme4's name",
        "quantities.R",
    ),
    _residual(
        "resid_conditional_studentized", "1",
        "e divided by the root of the diagonal of its covariance R P R, R = sigma^2 W^-1",
    ),
    _residual("fitted_marginal", "y", "marginal fitted values: X beta + offset"),
    _residual("resid_marginal", "y", "r = y - offset - X beta"),
    _residual("resid_marginal_pearson", "1", "r / sqrt(diag V)"),
    _residual("resid_marginal_studentized", "1", "r / sqrt(diag(V - X C X'))"),
    _residual(
        "resid_marginal_cholesky", "1",
        "L^-1 r, where V = L L' with the rows in data order: depends on that order",
    ),
    _residual(
        "fitted_ls", "y",
        "fit of a separate least-squares regression in each level of the first grouping factor, on the "
        "columns of X there (no intercept is added where the model has none, unlike HLMdiag)",
    ),
    _residual("resid_ls", "y", "y minus fitted_ls"),
    _leverage(
        "hatvalues", "obs", "h: diagonal of the map from y to the conditional fit, as lme4's hatvalues",
        "quantities.R",
    ),
    *(_leverage(f"leverage_{part}", "obs", text) for part, text in _LEVERAGE.items()),
    *(_leverage(f"leverage_{part}_group", "level", text + _MEAN) for part, text in _LEVERAGE.items()),
    _influence(
        "cooks_distance_plugin", "obs",
        "w e^2 h / (sigma^2 p (1 - h)^2): lme4's cooks.distance, influence on the conditional fit",
        file="quantities.R",
    ),
    _influence("cooks_distance_marginal", "obs", _COOKS + _ROW),
    _influence("mdffits_marginal", "obs", _MDFFITS + _ROW),
    _influence("covtrace_marginal", "obs", _COVTRACE + _ROW),
    _influence("covratio_marginal", "obs", _COVRATIO + _ROW, "mixed"),
    _influence("cooks_distance_marginal_group", "level", _COOKS + _LEVEL),
    _influence("mdffits_marginal_group", "level", _MDFFITS + _LEVEL),
    _influence("covtrace_marginal_group", "level", _COVTRACE + _LEVEL),
    _influence("covratio_marginal_group", "level", _COVRATIO + _LEVEL, "mixed"),
    *_deletion("deletion_criterion", "criterion of the rows left at their own optimum", "log", "gap"),
    *_deletion("deletion_sigma", "residual standard deviation b_i is estimated with", "y", "relative"),
    *_deletion("deletion_fixef", "fixed effects b_i of the rows left", "y", per="coef"),
    *_deletion("deletion_vcov_fixef", "covariance C_i of the fixed effects", "y^2", per="coef_pair"),
    *_deletion("deletion_lambda_crossprod", "Lambda Lambda' of each term", per="covariance"),
    *_deletion("deletion_varcomp", "variance components, as varcomp", "y^2", per="component"),
    *_deletion("cooks_distance_refit", "(b - b_i)' C^-1 (b - b_i) / p, C of the full fit: HLMdiag's with refits"),
    *_deletion("mdffits_refit", "(b - b_i)' C_i^-1 (b - b_i) / p, C_i of the refit: HLMdiag's with refits"),
    *_deletion("covtrace_refit", "|tr(C^-1 C_i) - p|, each with its own sigma: HLMdiag's with refits"),
    *_deletion(
        "covratio_refit", "det C_i / det C, each with its own sigma: HLMdiag's with refits", measure="mixed"
    ),
    *_deletion(
        "rvc", "relative change of each variance component: refit / full - 1; HLMdiag's rvc", per="component"
    ),
    *_deletion("dfbeta_lme4", "b_i - b, deleted minus full: dfbeta of lme4's influence()", "y", per="coef"),
    *_deletion(
        "dfbetas_lme4", "(b_i - b) / SE_i, standard errors of the refit: dfbetas of lme4's influence()",
        per="coef",
    ),
    *_deletion(
        "cooks_distance_influence_lme4",
        "(K - p) / (K p) (b - b_i)' C^-1 (b - b_i), K units: cooks.distance of lme4's influence()",
    ),
    *_deletion(
        "dfbeta_varcomp_lme4", "change of each variance component, deleted minus full: lme4's influence()",
        "y^2", per="component",
    ),
)  # fmt: skip

_GENERALISED = (
    _design("prior_weights", "obs", "1", "prior weights w, numbers of trials included", "glmm.R"),
    _criterion(
        "deviance", "sum of the squared deviance residuals; of a mixed model at its conditional modes",
        file="glmm.R",
    ),
    _criterion(
        "null_deviance", "deviance of the model with the offset and the intercept, if there is one", file="glm.R"
    ),
    _criterion("penalty", "|u|^2, b = Lambda u: what the random effects add to the deviance", file="glmm.R"),
    _criterion(
        "log_determinant", "log det (Lambda' Z'WZ Lambda + I), W the working weights at the modes", file="glmm.R"
    ),
    Quantity(
        "dispersion_pearson", "criterion", "scalar", "1", "sum of the squared Pearson residuals over n - p",
        "glm.R::dispersion_pearson", "relative", "a positive scale parameter",
    ),
    Quantity(
        "size", "criterion", "scalar", "1", "theta of the negative binomial family, var = mu + mu^2 / theta",
        "glm.R::size", "relative", "a positive scale parameter",
    ),
    Quantity(
        "se_fixef_hessian", "fixed", "coef", "y",
        "standard errors from the inverse Hessian of the criterion in theta and beta: theta's uncertainty too",
        "glmm.R::se_fixef_hessian", "relative", "positive, and compared as ratios", OWN_OPTIMUM,
    ),
    Quantity(
        "vcov_fixef_hessian", "fixed", "coef_pair", "y^2",
        "block of the fixed effects of twice the inverse Hessian of the criterion in theta and beta",
        "glmm.R::vcov_fixef_hessian", "whitened", "the same verdict whatever the units or the coding of X",
        OWN_OPTIMUM,
    ),
    _residual("eta", "1", "linear predictor X beta + Z b + offset", "glmm.R"),
    Quantity(
        "working_weights", "residual", "obs", "1",
        "W = w (dmu / deta)^2 / V(mu) at the fitted means, by which the working model is weighted",
        "glmm.R::working_weights", "scaled", "a weight near zero counts for nothing",
    ),
    _deviance_residual("resid_deviance", "signed root of each row's deviance", "glmm.R"),
    _residual("resid_working", "1", "(y - mu) / (dmu / deta)", "glmm.R"),
    _residual("rstandard_pearson", "1", "Pearson residual / sqrt(phi (1 - h)), phi the dispersion", "glm.R"),
    _deviance_residual("rstandard_deviance", "deviance residual / sqrt(phi (1 - h)), phi the dispersion", "glm.R"),
    _residual(
        "rstudent_glm", "1",
        "sign(d) sqrt(d^2 + h r^2 / (1 - h)), d deviance and r Pearson residual, over sigma_i unless it is one: "
        "R's rstudent, externally studentised",
        "glm.R",
    ),
    _influence(
        "dfbeta_one_step", "obs_coef",
        "(X'WX)^-1 x_i sqrt(W_i) r_i / (1 - h_i), r the Pearson residual: one Newton step from the full fit",
        file="glm.R",
    ),
    _influence(
        "dfbeta_r", "obs_coef",
        "(X'WX)^-1 x_i sqrt(W_i) d_i / (1 - h_i): R's dfbeta, with the deviance residual d in a glm", file="glm.R",
    ),
    _influence("dfbetas_r", "obs_coef", "dfbeta_r / (sigma_i sqrt((X'WX)^-1_kk)): R's dfbetas", file="glm.R"),
    _influence(
        "dffits_r", "obs", "d_i sqrt(h_i) / (sigma_i (1 - h_i)): R's dffits, d the deviance residual in a glm",
        file="glm.R",
    ),
)  # fmt: skip

_EVERY: tuple[Kind, ...] = ("lm", "glm", "lmm", "glmm")
_MIXED: tuple[Kind, ...] = ("lmm", "glmm")
_PLAIN: tuple[Kind, ...] = ("lm", "glm")

# Where a quantity exists for other kinds than linear mixed models.
_KINDS: dict[tuple[Kind, ...], tuple[str, ...]] = {
    _EVERY: (
        "n_obs", "p_fixed", "y_response", "x_matrix", "x_column_moments", "criterion", "loglik", "aic", "bic", "df",
        "fixef", "se_fixef", "vcov_fixef", "fitted", "resid_response", "resid_pearson", "hatvalues",
        "cooks_distance_plugin",
    ),
    _MIXED: ("q_random", "z_rows", "theta", "lambda_crossprod", "varcorr", "ranef", "condvar"),
    ("lm", "lmm", "glmm"): ("sigma",),
    ("glm", "glmm"): (
        "prior_weights", "deviance", "size", "eta", "working_weights", "resid_deviance", "resid_working",
    ),
    ("glm",): ("null_deviance", "dispersion_pearson", "rstandard_deviance"),
    _PLAIN: ("rstandard_pearson", "rstudent_glm", "dfbeta_one_step", "dfbeta_r", "dfbetas_r", "dffits_r"),
    ("glmm",): ("penalty", "log_determinant", "se_fixef_hessian", "vcov_fixef_hessian"),
}  # fmt: skip


def _with_kinds(rows: Sequence[Quantity]) -> tuple[Quantity, ...]:
    kinds = {name: kinds for kinds, names in _KINDS.items() for name in names}
    return tuple(replace(row, kinds=kinds.get(row.name, row.kinds)) for row in rows)


def _without_certificates(row: Quantity) -> Quantity:
    """Certificates are of linear mixed models, and a model without random effects has no theta."""
    lacks = ("certified",) if "glmm" in row.kinds else ("certified", "at_theta")
    return replace(row, lanes=tuple(lane for lane in row.lanes if lane not in lacks))


_ROWS = (*_with_kinds(_ROWS), *map(_without_certificates, _with_kinds(_GENERALISED)))

REGISTRY: MappingProxyType[str, Quantity] = MappingProxyType({row.name: row for row in _ROWS})
NAMES: tuple[str, ...] = tuple(REGISTRY)
DESIGN: tuple[str, ...] = tuple(row.name for row in _ROWS if row.group == "design")


def in_lane(lane: Lane) -> tuple[str, ...]:
    """Names of the quantities compared in a lane, in registry order: the design first."""
    return tuple(row.name for row in _ROWS if lane in row.lanes)


def of_kind(kind: Kind, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Those of `names` (default: all) that a kind of model has, in their order."""
    return tuple(name for name in (NAMES if names is None else names) if kind in REGISTRY[name].kinds)


def quantity(name: str) -> Quantity:
    """The row of a name.

    Raises
    ------
    KeyError
        if the registry has no such row; the message lists the nearest names.
    """
    if name in REGISTRY:
        return REGISTRY[name]
    import difflib

    near = ", ".join(difflib.get_close_matches(name, NAMES, n=3, cutoff=0.4))
    raise KeyError(f"no quantity is named {name!r}" + (f"; did you mean {near}?" if near else ""))
