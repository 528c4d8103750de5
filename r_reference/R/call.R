# Calling a function so that whatever happens comes back as data: its value, its warnings, its messages, its error.

guarded <- function(f, arguments = list()) {
  warnings <- character()
  messages <- character()
  failure <- NULL
  value <- tryCatch(
    withCallingHandlers(
      do.call(f, arguments, quote = TRUE),
      warning = function(w) {
        warnings <<- c(warnings, conditionMessage(w))
        invokeRestart("muffleWarning")
      },
      message = function(m) {
        messages <<- c(messages, sub("\n$", "", conditionMessage(m)))
        invokeRestart("muffleMessage")
      }
    ),
    error = function(e) {
      failure <<- conditionMessage(e)
      NULL
    }
  )
  list(ok = is.null(failure), value = value, error = failure, warnings = unique(warnings),
       messages = unique(messages))
}

# Two ways of not having a number that are not errors. `kind` is one of: unsupported, undefined, skipped.
missing_value <- function(kind, ...) {
  stop(structure(class = c("missing_value", "error", "condition"),
                 list(message = paste0(...), call = NULL, kind = kind)))
}

need_fixed_effects <- function(p) {
  if (!p) missing_value("undefined", "a model without fixed effects has no influence on them")
}

# C^-1 x for a covariance C. Its rows may have very different units, which solve() would take for a singular system.
solve_covariance <- function(C, x) {
  s <- 1 / sqrt(diag(C))
  s * solve(C * tcrossprod(s), s * x)
}

unsupported_model <- function(...) {
  stop(structure(class = c("unsupported_model", "error", "condition"), list(message = paste0(...), call = NULL)))
}
