# Residuals of groups: predicted random effects, standardised two ways, and deviations of separate least-squares fits.
# One function per quantity; `m` is a fitted merMod.

# Per term: list(group, effects, levels, b (levels x effects)), from lme4's modes.
.terms <- function(m) {
  modes <- lme4::ranef(m, condVar = FALSE)
  groups <- names(m@cnms)
  taken <- list()
  lapply(seq_along(groups), function(t) {
    group <- groups[t]
    used <- if (is.null(taken[[group]])) 0L else taken[[group]]
    columns <- used + seq_along(m@cnms[[t]])
    taken[[group]] <<- max(columns)
    table <- modes[[group]]
    list(group = group, effects = m@cnms[[t]], levels = rownames(table), b = as.matrix(table)[, columns, drop = FALSE])
  })
}

.labelled <- function(parts) {
  labels <- lapply(parts, function(part) {
    k <- length(part$effects)
    paste(part$group, rep(part$levels, each = k), rep(part$effects, length(part$levels)), sep = "|")
  })
  list(labels = unlist(labels), values = as.double(unlist(lapply(parts, function(part) t(part$b)))))
}

# sigma^2 times the diagonal of Lambda (Lambda' Z' W Z Lambda + I)^-1 Lambda', one term after the other.
.posterior_variances <- function(m) {
  Z <- t(as.matrix(lme4::getME(m, "Zt")))
  if (length(Z) > 5e6) missing_value("skipped", "a matrix of ", length(Z), " cells would be needed")
  Lambda <- t(as.matrix(lme4::getME(m, "Lambdat")))
  A <- Z %*% Lambda * sqrt(stats::weights(m, type = "prior"))
  half <- backsolve(chol(crossprod(A) + diag(ncol(A))), t(Lambda), transpose = TRUE)
  variances <- stats::sigma(m)^2 * colSums(half^2)
  sizes <- diff(lme4::getME(m, "Gp"))
  split(variances, rep(seq_along(sizes), sizes))
}

ranef_std_lme4 <- function(m) {
  parts <- Map(function(part, v) {
    part$b <- part$b / sqrt(matrix(v, nrow(part$b), byrow = TRUE))
    part
  }, .terms(m), .posterior_variances(m))
  .labelled(parts)
}

ranef_std_nlme <- function(m) {
  parts <- Map(function(part, T) {
    part$b <- part$b / rep(stats::sigma(m) * sqrt(rowSums(T^2)), each = nrow(part$b))
    part
  }, .terms(m), lme4::getME(m, "Tlist"))
  .labelled(parts)
}

# --- least squares in every level -------------------------------------------------------------------------------

# Coefficients of the fixed part fitted in each level of a factor: levels x p, NA where aliased there.
.separate_coefficients <- function(m, f) {
  X <- lme4::getME(m, "X")
  s <- sqrt(stats::weights(m, type = "prior"))
  y <- lme4::getME(m, "y") - lme4::getME(m, "offset")
  rows <- split(seq_along(y), f)
  t(vapply(rows, function(i) {
    found <- stats::.lm.fit(X[i, , drop = FALSE] * s[i], y[i] * s[i], tol = 1e-7)
    estimable <- found$pivot[seq_len(found$rank)]
    replace(rep(NA_real_, ncol(X)), estimable, found$coefficients[seq_len(found$rank)])
  }, numeric(ncol(X))))
}

# The factor that holds each level of the factor whole, with most levels among those that do: levels of it, or one
# constant if there is none.
.parents <- function(m, name) {
  factors <- lapply(lme4::getME(m, "flist"), droplevels)
  f <- factors[[name]]
  first <- match(levels(f), f)
  outer <- Filter(function(g) nlevels(g) < nlevels(f) && all(g == g[first][as.integer(f)]), factors)
  if (!length(outer)) return(rep("all", nlevels(f)))
  as.character(outer[[which.max(vapply(outer, nlevels, 0L))]][first])
}

# Coefficient less its unweighted mean over levels with the same parent.
.deviations <- function(m) {
  lapply(.terms(m), function(part) {
    f <- droplevels(lme4::getME(m, "flist")[[part$group]])
    X <- lme4::getME(m, "X")
    part$effects <- intersect(part$effects, colnames(X))
    coefficients <- matrix(.separate_coefficients(m, f), ncol = ncol(X))[, match(part$effects, colnames(X)), drop = FALSE]
    part$order <- match(levels(f), part$levels)
    part$levels <- levels(f)
    part$modes <- part$b[part$order, part$effects, drop = FALSE]
    parents <- .parents(m, part$group)
    part$b <- apply(coefficients, 2, function(x) x - stats::ave(x, parents, FUN = function(v) mean(v, na.rm = TRUE)))
    part
  })
}

.any_deviation <- function(m) {
  parts <- .deviations(m)
  if (!length(unlist(lapply(parts, `[[`, "effects"))))
    missing_value("undefined", "no random effect has a fixed effect of its name")
  Filter(function(part) length(part$effects) > 0, parts)
}

ranef_ls <- function(m) .labelled(.any_deviation(m))

ranef_ls_std <- function(m) {
  .labelled(lapply(.any_deviation(m), function(part) {
    spread <- apply(part$b, 2, stats::sd, na.rm = TRUE)
    part$b <- part$b / rep(spread, each = nrow(part$b))
    part
  }))
}

compare_eb_ls <- function(m) {
  .labelled(lapply(.any_deviation(m), function(part) {
    part$b <- part$b - part$modes
    part
  }))
}

# --- variance components ----------------------------------------------------------------------------------------

# sigma^2, then the lower triangle of each term's covariance, column by column; D<row><column> of the joint matrix.
varcomp <- function(m) {
  blocks <- lapply(lme4::getME(m, "Tlist"), function(T) stats::sigma(m)^2 * tcrossprod(T))
  ends <- cumsum(vapply(blocks, nrow, 0L))
  labels <- Map(function(S, end) {
    at <- which(lower.tri(S, TRUE), arr.ind = TRUE) + end - nrow(S)
    paste0("D", at[, 1], if (max(ends) > 9) "_", at[, 2])
  }, blocks, ends)
  list(labels = c("sigma2", unlist(labels, use.names = FALSE)),
       values = c(stats::sigma(m)^2, unlist(lapply(blocks, function(S) S[lower.tri(S, TRUE)]), use.names = FALSE)))
}
