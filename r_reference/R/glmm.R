# Numbers of a generalised linear mixed model (`glmer`), one function per quantity, where lme4's method for a linear one
# (quantities.R) is not the definition. `m` is a fitted glmerMod.

.scalar <- function(x) list(labels = "", values = as.double(x))

.rows <- function(m, x) list(labels = rownames(m@frame), values = as.double(x))

.pairs <- function(names) as.vector(t(outer(names, names, paste, sep = "|")))

.check_size <- function(m) {
  size <- prod(dim(lme4::getME(m, "Zt")))
  if (size > 5e7) missing_value("skipped", "a matrix of ", format(size, big.mark = ","), " cells would be needed")
}

prior_weights <- function(m) .rows(m, m@resp$weights)

criterion <- function(m) .scalar(-2 * as.double(stats::logLik(m)))

# Only one that was estimated: see sized_fit in generalised.R.
size <- function(m) {
  if (is.null(attr(m, "size"))) missing_value("undefined", "only an estimated negative binomial size is a quantity")
  .scalar(attr(m, "size"))
}

deviance <- function(m) .scalar(m@resp$resDev())

penalty <- function(m) .scalar(m@pp$sqrL(1))

log_determinant <- function(m) .scalar(m@pp$ldL2())

# --- fixed effects ----------------------------------------------------------------------------------------------

.rx <- function(m) stats::sigma(m)^2 * m@pp$unsc()

se_fixef <- function(m) list(labels = names(lme4::fixef(m)), values = sqrt(diag(.rx(m))))

vcov_fixef <- function(m) list(labels = .pairs(names(lme4::fixef(m))), values = as.vector(.rx(m)))

# lme4 inverts the Hessian it was given: of its own differences for a default fit, of fourth order for a polished one.
.hessian <- function(m) {
  if (is.null(m@optinfo$derivs$Hessian) || m@devcomp$dims[["nAGQ"]] == 0L)
    missing_value("undefined", "there is no Hessian in theta and beta")
  if (!all(vapply(lme4::getME(m, "Tlist"), .is_unique, NA)))
    missing_value("undefined", "theta is one of many with the same covariance, and each has a Hessian of its own")
  V <- withCallingHandlers(as.matrix(stats::vcov(m, use.hessian = TRUE)), warning = function(w) {
    if (grepl("falling back", conditionMessage(w))) missing_value("undefined", "the Hessian is not positive definite")
  })
  V
}

# With something behind a pivot that is zero, columns of the factor can be turned into each other and it stays lower
# triangular. Zero is what lme4's isSingular() takes for it.
.is_unique <- function(L, zero = 1e-4) {
  rest <- function(j) L[seq(j, nrow(L)), seq(j, ncol(L))]
  all(vapply(which(abs(diag(L)) < zero), function(j) max(abs(rest(j))) < zero, NA))
}

se_fixef_hessian <- function(m) list(labels = names(lme4::fixef(m)), values = sqrt(diag(.hessian(m))))

vcov_fixef_hessian <- function(m) {
  list(labels = .pairs(names(lme4::fixef(m))), values = as.vector(.hessian(m)))
}

# --- rows -------------------------------------------------------------------------------------------------------

eta <- function(m) .rows(m, m@resp$eta)

# `weights(m, "working")` are those before the last step of the inner iteration.
working_weights <- function(m) .rows(m, m@resp$sqrtWrkWt()^2)

resid_deviance <- function(m) .rows(m, stats::residuals(m, type = "deviance"))

resid_working <- function(m) .rows(m, stats::residuals(m, type = "working"))

# lme4's hatvalues mixes prior weights with factors made of the working ones ("may not make sense for GLMMs"): here the
# working weights stand in both.
.hat <- function(m) {
  .check_size(m)
  parts <- lme4::getME(m, c("L", "Lambdat", "Zt", "RX", "X", "RZX"))
  root <- Matrix::Diagonal(x = m@resp$sqrtWrkWt())
  CL <- Matrix::solve(parts$L, Matrix::solve(parts$L, parts$Lambdat %*% parts$Zt %*% root, system = "P"), system = "L")
  CR <- Matrix::solve(Matrix::t(parts$RX), Matrix::t(parts$X) %*% root - Matrix::crossprod(parts$RZX, CL))
  as.double(Matrix::colSums(CR^2) + Matrix::colSums(CL^2))
}

hatvalues <- function(m) .rows(m, .hat(m))

cooks_distance_plugin <- function(m) {
  need_fixed_effects(length(lme4::fixef(m)))
  h <- .hat(m)
  r <- stats::residuals(m, type = "pearson")
  .rows(m, (r / (1 - h))^2 * h / (stats::sigma(m)^2 * ncol(lme4::getME(m, "X"))))
}
