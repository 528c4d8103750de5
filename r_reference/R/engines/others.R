# Other mixed-model packages of R as engines under test. They get a design as columns (y, x0.., and per random term t the
# factor g{t} and the columns z{t}_0..), and answer with plain numbers in the order of that design.
#
# request: columns, terms = list(t0 = list(effects = k, intercept = TRUE/FALSE), ...), reml, weights, offset (names)

# --- shared -----------------------------------------------------------------------------------------------------

.design_frame <- function(request) {
  d <- as.data.frame(lapply(request$columns, function(column) {
    if (column$kind == "double") return(as.double(column$values))
    structure(as.integer(column$codes) + 1L, levels = as.character(column$levels), class = "factor")
  }))
  if (any(names(d) != names(request$columns))) stop("column names were changed")
  d
}

.fixed <- function(request) {
  x <- grep("^x[0-9]+$", names(request$columns), value = TRUE)
  stats::reformulate(c("0", x), "y")
}

.effects <- function(term, t) {
  columns <- paste0("z", t, "_", seq_len(term$effects) - 1L)
  if (isTRUE(term$intercept)) c("1", columns[-1]) else c("0", columns)
}

.names <- function(term, t) {
  columns <- paste0("z", t, "_", seq_len(term$effects) - 1L)
  if (isTRUE(term$intercept)) c("(Intercept)", columns[-1]) else columns
}

# A table of modes as one vector, level by level, in the order of the levels of the factor.
.modes <- function(table, levels, effects) as.vector(t(as.matrix(table)[match(levels, rownames(table)), effects, drop = FALSE]))

.answer <- function(loglik, beta, vcov, sigma, covariances, modes, fitted, converged) {
  list(criterion = -2 * as.double(loglik), beta = as.double(beta), vcov = as.vector(as.matrix(vcov)),
       sigma = as.double(sigma), covariances = lapply(covariances, as.vector), modes = modes,
       fitted = as.double(fitted), converged = converged)
}

# --- nlme -------------------------------------------------------------------------------------------------------

fit_nlme <- function(request) {
  d <- .design_frame(request)
  terms <- request$terms
  plan <- .nlme_plan(d, terms)
  arguments <- list(fixed = .fixed(request), data = d, random = plan$random,
                    method = if (isTRUE(request$reml)) "REML" else "ML")
  if (!is.null(request$weights)) {
    d$variance_of_row <- 1 / d[[request$weights]]
    arguments$data <- d
    arguments$weights <- nlme::varFixed(~variance_of_row)
  }
  m <- do.call(nlme::lme, arguments)
  .answer(stats::logLik(m), nlme::fixef(m), stats::vcov(m), m$sigma, plan$covariances(m), plan$modes(m),
          stats::fitted(m), TRUE)
}

# One factor, or a chain of nested ones with a term each; anything else is not what lme is made for.
.nlme_plan <- function(d, terms) {
  factors <- lapply(seq_along(terms) - 1L, function(t) d[[paste0("g", t)]])
  partition <- match(factors, unique(factors))
  if (length(unique(partition)) == 1) return(.nlme_one_factor(d, terms))
  if (anyDuplicated(partition)) unsupported_model("several terms on one of several factors")
  sizes <- vapply(factors, nlevels, 0L)
  outer_first <- order(sizes)
  for (i in seq_along(outer_first)[-1]) {
    inner <- factors[[outer_first[i]]]
    outer <- factors[[outer_first[i - 1]]]
    if (nrow(unique(data.frame(inner, outer))) != nlevels(inner)) unsupported_model("crossed factors")
  }
  .nlme_nested(d, terms, outer_first)
}

.nlme_one_factor <- function(d, terms) {
  blocks <- lapply(seq_along(terms), function(i) {
    nlme::pdSymm(stats::reformulate(.effects(terms[[i]], i - 1L)))
  })
  random <- list(g0 = if (length(blocks) == 1) blocks[[1]] else nlme::pdBlocked(blocks))
  names <- lapply(seq_along(terms), function(i) .names(terms[[i]], i - 1L))
  list(
    random = random,
    covariances = function(m) {
      V <- as.matrix(m$modelStruct$reStruct[[1]]) * m$sigma^2
      lapply(names, function(effects) V[effects, effects, drop = FALSE])
    },
    modes = function(m) {
      b <- nlme::ranef(m)
      lapply(names, function(effects) .modes(b, levels(d$g0), effects))
    }
  )
}

.nlme_nested <- function(d, terms, outer_first) {
  factor_names <- paste0("g", outer_first - 1L)
  random <- stats::setNames(
    lapply(outer_first, function(i) nlme::pdSymm(stats::reformulate(.effects(terms[[i]], i - 1L)))), factor_names)
  list(
    random = random,
    covariances = function(m) {
      lapply(seq_along(terms), function(i) {
        as.matrix(m$modelStruct$reStruct[[paste0("g", i - 1L)]])[.names(terms[[i]], i - 1L), .names(terms[[i]], i - 1L),
                                                                 drop = FALSE] * m$sigma^2
      })
    },
    modes = function(m) {
      b <- nlme::ranef(m)
      lapply(seq_along(terms), function(i) {
        name <- paste0("g", i - 1L)
        table <- b[[name]]
        rownames(table) <- sub(".*/", "", rownames(table))
        .modes(table, levels(d[[name]]), .names(terms[[i]], i - 1L))
      })
    }
  )
}

# --- glmmTMB ----------------------------------------------------------------------------------------------------

.tmb_family <- function(family, link) {
  switch(family, binomial = stats::binomial(link), poisson = stats::poisson(link),
         unsupported_model("family ", family))
}

fit_glmmTMB <- function(request) {
  d <- .design_frame(request)
  terms <- request$terms
  bars <- vapply(seq_along(terms), function(i) {
    paste0("(", paste(.effects(terms[[i]], i - 1L), collapse = " + "), " | g", i - 1L, ")")
  }, "")
  x <- grep("^x[0-9]+$", names(d), value = TRUE)
  formula <- stats::reformulate(c("0", x, bars), "y")
  if (!is.null(request$offset)) formula <- stats::update(formula, stats::as.formula(paste("~ . + offset(", request$offset, ")")))
  arguments <- list(formula, data = d, REML = isTRUE(request$reml))
  if (!is.null(request$family)) arguments$family <- .tmb_family(request$family, request$link)
  if (!is.null(request$weights)) arguments$weights <- d[[request$weights]]
  m <- do.call(glmmTMB::glmmTMB, arguments)
  V <- glmmTMB::VarCorr(m)$cond
  b <- glmmTMB::ranef(m)$cond
  each <- function(f) lapply(seq_along(terms), function(i) f(paste0("g", i - 1L), .names(terms[[i]], i - 1L)))
  .answer(
    stats::logLik(m), glmmTMB::fixef(m)$cond[x], stats::vcov(m)$cond[x, x], stats::sigma(m),
    each(function(g, effects) matrix(V[[g]], length(effects))),
    each(function(g, effects) .modes(b[[g]], levels(d[[g]]), effects)),
    stats::fitted(m), m$fit$convergence == 0
  )
}
