# Exact deletion: rows or levels left out, and the whole model fitted again by lme4, one refit after the other.
#
# A refit keeps what the full fit was: REML or ML, weights, offset, coding, and the columns of X (poly() keeps its
# basis). It is lme4's own criterion on the rows left, minimised from the full theta and from lme4's start, then
# tightened by Newton steps on high-order differences of the criterion: values alone fix theta to about 1e-7 only.
# A refit whose gradient does not vanish, or that fails, is warned of by name.
#
# `w` is what the functions share: m (the full fit), limit (of .cost of a family), and the refits made.
# With b, C, s2 of the full fit, b_i, C_i of the refit, d = b - b_i. A coefficient that the rows left do not determine
# is NaN, and so are the measures of that unit.

.GRADIENT <- 1e-5  # deviance units per unit of theta, above which a refit counts as not converged

.deletions <- function(m, limit) {
  list2env(list(m = m, limit = if (is.null(limit)) 5000 else as.double(limit)), parent = emptyenv())
}

# --- one refit ---------------------------------------------------------------------------------------------------

.refit <- function(m, gone, unit) {
  tryCatch({
    pieces <- .rows_left(m, gone)
    found <- .minimum(pieces)
    if (!(found$gradient < .GRADIENT))
      warning("the refit without ", unit, " did not converge: gradient ", signif(found$gradient, 2), call. = FALSE)
    .estimates(m, pieces, found)
  }, error = function(e) {
    warning("no refit without ", unit, ": ", conditionMessage(e), call. = FALSE)
    .no_estimates(m)
  })
}

# Levels that lose all their rows stay: they add nothing to the criterion.
.rows_left <- function(m, gone) {
  fr <- m@frame[-gone, , drop = FALSE]
  attr(fr, "terms") <- attr(m@frame, "terms")
  X <- lme4::getME(m, "X")[-gone, , drop = FALSE]
  decomposition <- qr(X)
  X <- X[, sort(decomposition$pivot[seq_len(decomposition$rank)]), drop = FALSE]
  re <- lme4::getME(m, c("theta", "Lambdat", "Lind", "lower", "flist", "cnms", "Gp"))
  re$Zt <- lme4::getME(m, "Zt")[, -gone, drop = FALSE]
  # lme4 writes into these vectors in place: without a copy each refit would move the full fit.
  re$theta <- unname(re$theta) + 0
  re$Lambdat@x <- re$Lambdat@x + 0
  re$flist <- structure(lapply(re$flist, `[`, -gone), assign = attr(re$flist, "assign"))
  list(fr = fr, reTrms = re, X = X, devfun = lme4::mkLmerDevfun(fr, X, re, REML = lme4::isREML(m)))
}

.minimum <- function(pieces) {
  problem <- optimisation_problem(pieces)
  full <- pieces$reTrms$theta
  diagonal <- problem$lower == 0
  starts <- unique(list(ifelse(diagonal & full < 0.1, 0.1, full), as.double(diagonal)))
  found <- lapply(starts, function(theta) search_from(problem, theta, "start"))
  best <- found[[which.min(vapply(found, `[[`, 0, "value"))]]
  .stationary(problem, to_boundary(problem, best))
}

# Newton on the parameters that are not held at zero.
.stationary <- function(problem, found) {
  free <- which(!(problem$lower == 0 & found$theta == 0))
  gradient <- 0
  for (i in seq_len(6)) {
    slope <- .slope(problem, found$theta, free)
    gradient <- max(abs(slope), 0)
    if (!length(free) || gradient < 1e-9) break
    step <- .newton_step(.curvature(problem, found$theta, free), slope)
    theta <- replace(found$theta, free, found$theta[free] - step)
    value <- problem$value(theta)
    if (max(abs(step)) > 0.3 || value > found$value + 1e-10 * (1 + abs(found$value))) {
      found <- bobyqa_from(problem, found)
      next
    }
    found <- list(theta = theta, value = value)
  }
  c(found[c("theta", "value")], list(gradient = gradient))
}

.newton_step <- function(H, g) {
  e <- eigen(H, symmetric = TRUE)
  used <- e$values > 1e-8 * max(e$values)
  V <- e$vectors[, used, drop = FALSE]
  drop(V %*% (crossprod(V, g) / e$values[used]))
}

.width <- function(x) 0.02 * max(abs(x), 0.1)

# Central differences at three widths, extrapolated: the error is of sixth order.
.slope <- function(problem, theta, free) {
  vapply(free, function(j) {
    d <- vapply(.width(theta[j]) / c(1, 2, 4), function(h) {
      (problem$value(replace(theta, j, theta[j] + h)) - problem$value(replace(theta, j, theta[j] - h))) / (2 * h)
    }, 0)
    first <- (4 * d[-1] - d[-3]) / 3
    (16 * first[2] - first[1]) / 15
  }, 0)
}

.curvature <- function(problem, theta, free) {
  k <- length(free)
  H <- matrix(0, k, k)
  at <- problem$value(theta)
  h <- vapply(theta[free], .width, 0) / 2
  move <- function(i, a, j, b) {
    x <- theta
    x[free[i]] <- x[free[i]] + a * h[i]
    x[free[j]] <- x[free[j]] + b * h[j]
    problem$value(x)
  }
  for (i in seq_len(k)) for (j in seq_len(i)) {
    H[i, j] <- H[j, i] <- if (i == j) (move(i, 1, j, 0) - 2 * at + move(i, -1, j, 0)) / h[i]^2
      else (move(i, 1, j, 1) - move(i, 1, j, -1) - move(i, -1, j, 1) + move(i, -1, j, -1)) / (4 * h[i] * h[j])
  }
  H
}

.estimates <- function(m, pieces, found) {
  value <- pieces$devfun(found$theta)
  opt <- list(par = found$theta, fval = value, conv = 0L, message = "", feval = 1L)
  refit <- lme4::mkMerMod(environment(pieces$devfun), opt, pieces$reTrms, pieces$fr)
  out <- .no_estimates(m)
  out$beta[names(lme4::fixef(refit))] <- lme4::fixef(refit)
  C <- as.matrix(stats::vcov(refit))
  out$C[rownames(C), colnames(C)] <- C
  out$criterion <- value
  out$sigma <- stats::sigma(refit)
  out$Sigma <- lapply(lme4::getME(refit, "Tlist"), tcrossprod)
  out
}

.no_estimates <- function(m) {
  names <- names(lme4::fixef(m))
  list(beta = structure(rep(NaN, length(names)), names = names),
       C = matrix(NaN, length(names), length(names), dimnames = list(names, names)),
       criterion = NaN, sigma = NaN, Sigma = lapply(lengths(m@cnms), function(k) matrix(NaN, k, k)))
}

# --- families of refits ------------------------------------------------------------------------------------------

# list(unit label -> refit), one family per factor; families above the limit are left out.
.row_refits <- function(w) {
  if (is.null(w$by_row)) {
    n <- stats::nobs(w$m)
    if (.cost(n, w$m) > w$limit) .too_many(w, n, "row")
    rows <- rownames(w$m@frame)
    w$by_row <- list(.family(w$m, structure(as.list(seq_len(n)), names = rows), paste("row", rows)))
  }
  w$by_row
}

.level_refits <- function(w) {
  if (is.null(w$by_level)) {
    factors <- lapply(lme4::getME(w$m, "flist"), droplevels)
    sizes <- vapply(factors, nlevels, 0L)
    small <- .cost(sizes, w$m) <= w$limit
    if (!any(small)) .too_many(w, min(sizes), "level")
    w$by_level <- lapply(names(factors)[small], function(name) {
      sets <- split(seq_along(factors[[name]]), factors[[name]])
      names(sets) <- paste(name, names(sets), sep = "|")
      .family(w$m, sets, names(sets))
    })
  }
  w$by_level
}

# Refitted rows; the overhead of a refit is that of 125 rows.
.cost <- function(refits, m) as.double(refits) * max(stats::nobs(m), 125)

.too_many <- function(w, refits, unit) {
  missing_value("skipped", refits, " refits, one per ", unit, ", of ", stats::nobs(w$m),
                " rows; the limit is ", format(w$limit, big.mark = ","), " refitted rows")
}

.family <- function(m, sets, units) Map(function(gone, unit) .refit(m, gone, unit), sets, units)

# --- from refits to labelled values ------------------------------------------------------------------------------

# f gives a scalar, or a vector for the labels `parts`; K is the number of units of the family.
.each <- function(families, f, parts = NULL) {
  one <- function(family) {
    values <- lapply(family, f, K = length(family))
    labels <- if (is.null(parts)) names(family)
              else if (!length(parts)) character(0)
              else paste(rep(names(family), each = length(parts)), parts, sep = "|")
    list(labels = labels, values = unlist(values, use.names = FALSE))
  }
  found <- lapply(families, one)
  list(labels = unlist(lapply(found, `[[`, "labels")), values = as.double(unlist(lapply(found, `[[`, "values"))))
}

.coefficients <- function(w) as.character(names(lme4::fixef(w$m)))

.coefficient_pairs <- function(w) as.vector(t(outer(.coefficients(w), .coefficients(w), paste, sep = "|")))

.covariance_labels <- function(w) {
  pairs <- function(x) as.vector(t(outer(x, x, paste, sep = "|")))
  unlist(Map(function(group, effects) paste(group, pairs(effects), sep = "|"), names(w$m@cnms), w$m@cnms),
         use.names = FALSE)
}

.full_C <- function(w) as.matrix(stats::vcov(w$m))

.distance <- function(d, C) if (anyNA(d) || anyNA(C)) NaN else sum(d * solve_covariance(C, d)) / length(d)

.moved <- function(w, refit) lme4::fixef(w$m) - refit$beta

# sigma^2 and the lower triangles of the covariances of all terms, column by column; D<row><column> of the joint matrix.
.components <- function(Sigma, sigma) {
  ends <- cumsum(vapply(Sigma, nrow, 0L))
  labels <- Map(function(S, end) {
    at <- which(lower.tri(S, TRUE), arr.ind = TRUE) + end - nrow(S)
    paste0("D", at[, 1], if (max(ends) > 9) "_", at[, 2])
  }, Sigma, ends)
  list(labels = c("sigma2", unlist(labels, use.names = FALSE)),
       values = sigma^2 * c(1, unlist(lapply(Sigma, function(S) S[lower.tri(S, TRUE)]), use.names = FALSE)))
}

.full_components <- function(w) {
  .components(lapply(lme4::getME(w$m, "Tlist"), tcrossprod), stats::sigma(w$m))
}

# --- the estimates without each unit -----------------------------------------------------------------------------

.criterion <- function(w, families) .each(families, function(refit, K) refit$criterion)

.sigma <- function(w, families) .each(families, function(refit, K) refit$sigma)

.fixef <- function(w, families) .each(families, function(refit, K) refit$beta, .coefficients(w))

.vcov <- function(w, families) .each(families, function(refit, K) as.vector(t(refit$C)), .coefficient_pairs(w))

.crossprod <- function(w, families) {
  .each(families, function(refit, K) unlist(lapply(refit$Sigma, as.vector)), .covariance_labels(w))
}

.varcomp <- function(w, families) {
  .each(families, function(refit, K) .components(refit$Sigma, refit$sigma)$values, .full_components(w)$labels)
}

deletion_criterion <- function(w) .criterion(w, .row_refits(w))

deletion_sigma <- function(w) .sigma(w, .row_refits(w))

deletion_fixef <- function(w) .fixef(w, .row_refits(w))

deletion_vcov_fixef <- function(w) .vcov(w, .row_refits(w))

deletion_lambda_crossprod <- function(w) .crossprod(w, .row_refits(w))

deletion_varcomp <- function(w) .varcomp(w, .row_refits(w))

deletion_criterion_group <- function(w) .criterion(w, .level_refits(w))

deletion_sigma_group <- function(w) .sigma(w, .level_refits(w))

deletion_fixef_group <- function(w) .fixef(w, .level_refits(w))

deletion_vcov_fixef_group <- function(w) .vcov(w, .level_refits(w))

deletion_lambda_crossprod_group <- function(w) .crossprod(w, .level_refits(w))

deletion_varcomp_group <- function(w) .varcomp(w, .level_refits(w))

# --- HLMdiag's measures of refits --------------------------------------------------------------------------------

.cooks <- function(w, families) {
  need_fixed_effects(length(.coefficients(w)))
  C <- .full_C(w)
  .each(families, function(refit, K) .distance(.moved(w, refit), C))
}

.mdffits <- function(w, families) {
  need_fixed_effects(length(.coefficients(w)))
  .each(families, function(refit, K) .distance(.moved(w, refit), refit$C))
}

.covtrace <- function(w, families) {
  need_fixed_effects(length(.coefficients(w)))
  C <- .full_C(w)
  .each(families, function(refit, K) if (anyNA(refit$C)) NaN else abs(sum(diag(solve_covariance(C, refit$C))) - nrow(C)))
}

.covratio <- function(w, families) {
  need_fixed_effects(length(.coefficients(w)))
  C <- .full_C(w)
  .each(families, function(refit, K) if (anyNA(refit$C)) NaN else det(solve_covariance(C, refit$C)))
}

# Covariances and variances alike; infinite, or NaN, where the full component is zero.
.rvc <- function(w, families) {
  full <- .full_components(w)
  .each(families, function(refit, K) .components(refit$Sigma, refit$sigma)$values / full$values - 1, full$labels)
}

cooks_distance_refit <- function(w) .cooks(w, .row_refits(w))

mdffits_refit <- function(w) .mdffits(w, .row_refits(w))

covtrace_refit <- function(w) .covtrace(w, .row_refits(w))

covratio_refit <- function(w) .covratio(w, .row_refits(w))

rvc <- function(w) .rvc(w, .row_refits(w))

cooks_distance_refit_group <- function(w) .cooks(w, .level_refits(w))

mdffits_refit_group <- function(w) .mdffits(w, .level_refits(w))

covtrace_refit_group <- function(w) .covtrace(w, .level_refits(w))

covratio_refit_group <- function(w) .covratio(w, .level_refits(w))

rvc_group <- function(w) .rvc(w, .level_refits(w))

# --- lme4's measures of refits -----------------------------------------------------------------------------------

.dfbeta <- function(w, families) .each(families, function(refit, K) -.moved(w, refit), .coefficients(w))

.dfbetas <- function(w, families) {
  .each(families, function(refit, K) -.moved(w, refit) / sqrt(diag(refit$C)), .coefficients(w))
}

.cooks_influence <- function(w, families) {
  need_fixed_effects(length(.coefficients(w)))
  C <- .full_C(w)
  p <- nrow(C)
  .each(families, function(refit, K) (K - p) / K * .distance(.moved(w, refit), C))
}

.dfbeta_varcomp <- function(w, families) {
  full <- .full_components(w)
  .each(families, function(refit, K) .components(refit$Sigma, refit$sigma)$values - full$values, full$labels)
}

dfbeta_lme4 <- function(w) .dfbeta(w, .row_refits(w))

dfbetas_lme4 <- function(w) .dfbetas(w, .row_refits(w))

cooks_distance_influence_lme4 <- function(w) .cooks_influence(w, .row_refits(w))

dfbeta_varcomp_lme4 <- function(w) .dfbeta_varcomp(w, .row_refits(w))

dfbeta_lme4_group <- function(w) .dfbeta(w, .level_refits(w))

dfbetas_lme4_group <- function(w) .dfbetas(w, .level_refits(w))

cooks_distance_influence_lme4_group <- function(w) .cooks_influence(w, .level_refits(w))

dfbeta_varcomp_lme4_group <- function(w) .dfbeta_varcomp(w, .level_refits(w))
