# R's own numbers for a model without random effects (`lm`, `glm`, `glm.nb`), one function per quantity. `m` is the fitted
# model. A quantity that mixed models have too has its definition there (quantities.R) and its function of the same
# name here.

.scalar <- function(x) list(labels = "", values = as.double(x))

.rows <- function(m, x) list(labels = rownames(stats::model.frame(m)), values = as.double(x))

.pairs <- function(names) as.vector(t(outer(names, names, paste, sep = "|")))

.coef <- function(m) {
  beta <- stats::coef(m)
  beta[!is.na(beta)]
}

.X <- function(m) stats::model.matrix(m)[, names(.coef(m)), drop = FALSE]

.is_glm <- function(m) inherits(m, "glm")

# summary.glm estimates the dispersion of a negative binomial of given size, which is one by definition.
.dispersion <- function(m) {
  known <- m$family$family %in% c("binomial", "poisson") || startsWith(m$family$family, "Negative Binomial")
  if (known) 1 else summary(m)$dispersion
}

.vcov <- function(m) {
  V <- if (.is_glm(m)) .dispersion(m) * summary(m)$cov.unscaled else stats::vcov(m, complete = FALSE)
  V[names(.coef(m)), names(.coef(m)), drop = FALSE]
}

.only_glm <- function(m) if (!.is_glm(m)) missing_value("undefined", "of a generalised model only")

# --- design -----------------------------------------------------------------------------------------------------

n_obs <- function(m) .scalar(stats::nobs(m))

p_fixed <- function(m) .scalar(m$rank)

y_response <- function(m) .rows(m, if (.is_glm(m)) m$y else stats::model.response(stats::model.frame(m)))

prior_weights <- function(m) .rows(m, if (is.null(stats::weights(m, "prior"))) rep(1, length(stats::fitted(m))) else
  stats::weights(m, "prior"))

x_matrix <- function(m) {
  X <- .X(m)
  if (length(X) > 20000) missing_value("skipped", "X has ", length(X), " cells; see x_column_moments")
  list(labels = as.vector(t(outer(rownames(stats::model.frame(m)), colnames(X), paste, sep = "|"))),
       values = as.vector(t(X)))
}

x_column_moments <- function(m) {
  X <- .X(m)
  moments <- rbind(sum = colSums(X), sumsq = colSums(X^2), dot_y = drop(crossprod(X, y_response(m)$values)))
  list(labels = as.vector(outer(rownames(moments), colnames(X), function(a, b) paste(b, a, sep = "|"))),
       values = as.vector(moments))
}

# --- likelihood -------------------------------------------------------------------------------------------------

criterion <- function(m) .scalar(-2 * as.double(stats::logLik(m)))

loglik <- function(m) .scalar(stats::logLik(m))

aic <- function(m) .scalar(stats::AIC(m))

bic <- function(m) .scalar(stats::BIC(m))

df <- function(m) .scalar(attr(stats::logLik(m), "df"))

sigma <- function(m) .scalar(stats::sigma(m))

deviance <- function(m) .scalar(stats::deviance(m))

null_deviance <- function(m) .scalar(m$null.deviance)

dispersion_pearson <- function(m) .scalar(sum(stats::residuals(m, type = "pearson")^2) / stats::df.residual(m))

size <- function(m) {
  if (!inherits(m, "negbin")) missing_value("undefined", "only an estimated negative binomial size is a quantity")
  .scalar(m$theta)
}

# --- coefficients -----------------------------------------------------------------------------------------------

fixef <- function(m) list(labels = names(.coef(m)), values = as.double(.coef(m)))

se_fixef <- function(m) list(labels = names(.coef(m)), values = as.double(sqrt(diag(.vcov(m)))))

vcov_fixef <- function(m) list(labels = .pairs(names(.coef(m))), values = as.vector(.vcov(m)))

# --- rows -------------------------------------------------------------------------------------------------------

fitted <- function(m) .rows(m, stats::fitted(m))

eta <- function(m) .rows(m, m$linear.predictors)

working_weights <- function(m) .rows(m, m$weights)

resid_response <- function(m) .rows(m, stats::residuals(m, type = "response"))

resid_pearson <- function(m) .rows(m, stats::residuals(m, type = "pearson"))

resid_deviance <- function(m) .rows(m, stats::residuals(m, type = "deviance"))

resid_working <- function(m) .rows(m, stats::residuals(m, type = "working"))

rstandard_pearson <- function(m) {
  if (!.is_glm(m)) return(.rows(m, stats::rstandard(m)))
  .rows(m, stats::residuals(m, type = "pearson") / sqrt(.dispersion(m) * (1 - stats::hatvalues(m))))
}

rstandard_deviance <- function(m) {
  .rows(m, stats::residuals(m, type = "deviance") / sqrt(.dispersion(m) * (1 - stats::hatvalues(m))))
}

rstudent_glm <- function(m) .rows(m, stats::rstudent(m))

hatvalues <- function(m) .rows(m, stats::hatvalues(m))

cooks_distance_plugin <- function(m) {
  need_fixed_effects(length(stats::coef(m)))
  if (!.is_glm(m)) return(.rows(m, stats::cooks.distance(m)))
  .rows(m, stats::cooks.distance(m, dispersion = .dispersion(m)))
}

.row_coef <- function(m, x) {
  list(labels = as.vector(t(outer(rownames(stats::model.frame(m)), names(.coef(m)), paste, sep = "|"))),
       values = as.vector(t(x[, names(.coef(m)), drop = FALSE])))
}

# One Newton step from the full fit.
dfbeta_one_step <- function(m) {
  X <- .X(m)
  W <- if (.is_glm(m)) m$weights else prior_weights(m)$values
  r <- stats::residuals(m, type = "pearson")
  .row_coef(m, (X * (sqrt(W) * r / (1 - stats::hatvalues(m)))) %*% solve(crossprod(X, W * X)))
}

dfbeta_r <- function(m) .row_coef(m, stats::dfbeta(m))

dfbetas_r <- function(m) .row_coef(m, stats::dfbetas(m))

dffits_r <- function(m) .rows(m, stats::dffits(m))
