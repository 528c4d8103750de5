# lme4's optimum, two ways: as `lmer` finds it by default, and as well as lme4's criterion allows.
#
# A default fit stops up to 1e-3 away in theta and, in about one singular model of twelve, at a worse optimum. The
# polished fit starts from several points and in several parameterisations, keeps the best deviance, and then
# tightens that one.

default_fit <- function(model) evaluate_call(model, model_call(model, quote(lme4::lmer)))

polished_fit <- function(model) {
  parsed <- parse_model(model)
  problem <- optimisation_problem(parsed)
  rough <- lapply(searches(problem), function(search) search(problem))
  order <- order(vapply(rough, `[[`, 0, "value"))
  if (rough[[order[1]]]$value >= UNREACHABLE) parsed$devfun(problem$start) # fails in lme4's own words
  best <- polish(problem, rough[[order[1]]])
  # Before the model is made: it shares the state of the criterion, and any later evaluation would move it.
  distance <- repeat_distance(problem, rough[order], best)
  m <- mer_mod(model, parsed, best$theta, list(message = "polished from several starts", feval = problem$count()))
  if (lme4::isSingular(m)) message("boundary (singular) fit: see help('isSingular')")
  attr(m, "search") <- list(starts = vapply(rough, `[[`, "", "name"), values = vapply(rough, `[[`, 0, "value"),
                            repeat_distance = distance)
  m
}

optimisation_problem <- function(parsed) {
  calls <- 0L
  list(
    # Where the criterion cannot be factored (the first steps of a search are blind) it is too large, not the end.
    value = function(theta) {
      calls <<- calls + 1L
      value <- tryCatch(parsed$devfun(theta), error = function(e) NaN)
      if (!is.nan(value)) return(value)
      forget_steps(environment(parsed$devfun)$pp)
      UNREACHABLE
    },
    count = function() calls,
    start = parsed$reTrms$theta,
    lower = parsed$reTrms$lower,
    sizes = lengths(parsed$reTrms$cnms),
    large = nrow(parsed$reTrms$Zt) > 500
  )
}

UNREACHABLE <- 1e100

# lme4 starts an evaluation from its last steps of the effects times zero: after one that was NaN all others are, unless
# the steps are forgotten.
forget_steps <- function(pp) {
  pp$setDelb(numeric(length(pp$delb)))
  pp$setDelu(numeric(length(pp$delu)))
}

# --- where to start ---------------------------------------------------------------------------------------------

# Each search is a function of the problem. Large models, whose criterion is dear, get the first three.
searches <- function(problem) {
  scaled <- lapply(c(1, 0.2, 4), function(factor) {
    force(factor)
    function(problem) search_from(problem, factor * problem$start, paste("start x", factor))
  })
  if (problem$large) return(c(scaled[1:2], utils::head(permuted_searches(problem), 1)))
  c(scaled, term_searches(problem), tilted_search, permuted_searches(problem))
}

search_from <- function(problem, theta, name, tolerance = 1e-8) {
  found <- lme4::nloptwrap(theta, problem$value, problem$lower, rep(Inf, length(theta)),
                           control = list(xtol_abs = tolerance, ftol_abs = tolerance, maxeval = 5000))
  list(name = name, theta = found$par, value = found$fval)
}

# One term large, the others small: models with several factors have optima where one of them vanishes.
term_searches <- function(problem) {
  if (length(problem$sizes) < 2) return(list())
  term <- rep(seq_along(problem$sizes), problem$sizes * (problem$sizes + 1) / 2)
  lapply(seq_along(problem$sizes), function(i) {
    force(i)
    function(problem) {
      search_from(problem, problem$start * ifelse(term == i, 2, 0.1), paste("start in term", i))
    }
  })
}

tilted_search <- function(problem) {
  signs <- rep_len(c(0.5, -0.5), length(problem$start))
  search_from(problem, ifelse(is.finite(problem$lower), problem$start, signs), "start with correlations")
}

# A zero on the diagonal of Lambda can hold an optimiser in this parameterisation and not in the one with the effects
# of a term in another order: Lambda is lower triangular, so its first column alone is a variance of one effect.
permuted_searches <- function(problem) {
  orders <- list(reversed = function(k) rev(seq_len(k)), rotated = function(k) c(seq_len(k)[-1], 1L))
  orders <- orders[c(max(problem$sizes) > 1, max(problem$sizes) > 2)]
  lapply(names(orders), function(name) {
    force(name)
    function(problem) permuted_search(problem, lapply(problem$sizes, orders[[name]]), name)
  })
}

permuted_search <- function(problem, permutations, name) {
  back <- lapply(permutations, order)
  inner <- problem
  inner$value <- function(theta) problem$value(permute_theta(theta, back))
  found <- search_from(inner, permute_theta(problem$start, permutations), paste("effects", name))
  found$theta <- permute_theta(found$theta, back)
  found$value <- problem$value(found$theta)
  found
}

# theta of Lambda L such that L L' is Lambda Lambda' with rows and columns in the order of the permutation.
permute_theta <- function(theta, permutations) {
  sizes <- lengths(permutations)
  ends <- cumsum(sizes * (sizes + 1) / 2)
  blocks <- Map(function(k, end, permutation) {
    L <- matrix(0, k, k)
    L[lower.tri(L, TRUE)] <- theta[(end - k * (k + 1) / 2 + 1):end]
    L <- lower_factor(L[permutation, , drop = FALSE])
    L[lower.tri(L, TRUE)]
  }, sizes, ends, permutations)
  unlist(blocks, use.names = FALSE)
}

# The lower triangular factor of A A' with diagonal >= 0, from A itself: forming A A' would lose half the digits.
lower_factor <- function(A) {
  L <- t(qr.R(qr(t(A), tol = 0)))
  L %*% diag(ifelse(diag(L) < 0, -1, 1), nrow(L))
}

# --- how to finish ----------------------------------------------------------------------------------------------

polish <- function(problem, found) {
  tight <- search_from(problem, found$theta, found$name, tolerance = 1e-14)
  best <- better(found, tight)
  best <- better(best, bobyqa_from(problem, best))
  to_boundary(problem, best)
}

bobyqa_from <- function(problem, found) {
  d <- length(found$theta)
  control <- list(rhobeg = 2e-3, rhoend = 1e-12, npt = if (d == 1) 3L else 2L * d + 1L, maxfun = 5000L)
  # minqa reports on the console what lme4's wrapper turns into a code; the value found is what counts here.
  result <- suppressWarnings(minqa::bobyqa(found$theta, problem$value, problem$lower, control = control))
  list(name = found$name, theta = as.double(result$par), value = as.double(result$fval))
}

better <- function(a, b) if (b$value <= a$value) b else a

# A variance within the optimiser's reach of zero is zero if the criterion agrees to the last digits.
to_boundary <- function(problem, found) {
  for (i in which(problem$lower == 0 & found$theta > 0 & found$theta < 1e-3)) {
    theta <- replace(found$theta, i, 0)
    value <- problem$value(theta)
    if (value <= found$value + 1e-14 * abs(found$value))
      found <- list(name = found$name, theta = theta, value = value)
  }
  found
}

# How far a second search, polished as well, ends from the first, in theta: lme4's own noise. NA if no second search
# reached the same optimum, or the model is large.
repeat_distance <- function(problem, rough, best) {
  if (problem$large) return(NA_real_)
  near <- Filter(function(found) found$value < best$value + 1e-4, rough[-1])
  if (!length(near)) return(NA_real_)
  max(abs(polish(problem, near[[length(near)]])$theta - best$theta))
}
