# HLMdiag's own numbers, where that package is installed. One function per quantity, `hlmdiag_` before its name; `m`
# is a fitted merMod.
#
# HLMdiag returns group results without labels, in two orders: one-step measures in order of first appearance,
# leverages in order of the factor's levels. Its definitions ignore prior weights and offsets; a model with either is
# declared unsupported here, so that a different definition is not mistaken for a wrong number.

.require <- function(m) {
  if (!requireNamespace("HLMdiag", quietly = TRUE)) missing_value("unsupported", "HLMdiag is not installed")
  if (any(stats::weights(m, type = "prior") != 1)) missing_value("unsupported", "HLMdiag ignores prior weights")
  if (any(lme4::getME(m, "offset") != 0)) missing_value("unsupported", "HLMdiag ignores offsets")
  if (stats::nobs(m) > 1500) missing_value("skipped", "HLMdiag holds several n x n matrices")
}

.require_nested <- function(m) {
  factors <- lme4::getME(m, "flist")
  for (i in seq_along(factors)[-1])
    if (!lme4::isNested(factors[[i - 1]], factors[[i]]))
      missing_value("undefined", "HLMdiag has no such result for crossed factors")
}

.rows <- function(m, x) list(labels = rownames(m@frame), values = as.double(x))

.by_factor <- function(m, f, order) {
  factors <- lme4::getME(m, "flist")
  parts <- lapply(names(factors), function(name) {
    list(labels = paste(name, order(factors[[name]]), sep = "|"), values = as.double(f(name)))
  })
  list(labels = unlist(lapply(parts, `[[`, "labels")), values = unlist(lapply(parts, `[[`, "values")))
}

.appearance <- function(f) as.character(unique(f))

.method <- function(generic) utils::getS3method(generic, "lmerMod", envir = asNamespace("HLMdiag"))

.measure_rows <- function(m, generic) {
  .require(m)
  .rows(m, .method(generic)(m, level = 1))
}

.measure_levels <- function(m, generic) {
  .require(m)
  .by_factor(m, function(name) .method(generic)(m, level = name), .appearance)
}

.leverage_rows <- function(m, part) {
  .require(m)
  .require_nested(m)
  .rows(m, .method("leverage")(m, level = 1)[[part]])
}

.leverage_levels <- function(m, part) {
  .require(m)
  .require_nested(m)
  .by_factor(m, function(name) .method("leverage")(m, level = name)[[part]], levels)
}

hlmdiag_cooks_distance_marginal <- function(m) .measure_rows(m, "cooks.distance")

hlmdiag_mdffits_marginal <- function(m) .measure_rows(m, "mdffits")

hlmdiag_covtrace_marginal <- function(m) .measure_rows(m, "covtrace")

hlmdiag_covratio_marginal <- function(m) .measure_rows(m, "covratio")

hlmdiag_cooks_distance_marginal_group <- function(m) .measure_levels(m, "cooks.distance")

hlmdiag_mdffits_marginal_group <- function(m) .measure_levels(m, "mdffits")

hlmdiag_covtrace_marginal_group <- function(m) .measure_levels(m, "covtrace")

hlmdiag_covratio_marginal_group <- function(m) .measure_levels(m, "covratio")

hlmdiag_leverage_overall <- function(m) .leverage_rows(m, "overall")

hlmdiag_leverage_fixef <- function(m) .leverage_rows(m, "fixef")

hlmdiag_leverage_ranef <- function(m) .leverage_rows(m, "ranef")

hlmdiag_leverage_ranef_uc <- function(m) .leverage_rows(m, "ranef.uc")

hlmdiag_leverage_overall_group <- function(m) .leverage_levels(m, "overall")

hlmdiag_leverage_fixef_group <- function(m) .leverage_levels(m, "fixef")

hlmdiag_leverage_ranef_group <- function(m) .leverage_levels(m, "ranef")

hlmdiag_leverage_ranef_uc_group <- function(m) .leverage_levels(m, "ranef.uc")

# --- residuals --------------------------------------------------------------------------------------------------

.residual <- function(m, generic, type) {
  .require(m)
  .rows(m, .method(generic)(m, type = type))
}

hlmdiag_resid_response <- function(m) .residual(m, "resid_conditional", "raw")

hlmdiag_resid_conditional_studentized <- function(m) .residual(m, "resid_conditional", "studentized")

hlmdiag_resid_marginal <- function(m) .residual(m, "resid_marginal", "raw")

hlmdiag_resid_marginal_pearson <- function(m) .residual(m, "resid_marginal", "pearson")

hlmdiag_resid_marginal_studentized <- function(m) .residual(m, "resid_marginal", "studentized")

hlmdiag_resid_marginal_cholesky <- function(m) .residual(m, "resid_marginal", "cholesky")

.residual_column <- function(m, column) {
  .require(m)
  .require_nested(m)
  .rows(m, .method("hlm_resid")(m, level = 1)[[column]])
}

hlmdiag_fitted_marginal <- function(m) .residual_column(m, ".mar.fitted")

hlmdiag_fitted_ls <- function(m) .separate_fit(m, ".ls.fitted")

hlmdiag_resid_ls <- function(m) .separate_fit(m, ".ls.resid")

# HLMdiag takes the first column of X for the intercept, whatever it is.
.separate_fit <- function(m, column) {
  if (any(lme4::getME(m, "X")[, 1] != 1)) missing_value("unsupported", "HLMdiag needs an intercept here")
  .residual_column(m, column)
}
