# Every residual, leverage and one-step deletion measure from its definition, with dense algebra on the pieces that
# lme4 hands out (X, Z, Lambda, y, prior weights, offset). None of lme4's estimates is used: beta and sigma are
# computed here from theta alone.
#
#   V = sigma^2 (W^-1 + G),  G = Z Lambda Lambda' Z',  C = (X' V^-1 X)^-1,  P = V^-1 - V^-1 X C X' V^-1
#
# Three routes make the same workspace, and all measures are written once on top of it:
#   dense   V, V^-1 and P as n x n matrices
#   factor  L L' = A A' + I with A = Lambda' Z' W^1/2 (q x n); C_L = L^-1 A; C_R = R_X^-T (X'W^1/2 - R_ZX' C_L); then
#           sigma^2 V^-1 = W^1/2 (I - C_L' C_L) W^1/2 and sigma^2 P = W^1/2 (I - C_L' C_L - C_R' C_R) W^1/2
#   sparse  the same with A and L sparse, for large models; C_L is not formed, so nothing that needs P is there
# A workspace has X (n x p), r, Py (n), XtVinv (p x n), C (p x p), P_diag, V_diag, G_diag, ZDZtP_diag (n), sigma2,
# and functions P_block(A) and whiten(x).
#
# Each public function takes a workspace and returns list(labels, values).

.DENSE_ROWS <- 1500
.FACTOR_CELLS <- 5e6
.CHOLESKY_ROWS <- 3000
.RANK_TOLERANCE <- 1e-11

# --- the pieces and the two routes ------------------------------------------------------------------------------

.pieces <- function(m) {
  Zt <- lme4::getME(m, "Zt")
  list(
    X = matrix(as.double(lme4::getME(m, "X")), ncol(Zt)),
    LambdatZt = lme4::getME(m, "Lambdat") %*% Zt,
    y = lme4::getME(m, "y") - lme4::getME(m, "offset"),
    offset = lme4::getME(m, "offset"),
    weights = as.double(stats::weights(m, type = "prior")),
    factors = lme4::getME(m, "flist"),
    rows = rownames(m@frame),
    reml = lme4::isREML(m)
  )
}

.workspace <- function(m, route = "auto") {
  n <- stats::nobs(m)
  cells <- n * nrow(lme4::getME(m, "Zt"))
  if (is.null(route) || route == "auto")
    route <- if (n <= .DENSE_ROWS) "dense" else if (cells <= .FACTOR_CELLS) "factor" else "sparse"
  pieces <- .pieces(m)
  w <- list2env(c(pieces, list(n = n, p = ncol(pieces$X))), parent = emptyenv())
  list2env(switch(route, dense = .dense(pieces), factor = .factor(pieces), sparse = .sparse(pieces)), w)
  if (route == "sparse") .without_P(w)
  w
}

.residual_variance <- function(quadratic_form, pieces) {
  quadratic_form / (nrow(pieces$X) - if (pieces$reml) ncol(pieces$X) else 0L)
}

# R's functions of triangular matrices refuse the empty ones of a model without fixed effects.
.cholesky <- function(A) if (nrow(A)) chol(A) else A

.inverse <- function(A) if (nrow(A)) chol2inv(chol(A)) else A

.backsolve <- function(R, x, ...) if (nrow(R)) backsolve(R, x, ...) else x

.dense <- function(pieces) {
  X <- pieces$X
  G <- crossprod(as.matrix(pieces$LambdatZt))
  relative_V <- G + diag(1 / pieces$weights, nrow(X))
  upper <- chol(relative_V)
  relative_Vinv <- chol2inv(upper)
  VinvX <- relative_Vinv %*% X
  relative_C <- .inverse(crossprod(X, VinvX))
  beta <- drop(relative_C %*% crossprod(VinvX, pieces$y))
  r <- drop(pieces$y - X %*% beta)
  Vinvr <- drop(relative_Vinv %*% r)
  sigma2 <- .residual_variance(sum(r * Vinvr), pieces)
  P <- (relative_Vinv - VinvX %*% relative_C %*% t(VinvX)) / sigma2
  list(
    sigma2 = sigma2, beta = beta, r = r, C = sigma2 * relative_C, XtVinv = t(VinvX) / sigma2, Py = Vinvr / sigma2,
    P_diag = diag(P), V_diag = sigma2 * diag(relative_V), G_diag = diag(G), ZDZtP_diag = sigma2 * rowSums(G * P),
    P_block = function(A) P[A, A, drop = FALSE],
    whiten = function(x) backsolve(upper, x, transpose = TRUE) / sqrt(sigma2)
  )
}

.factor <- function(pieces) {
  X <- pieces$X
  s <- sqrt(pieces$weights)
  A <- as.matrix(pieces$LambdatZt) * rep(s, each = nrow(pieces$LambdatZt))
  sX <- X * s
  upper <- chol(tcrossprod(A) + diag(nrow(A)))
  CL <- backsolve(upper, A, transpose = TRUE)
  RZX <- CL %*% sX
  RX <- .cholesky(crossprod(sX) - crossprod(RZX))
  CR <- .backsolve(RX, t(sX) - crossprod(RZX, CL), transpose = TRUE)
  beta <- drop(.backsolve(RX, CR %*% (s * pieces$y)))
  r <- drop(pieces$y - X %*% beta)
  Vinvr <- s * (s * r - drop(crossprod(CL, CL %*% (s * r))))
  sigma2 <- .residual_variance(sum(r * Vinvr), pieces)
  random_part <- colSums(CL^2)
  P_diag <- pieces$weights * (1 - random_part - colSums(CR^2)) / sigma2
  XtVinv <- crossprod(RX, CR) * rep(s, each = ncol(X)) / sigma2
  C <- sigma2 * if (nrow(RX)) chol2inv(RX) else RX
  G_diag <- colSums(A^2) / pieces$weights
  list(
    sigma2 = sigma2, beta = beta, r = r, C = C, XtVinv = XtVinv, Py = Vinvr / sigma2, P_diag = P_diag,
    V_diag = sigma2 * (1 / pieces$weights + G_diag), G_diag = G_diag,
    # Z D Z' P = I - H1 - R P with R = sigma^2 W^-1
    ZDZtP_diag = 1 - rowSums(X * t(C %*% XtVinv)) - sigma2 * P_diag / pieces$weights,
    P_block = function(rows) {
      H <- crossprod(CL[, rows, drop = FALSE]) + crossprod(CR[, rows, drop = FALSE])
      (diag(length(rows)) - H) * tcrossprod(s[rows]) / sigma2
    },
    whiten = function(x) .whiten_by_block(x, A, s, pieces$factors) / sqrt(sigma2)
  )
}

.sparse <- function(pieces) {
  X <- pieces$X
  s <- sqrt(pieces$weights)
  A <- pieces$LambdatZt %*% Matrix::Diagonal(x = s)
  L <- Matrix::Cholesky(Matrix::tcrossprod(A), LDL = FALSE, Imult = 1)
  # (I + A' A)^-1 x = x - A' (A A' + I)^-1 A x
  solve_V <- function(x) as.matrix(x - Matrix::crossprod(A, Matrix::solve(L, A %*% x, system = "A")))
  VinvX <- solve_V(X * s)
  relative_C <- .inverse(crossprod(X * s, VinvX))
  beta <- drop(relative_C %*% crossprod(VinvX, s * pieces$y))
  r <- drop(pieces$y - X %*% beta)
  Vinvr <- s * drop(solve_V(s * r))
  sigma2 <- .residual_variance(sum(r * Vinvr), pieces)
  G_diag <- Matrix::colSums(A^2) / pieces$weights
  list(
    sigma2 = sigma2, beta = beta, r = r, C = sigma2 * relative_C, XtVinv = t(VinvX * s) / sigma2,
    Py = Vinvr / sigma2, V_diag = sigma2 * (1 / pieces$weights + G_diag), G_diag = G_diag
  )
}

.without_P <- function(w) {
  for (name in c("P_diag", "ZDZtP_diag", "P_block", "whiten"))
    makeActiveBinding(name, function() {
      missing_value("skipped", "dense algebra on ", w$n, " rows and ", nrow(w$LambdatZt), " random effects is out of reach")
    }, w)
}

# V is block diagonal over sets of rows that no random effect connects, and so is its Cholesky factor in data order.
.whiten_by_block <- function(x, A, s, factors) {
  blocks <- split(seq_along(x), .connected_rows(factors))
  if (max(lengths(blocks)) > .CHOLESKY_ROWS)
    missing_value("skipped", "the Cholesky factor of ", max(lengths(blocks)), " connected rows is out of reach")
  for (rows in blocks) {
    B <- A[, rows, drop = FALSE] / rep(s[rows], each = nrow(A))
    upper <- chol(crossprod(B) + diag(1 / s[rows]^2, length(rows)))
    x[rows] <- backsolve(upper, x[rows], transpose = TRUE)
  }
  x
}

# The smallest row number that is reachable through shared levels.
.connected_rows <- function(factors) {
  component <- seq_len(length(factors[[1]]))
  repeat {
    before <- component
    for (f in factors) component <- tapply(component, f, min)[as.integer(f)]
    if (all(component == before)) return(as.vector(component))
  }
}

# --- shapes of results ------------------------------------------------------------------------------------------

.rows <- function(w, x) list(labels = w$rows, values = as.double(x))

.mean_by_level <- function(w, x) {
  .by_level(w, function(rows) mean(x[rows]))
}

.by_level <- function(w, f) {
  parts <- lapply(names(w$factors), function(name) {
    groups <- split(seq_len(w$n), w$factors[[name]], drop = TRUE)
    list(labels = paste(name, names(groups), sep = "|"), values = vapply(groups, f, 0, USE.NAMES = FALSE))
  })
  list(labels = unlist(lapply(parts, `[[`, "labels")), values = unlist(lapply(parts, `[[`, "values")))
}

# Computed at the first call for a workspace.
.once <- function(w, key, value) {
  if (is.null(w[[key]])) assign(key, value, envir = w)
  w[[key]]
}

# --- one-step deletion ------------------------------------------------------------------------------------------

# Deleting the rows A at fixed V: with u = (P y)_A, K = X' V^-1[, A] and S = K P_AA^-1 K',
#   Delta = C K P_AA^-1 u,   C_A = C + C S C,   C^-1 C_A = I + S C.
# NaN where the rows left do not determine beta: P_AA is then singular, which rounding can hide where columns of X are
# nearly collinear.
.delete <- function(w, A) {
  if (qr(w$X[-A, , drop = FALSE], tol = .RANK_TOLERANCE)$rank < w$p) return(.undetermined(w, A))
  PA <- w$P_block(A)
  scale <- 1 / sqrt(w$weights[A] / w$sigma2)
  if (!.is_regular(PA * tcrossprod(scale))) return(.undetermined(w, A))
  K <- w$XtVinv[, A, drop = FALSE]
  KPinv <- t(solve(PA, t(K)))
  delta <- drop(w$C %*% KPinv %*% w$Py[A])
  SC <- tcrossprod(KPinv, K) %*% w$C
  after <- w$C + w$C %*% SC
  ratio <- diag(w$p) + SC
  c(cooks = sum(delta * solve_covariance(w$C, delta)) / w$p,
    mdffits = sum(delta * solve_covariance(after, delta)) / w$p,
    covtrace = abs(sum(diag(SC))),
    covratio = det(ratio))
}

.is_regular <- function(S) {
  all(is.finite(S)) && rcond(S) > .RANK_TOLERANCE
}

.undetermined <- function(w, A) {
  warning("without ", if (length(A) == 1) paste("row", w$rows[A]) else paste(length(A), "rows of a level"),
          " the fixed effects are not determined: deletion measures are NaN", call. = FALSE)
  c(cooks = NaN, mdffits = NaN, covtrace = NaN, covratio = NaN)
}

# All rows at once: for a single row S C has rank one, with trace h = K' C K / P_ii.
.delete_rows <- function(w) {
  need_fixed_effects(w$p)
  .once(w, "row_deletions", {
    lost <- w$P_diag * w$sigma2 / w$weights < .RANK_TOLERANCE
    for (i in which(lost)) .undetermined(w, i)
    P <- ifelse(lost, NaN, w$P_diag)
    h <- colSums(w$XtVinv * (w$C %*% w$XtVinv)) / P
    cooks <- w$Py^2 / P * h / w$p
    list(cooks = cooks, mdffits = cooks / (1 + h), covtrace = h, covratio = 1 + h)
  })
}

.delete_levels <- function(w) {
  need_fixed_effects(w$p)
  .once(w, "level_deletions", {
    groups <- lapply(w$factors, function(f) split(seq_len(w$n), f, drop = TRUE))
    measures <- lapply(groups, vapply, function(A) .delete(w, A), c(cooks = 0, mdffits = 0, covtrace = 0, covratio = 0))
    list(labels = unlist(Map(function(name, g) paste(name, names(g), sep = "|"), names(groups), groups),
                         use.names = FALSE),
         values = do.call(cbind, unname(measures)))
  })
}

.level_measure <- function(w, measure) {
  deletions <- .delete_levels(w)
  list(labels = deletions$labels, values = as.double(deletions$values[measure, ]))
}

cooks_distance_marginal <- function(w) .rows(w, .delete_rows(w)$cooks)

mdffits_marginal <- function(w) .rows(w, .delete_rows(w)$mdffits)

covtrace_marginal <- function(w) .rows(w, .delete_rows(w)$covtrace)

covratio_marginal <- function(w) .rows(w, .delete_rows(w)$covratio)

cooks_distance_marginal_group <- function(w) .level_measure(w, "cooks")

mdffits_marginal_group <- function(w) .level_measure(w, "mdffits")

covtrace_marginal_group <- function(w) .level_measure(w, "covtrace")

covratio_marginal_group <- function(w) .level_measure(w, "covratio")

# --- leverage ---------------------------------------------------------------------------------------------------

# H1 = X C X' V^-1 and H2 = Z D Z' V^-1 (I - H1) = Z D Z' P.
.fixed_leverage <- function(w) rowSums(w$X * t(w$C %*% w$XtVinv))

leverage_overall <- function(w) .rows(w, .fixed_leverage(w) + w$ZDZtP_diag)

leverage_fixef <- function(w) .rows(w, .fixed_leverage(w))

leverage_ranef <- function(w) .rows(w, w$ZDZtP_diag)

leverage_ranef_uc <- function(w) .rows(w, w$G_diag)

leverage_overall_group <- function(w) .mean_by_level(w, .fixed_leverage(w) + w$ZDZtP_diag)

leverage_fixef_group <- function(w) .mean_by_level(w, .fixed_leverage(w))

leverage_ranef_group <- function(w) .mean_by_level(w, w$ZDZtP_diag)

leverage_ranef_uc_group <- function(w) .mean_by_level(w, w$G_diag)

# --- residuals --------------------------------------------------------------------------------------------------

# e = R P y with R = sigma^2 W^-1, so Var(e) = R P R and the standardised e is Py / sqrt(diag P).
resid_conditional_studentized <- function(w) {
  lost <- w$P_diag * w$sigma2 / w$weights < .RANK_TOLERANCE
  .rows(w, ifelse(lost, NaN, w$Py / sqrt(pmax(w$P_diag, 0))))
}

fitted_marginal <- function(w) .rows(w, w$y + w$offset - w$r)

resid_marginal <- function(w) .rows(w, w$r)

resid_marginal_pearson <- function(w) .rows(w, w$r / sqrt(w$V_diag))

resid_marginal_studentized <- function(w) {
  .rows(w, w$r / sqrt(w$V_diag - rowSums(w$X * (w$X %*% w$C))))
}

resid_marginal_cholesky <- function(w) .rows(w, w$whiten(w$r))

# Weighted least squares in each level of the first factor, on the model's own columns there: in a model with an
# intercept the columns that are constant in a level fall together with it, in one without none is added. A
# projection, so which of several dependent columns is left out does not matter.
.separate_fits <- function(w) {
  .once(w, "separate_fits", {
    fit <- numeric(w$n)
    for (rows in if (w$p) split(seq_len(w$n), w$factors[[1]], drop = TRUE)) {
      X <- w$X[rows, , drop = FALSE]
      s <- sqrt(w$weights[rows])
      decomposition <- qr(X * s)
      fit[rows] <- qr.fitted(decomposition, w$y[rows] * s) / s
    }
    fit
  })
}

fitted_ls <- function(w) .rows(w, .separate_fits(w) + w$offset)

resid_ls <- function(w) .rows(w, w$y - .separate_fits(w))
