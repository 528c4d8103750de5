# A fitted lme4 model at exactly a given theta: lme4's own modules, without its optimiser.

parse_model <- function(model) {
  parsed <- evaluate_call(model, model_call(model, quote(lme4::lFormula)))
  parsed$devfun <- do.call(lme4::mkLmerDevfun, parsed[c("fr", "X", "reTrms", "REML")])
  parsed
}

# `mkMerMod` reads the state that the last evaluation of the criterion left behind, hence the evaluation here.
mer_mod <- function(model, parsed, theta, optimum = list()) {
  expected <- length(parsed$reTrms$theta)
  if (length(theta) != expected || !all(is.finite(theta)))
    stop("theta must be ", expected, " finite numbers; it has ", length(theta), call. = FALSE)
  value <- parsed$devfun(theta)
  opt <- utils::modifyList(list(conv = 0L, message = "theta was given", feval = 1L), optimum)
  lme4::mkMerMod(environment(parsed$devfun), c(list(par = theta, fval = value), opt), parsed$reTrms, parsed$fr,
                 model_call(model, quote(lme4::lmer)))
}

at_theta <- function(model, theta) mer_mod(model, parse_model(model), as.double(theta))
