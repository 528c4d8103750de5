# Functions that a worker must survive, and some that tell what arrived.

native_loop <- function() repeat svd(matrix(as.double(seq_len(1500^2)) %% 97, 1500))

endless_recursion <- function(n = 1) endless_recursion(n + 1)

speak <- function() {
  warning("first warning")
  message("a message")
  warning("second warning")
  warning("first warning")
  7
}

echo <- function(x) x

give_environment <- function() globalenv()

describe_column <- function(column) {
  x <- data_column(column)
  list(class = class(x), levels = levels(x), missing = is.na(x), text = as.character(x))
}

plain_constructor <- function(x, levels, ordered) factor(x, levels = levels, ordered = ordered)

same_factor <- function(column, x, levels, ordered) {
  identical(data_column(column), plain_constructor(x, levels, ordered))
}

# lme4's criterion before a theta that it cannot evaluate, there, and after it.
criterion_around_nan <- function() {
  parsed <- lme4::lFormula(Reaction ~ Days + (Days | Subject), lme4::sleepstudy)
  parsed$devfun <- do.call(lme4::mkLmerDevfun, parsed[c("fr", "X", "reTrms", "REML")])
  value <- optimisation_problem(parsed)$value
  c(value(c(1, 0, 1)), value(c(NaN, 0, 1)), value(c(1, 0, 1)))
}
