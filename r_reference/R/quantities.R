# lme4's own numbers, one function per quantity, named as the quantity. `m` is a fitted merMod; each function returns
# list(labels, values). First-class names of lme4 and stats are called with their package, since some of the
# functions here have the same name.

.scalar <- function(x) list(labels = "", values = as.double(x))

.rows <- function(m, x) list(labels = rownames(m@frame), values = as.double(x))

.pairs <- function(names) as.vector(t(outer(names, names, paste, sep = "|")))

# Prediction-variance computations hold a q x n matrix.
.check_size <- function(m) {
  size <- prod(dim(lme4::getME(m, "Zt")))
  if (size > 5e7) missing_value("skipped", "a matrix of ", format(size, big.mark = ","), " cells would be needed")
}

# --- design -----------------------------------------------------------------------------------------------------

n_obs <- function(m) .scalar(stats::nobs(m))

p_fixed <- function(m) .scalar(ncol(lme4::getME(m, "X")))

q_random <- function(m) .scalar(nrow(lme4::getME(m, "Zt")))

y_response <- function(m) .rows(m, lme4::getME(m, "y"))

x_matrix <- function(m) {
  X <- lme4::getME(m, "X")
  if (length(X) > 20000) missing_value("skipped", "X has ", length(X), " cells; see x_column_moments")
  list(labels = as.vector(t(outer(rownames(m@frame), colnames(X), paste, sep = "|"))), values = as.vector(t(X)))
}

x_column_moments <- function(m) {
  X <- lme4::getME(m, "X")
  moments <- rbind(sum = colSums(X), sumsq = colSums(X^2), dot_y = drop(crossprod(X, lme4::getME(m, "y"))))
  list(labels = as.vector(outer(rownames(moments), colnames(X), function(a, b) paste(b, a, sep = "|"))),
       values = as.vector(moments))
}

z_rows <- function(m) {
  factors <- lme4::getME(m, "flist")
  rows <- rownames(m@frame)
  list(labels = unlist(lapply(names(factors), paste, rows, sep = "|")),
       values = as.double(unlist(lapply(factors, as.integer), use.names = FALSE) - 1L))
}

# --- criterion --------------------------------------------------------------------------------------------------

criterion <- function(m) .scalar(if (lme4::isREML(m)) lme4::REMLcrit(m) else stats::deviance(m))

loglik <- function(m) .scalar(stats::logLik(m))

aic <- function(m) .scalar(stats::AIC(stats::logLik(m)))

bic <- function(m) .scalar(stats::BIC(stats::logLik(m)))

df <- function(m) .scalar(attr(stats::logLik(m), "df"))

sigma <- function(m) .scalar(stats::sigma(m))

# --- fixed effects ----------------------------------------------------------------------------------------------

fixef <- function(m) {
  beta <- lme4::fixef(m)
  list(labels = names(beta), values = as.double(beta))
}

se_fixef <- function(m) list(labels = names(lme4::fixef(m)), values = sqrt(diag(as.matrix(stats::vcov(m)))))

vcov_fixef <- function(m) list(labels = .pairs(names(lme4::fixef(m))), values = as.vector(as.matrix(stats::vcov(m))))

# --- random effects ---------------------------------------------------------------------------------------------

theta <- function(m) {
  theta <- lme4::getME(m, "theta")
  list(labels = names(theta), values = as.double(theta))
}

.by_term <- function(m, matrices) {
  names <- m@cnms
  list(labels = unlist(Map(function(group, effects) paste(group, .pairs(effects), sep = "|"), names(names), names),
                       use.names = FALSE),
       values = as.double(unlist(lapply(matrices, as.vector), use.names = FALSE)))
}

lambda_crossprod <- function(m) .by_term(m, lapply(lme4::getME(m, "Tlist"), tcrossprod))

varcorr <- function(m) {
  result <- .by_term(m, lme4::VarCorr(m))
  list(labels = c(result$labels, "Residual"), values = c(result$values, stats::sigma(m)^2))
}

ranef <- function(m) {
  modes <- lme4::ranef(m, condVar = FALSE)
  label <- function(group) {
    levels <- rownames(modes[[group]])
    effects <- colnames(modes[[group]])
    paste(group, rep(levels, each = length(effects)), rep(effects, length(levels)), sep = "|")
  }
  list(labels = unlist(lapply(names(modes), label)),
       values = unlist(lapply(modes, function(b) as.vector(t(as.matrix(b)))), use.names = FALSE))
}

# One array per term of a factor: covariances between the terms of one factor are not part of lme4's result.
condvar <- function(m) {
  .check_size(m)
  modes <- lme4::ranef(m, condVar = TRUE)
  parts <- lapply(names(modes), function(group) {
    arrays <- attr(modes[[group]], "postVar")
    if (!is.list(arrays)) arrays <- list(arrays)
    effects <- m@cnms[names(m@cnms) == group]
    Map(.condvar_term, arrays, effects, group, list(rownames(modes[[group]])))
  })
  parts <- unlist(parts, recursive = FALSE)
  list(labels = unlist(lapply(parts, `[[`, "labels")), values = unlist(lapply(parts, `[[`, "values")))
}

.condvar_term <- function(array, effects, group, levels) {
  pairs <- .pairs(effects)
  list(labels = paste(group, rep(levels, each = length(pairs)), rep(pairs, length(levels)), sep = "|"),
       values = as.double(array))
}

# --- rows -------------------------------------------------------------------------------------------------------

fitted <- function(m) .rows(m, stats::fitted(m))

resid_response <- function(m) .rows(m, stats::residuals(m, type = "response"))

resid_pearson <- function(m) .rows(m, stats::residuals(m, type = "pearson"))

resid_scaled <- function(m) .rows(m, stats::residuals(m, type = "pearson", scaled = TRUE))

hatvalues <- function(m) {
  .check_size(m)
  .rows(m, .lme4_method("hatvalues")(m))
}

rstudent_lme4 <- function(m) {
  .check_size(m)
  .rows(m, .lme4_method("rstudent")(m))
}

cooks_distance_plugin <- function(m) {
  .check_size(m)
  need_fixed_effects(length(m@beta))
  .rows(m, .lme4_method("cooks.distance")(m))
}

# By name and class: a package that registers a method for lmerMod (HLMdiag does) would win the dispatch.
.lme4_method <- function(generic) utils::getS3method(generic, "merMod", envir = asNamespace("lme4"))
