# Generalised linear models with and without random effects, and least squares: fitted as R fits them, only tighter.
#
# `stats::glm` stops when the deviance changes by 1e-8, and leaves weights and the QR one iteration behind its
# coefficients: further calls from those coefficients bring them together. `lme4::glmer` finds the conditional modes to
# tolPwrss = 1e-7 by default, so that its criterion is uneven at that level: a Hessian by differences of it has errors
# near one per cent (cbpp: standard error 0.23121 of the intercept, where 1e-10 and less give 0.23247). Here the modes
# are found to 1e-13, or to what does not fail, and then to the end. lme4 also leaves the factor at the weights before the last step (cbpp:
# log-determinant off by 3.5e-10); its own functions bring it up to date.

TOLERANCES <- c(1e-13, 1e-10, 1e-7)

FAMILIES <- c("gaussian", "binomial", "poisson", "Gamma", "inverse.gaussian", "negative.binomial")

# NULL for the normal distribution with identity link, the text "negative.binomial" where its size is to be estimated.
model_family <- function(request) {
  name <- if (is.null(request$family)) "gaussian" else request$family
  link <- request$link
  if (!(name %in% FAMILIES)) unsupported_model("family ", name, " is not among the models of this reference")
  if (name == "gaussian" && (is.null(link) || link == "identity")) return(NULL)
  arguments <- if (is.null(link)) list() else list(link = link)
  if (name != "negative.binomial") return(do.call(getExportedValue("stats", name), arguments))
  if (is.null(request$size)) return(name)
  do.call(MASS::negative.binomial, c(list(theta = as.double(request$size)), arguments))
}

is_linear_mixed <- function(model) model$mixed && is.null(model$family)

generalised_fit <- function(model, request) {
  if (!model$mixed) return(if (request$how == "default") plain_fit(model) else tight_fit(model))
  if (is.character(model$family)) return(sized_fit(model, request))
  switch(request$how,
    at_theta = glmm_at(model, as.double(request$theta), wants_hessian(request)),
    polished = polished_glmm(model),
    default = evaluate_call(model, generalised_call(model, quote(lme4::glmer), nAGQ = model$nagq)),
    stop("unknown way of fitting: ", request$how)
  )
}

generalised_call <- function(model, f, ...) {
  as.call(c(list(f, formula = model$formula, data = quote(data)),
            if (!is.null(model$family) && !is.character(model$family)) list(family = quote(family)),
            model$extra, list(...)))
}

# --- without random effects -------------------------------------------------------------------------------------

plain_fit <- function(model, ...) {
  f <- if (is.null(model$family)) quote(stats::lm)
       else if (is.character(model$family)) quote(MASS::glm.nb)
       else quote(stats::glm)
  evaluate_call(model, generalised_call(model, f, ...))
}

tight_fit <- function(model) {
  if (is.null(model$family)) return(plain_fit(model))
  # It may go on to its last iteration, the deviance moving in its last digit: what counts is the second call.
  control <- quote(stats::glm.control(epsilon = 1e-14, maxit = 100L))
  first <- suppressWarnings(plain_fit(model, control = control))
  if (is.character(model$family)) return(first)
  if (!first$converged && model$family$family == "binomial")
    first <- suppressWarnings(plain_fit(model, start = start_of_logit(model), control = control))
  # Scoring converges linearly where the link is not canonical, and the deviance is flat: on until nothing moves.
  last <- Inf
  for (i in seq_len(60)) {
    start <- stats::coef(first)
    start[is.na(start)] <- 0
    again <- plain_fit(model, start = start, control = quote(stats::glm.control(epsilon = 1e-10)))
    moved <- max(abs(stats::coef(again) - start) / sqrt(diag(stats::vcov(again))), na.rm = TRUE)
    if (moved >= last && moved < 1e-9) break
    last <- moved
    first <- again
  }
  first
}

# Scoring may run away from its own start (complementary log-log, few rows): coefficients that give about the means of
# the logit model.
start_of_logit <- function(model) {
  logit <- suppressWarnings(plain_fit(utils::modifyList(model, list(family = stats::binomial()))))
  offset <- if (is.null(logit$offset)) 0 else logit$offset
  start <- qr.coef(qr(stats::model.matrix(logit)), model$family$linkfun(stats::fitted(logit)) - offset)
  ifelse(is.na(start), 0, start)
}

# --- with random effects ----------------------------------------------------------------------------------------

# A point is c(theta, beta), or theta alone where nAGQ = 0 leaves beta to the inner iteration.
glmm_at <- function(model, point, hessian = FALSE) {
  problem <- glmm_problem(model, point)
  if (length(point) != problem$size || !all(is.finite(point)))
    stop("theta and beta must be ", problem$size, " finite numbers; there are ", length(point), call. = FALSE)
  derivatives <- if (hessian && problem$nagq > 0) {
    first <- differences(problem$value, point, problem$scale)
    differences(problem$value, point, curvature_scale(first$Hessian, problem$scale))
  }
  glmer_mod(problem, point, list(message = "theta and beta were given"), derivatives)
}

wants_hessian <- function(request) any(endsWith(as.character(request$quantities), "_hessian"))

# Standard errors of single coordinates, the others held, where the criterion is convex.
curvature_scale <- function(H, otherwise) {
  curvature <- diag(H)
  ifelse(curvature > 0, sqrt(2 / pmax(curvature, 1e-300)), otherwise)
}

glmm_problem <- function(model, point = NULL) {
  control <- lme4::glmerControl()
  parsed <- evaluate_call(model, generalised_call(model, quote(lme4::glFormula), control = control))
  # The criterion looks for functions of lme4 where it was made.
  first <- do.call(lme4::mkGlmerDevfun, c(parsed[c("fr", "X", "reTrms", "family")],
                                          list(control = control, maxit = 200L)),
                   envir = new.env(parent = asNamespace("lme4")))
  rho <- environment(first)
  k <- length(parsed$reTrms$theta)
  start <- joint_start(first, rho, parsed$reTrms, if (length(point) >= k) point[seq_len(k)])
  devfun <- first
  if (model$nagq > 0) {
    devfun <- lme4::updateGlmerDevfun(first, parsed$reTrms, nAGQ = model$nagq)
    # lme4 starts each search for modes with X beta counted twice.
    start$predictors <- list(rho$lp0 - drop(parsed$X %*% start$par[-seq_len(k)]), rho$lp0, 0 * rho$lp0)
  } else {
    rho$nAGQ <- 0L
    start$predictors <- list(rho$lp0)
    start$par <- start$par[seq_len(k)]
    start$scale <- start$scale[seq_len(k)]
  }
  calls <- 0L
  value <- function(point) {
    calls <<- calls + 1L
    criterion_at(devfun, rho, point, model$nagq, start$predictors)
  }
  list(value = value, count = function() calls, rho = rho, parsed = parsed, model = model, start = start$par,
       scale = start$scale, n_theta = k, size = length(start$par), nagq = model$nagq,
       lower = c(parsed$reTrms$lower, rep(-Inf, length(start$par) - k)),
       large = nrow(parsed$reTrms$Zt) > 500 || nrow(parsed$X) > 3000)
}

# Where nAGQ = 0 ends: lme4's own first stage. The scales are of the order of standard errors.
joint_start <- function(devfun, rho, reTrms, theta) {
  if (is.null(theta)) {
    value <- function(theta) tryCatch(devfun(theta), error = function(e) 1e10)
    found <- minqa::bobyqa(reTrms$theta, value, reTrms$lower, control = list(rhobeg = 0.2, rhoend = 2e-6))
    theta <- as.double(found$par)
  }
  devfun(theta)
  beta <- rho$pp$beta(1)
  list(par = c(theta, beta), scale = c(pmax(0.2 * abs(theta), 0.05), sqrt(diag(rho$pp$unsc()))))
}

# The inner iteration from the same predictor each time, so that the criterion is a function of the point alone. It
# overshoots where counts are large and every row has its effect: then from another predictor, or less far.
criterion_at <- function(devfun, rho, point, nagq, predictors) {
  for (tolerance in TOLERANCES) for (predictor in predictors) {
    rho$tolPwrss <- tolerance
    rho$lp0 <- predictor
    value <- tryCatch(devfun(point), error = identity)
    if (!inherits(value, "error")) return(at_the_modes(rho, value, nagq))
  }
  stop(value)
}

at_the_modes <- function(rho, value, nagq) {
  if (nagq > 0) modes_to_the_end(rho)
  rho$pp$updateXwts(rho$resp$sqrtWrkWt())
  rho$pp$updateDecomp()
  if (nagq > 1) value else rho$resp$Laplace(rho$pp$ldL2(), rho$pp$ldRX2(), rho$pp$sqrL(1))
}

# The inner iteration stops when |u|^2 and the deviance stand still, which says half as many digits of u, and it converges
# linearly where the link is not canonical (cbpp, probit: modes off by 2e-8 with tolPwrss = 1e-13). Its steps are taken
# here until the predictor does not move.
modes_to_the_end <- function(rho) {
  last <- Inf
  for (i in seq_len(2000)) {
    before <- rho$pp$linPred(1)
    rho$pp$updateXwts(rho$resp$sqrtWrkWt())
    rho$pp$updateDecomp()
    rho$pp$updateRes(rho$resp$wtWrkResp())
    rho$pp$solveU()
    rho$resp$updateMu(rho$pp$linPred(1))
    moved <- max(abs(rho$pp$linPred(1) - before))
    if (moved == 0 || (moved >= last && moved < 1e-10)) break
    last <- moved
  }
  rho$resp$updateWts()
}

# `mkMerMod` reads the state that the last evaluation left behind, hence the evaluation here.
glmer_mod <- function(problem, point, optimum = list(), derivatives = NULL) {
  value <- problem$value(point)
  opt <- utils::modifyList(list(conv = 0L, message = "", feval = 1L), optimum)
  m <- lme4::mkMerMod(problem$rho, c(list(par = point, fval = value), opt), problem$parsed$reTrms, problem$parsed$fr,
                      generalised_call(problem$model, quote(lme4::glmer)))
  m@optinfo$derivs <- derivatives
  m
}

# A negative binomial whose size is to be estimated. `glmer.nb` searches it to three digits by values of the criterion;
# here its logarithm is one more coordinate of the point, c(theta, beta, log(size)), of the same polishing.
sized_fit <- function(model, request) {
  if (!is.null(request$link) && request$link != "log")
    unsupported_model("glmer.nb has the link log only, not ", request$link)
  if (model$nagq > 1)
    unsupported_model("lme4's quadrature leaves out constants that depend on the size, so that it cannot be estimated")
  if (request$how == "default") {
    m <- evaluate_call(model, generalised_call(model, quote(lme4::glmer.nb), nAGQ = model$nagq))
    return(with_size(m, lme4::getME(m, "glmer.nb.theta")))
  }
  if (request$how == "at_theta") {
    point <- as.double(request$theta)
    last <- length(point)
    return(with_size(glmm_at(of_size(model, point[last]), point[-last], wants_hessian(request)), point[last]))
  }
  polished_glmm(model)
}

of_size <- function(model, size) {
  model$family <- MASS::negative.binomial(theta = size)
  model
}

with_size <- function(m, size) {
  attr(m, "size") <- size
  m
}

sized_problem <- function(model) {
  problem <- glmm_problem(of_size(model, 1))
  last <- problem$size + 1L
  within <- problem$value
  problem$value <- function(point) {
    problem$rho$resp$setTheta(exp(point[last]))
    within(point[-last])
  }
  problem$start <- c(problem$start, 0)
  problem$scale <- c(problem$scale, 0.3)
  problem$lower <- c(problem$lower, -Inf)
  problem$size <- last
  problem
}

# The model of a point: at the size found, in a family of that size, so that all of its functions know it. Its Hessian is
# that in theta and beta, as for a size that was given.
mod_of <- function(model, problem, best, optimum) {
  if (!is.character(model$family)) return(glmer_mod(problem, best$par, optimum, best$derivatives))
  last <- length(best$par)
  size <- exp(best$par[last])
  derivatives <- list(gradient = best$derivatives$gradient[-last],
                      Hessian = best$derivatives$Hessian[-last, -last, drop = FALSE])
  at <- best$par[-last]
  with_size(glmer_mod(glmm_problem(of_size(model, size), at), at, optimum, derivatives), size)
}

# Several starts of the covariance parameters, then Newton steps with derivatives by differences of the criterion.
polished_glmm <- function(model) {
  problem <- if (is.character(model$family)) sized_problem(model) else glmm_problem(model)
  rough <- lapply(if (problem$large) 1 else c(1, 0.2, 4), function(factor) rough_search(problem, factor))
  order <- order(vapply(rough, `[[`, 0, "value"))
  best <- newton_polish(problem, rough[[order[1]]])
  second <- if (length(rough) > 1) newton_polish(problem, rough[[order[2]]])
  distance <- if (is.null(second) || second$value > best$value + 1e-4) NA_real_ else max(abs(second$par - best$par))
  m <- mod_of(model, problem, best, list(message = "polished from several starts", feval = problem$count()))
  if (lme4::isSingular(m)) message("boundary (singular) fit: see help('isSingular')")
  attr(m, "search") <- list(starts = vapply(rough, `[[`, "", "name"), values = vapply(rough, `[[`, 0, "value"),
                            repeat_distance = distance)
  m
}

rough_search <- function(problem, factor) {
  start <- problem$start
  theta <- seq_len(problem$n_theta)
  start[theta] <- factor * ifelse(problem$lower[theta] == 0, pmax(start[theta], 0.1), start[theta])
  # Outside the domain of a family the modes cannot be found: a wall for the optimiser.
  value <- function(x) tryCatch(problem$value(start + x * problem$scale), error = function(e) 1e10)
  found <- lme4::nloptwrap(numeric(length(start)), value, (problem$lower - start) / problem$scale,
                           rep(Inf, length(start)), control = list(xtol_abs = 1e-5, ftol_abs = 1e-8, maxeval = 4000))
  list(name = paste("start x", factor), par = start + found$par * problem$scale, value = found$fval)
}

newton_polish <- function(problem, found) {
  found <- glmm_boundary(problem, found)
  scale <- problem$scale
  for (i in seq_len(4)) {
    derivatives <- differences(problem$value, found$par, scale)
    free <- !(problem$lower == 0 & found$par == 0)
    H <- derivatives$Hessian
    scale <- curvature_scale(H, scale)
    step <- numeric(length(free))
    step[free] <- tryCatch(-solve(H[free, free, drop = FALSE], derivatives$gradient[free]), error = function(e) 0)
    moved <- pmax(found$par + step, problem$lower)
    value <- tryCatch(problem$value(moved), error = function(e) Inf)
    if (!is.finite(value) || value > found$value + 1e-9) break
    small <- max(abs(step / scale)) < 1e-6
    found$par <- moved
    found$value <- value
    if (small) break
  }
  found$derivatives <- derivatives
  found
}

# A variance within the optimiser's reach of zero is zero if the criterion says so.
glmm_boundary <- function(problem, found) {
  for (i in which(problem$lower == 0 & found$par > 0 & found$par < 5e-3)) {
    par <- replace(found$par, i, 0)
    value <- problem$value(par)
    if (value <= found$value + 1e-10 * abs(found$value)) found <- utils::modifyList(found, list(par = par, value = value))
  }
  found
}

# Gradient and Hessian by central differences of fourth order with steps of a hundredth of a standard error. A negative
# diagonal of Lambda is the same model, so that no step leaves the domain.
differences <- function(f, x, scale) {
  d <- length(x)
  h <- 0.01 * scale
  at <- function(...) {
    moves <- list(...)
    y <- x
    for (move in moves) y[move[1]] <- y[move[1]] + move[2] * h[move[1]]
    f(y)
  }
  centre <- f(x)
  line <- vapply(seq_len(d), function(i) vapply(c(-2, -1, 1, 2), function(s) at(c(i, s)), 0), numeric(4))
  gradient <- (line[1, ] - 8 * line[2, ] + 8 * line[3, ] - line[4, ]) / (12 * h)
  second <- (-line[1, ] + 16 * line[2, ] - 30 * centre + 16 * line[3, ] - line[4, ]) / (12 * h^2)
  H <- diag(second, d)
  cross <- function(i, j, s) {
    (at(c(i, s), c(j, s)) - at(c(i, s), c(j, -s)) - at(c(i, -s), c(j, s)) + at(c(i, -s), c(j, -s))) /
      (4 * s^2 * h[i] * h[j])
  }
  for (i in seq_len(d)) for (j in seq_len(i - 1)) H[i, j] <- H[j, i] <- (4 * cross(i, j, 1) - cross(i, j, 2)) / 3
  list(gradient = gradient, Hessian = H)
}
