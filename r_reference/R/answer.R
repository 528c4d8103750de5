# One request, one answer: fit as asked, evaluate the quantities asked for, return plain lists.
#
# request: columns, row_labels, formula, reml, weights, offset, contrasts, family   the model (model.R)
#          link, size, nagq                             of generalised models (generalised.R)
#          how         "at_theta", "polished" or "default"
#          theta       for "at_theta"; c(theta, beta) for a generalised mixed model, theta alone with nagq = 0
#          quantities  names
#          source      "lme4" (quantities.R and the files of ours) or "hlmdiag" (hlmdiag.R, then quantities.R)
#          workspace   "auto", "dense" or "factor": the route of first_principles.R
#          refits      refits times rows of a family of deletions (deletion.R) above which it is skipped

answer <- function(request) {
  m <- tryCatch(fit_as_asked(request), error = identity)
  if (inherits(m, "error")) return(no_fit(m))
  evaluated <- evaluate_quantities(m, as.character(request$quantities), request)
  c(list(status = "ok", message = ""), evaluated, list(facts = facts(m)))
}

fit_as_asked <- function(request) {
  model <- describe_model(request)
  if (!is_linear_mixed(model)) return(generalised_fit(model, request))
  switch(request$how,
    at_theta = at_theta(model, request$theta),
    polished = polished_fit(model),
    default = default_fit(model),
    stop("unknown way of fitting: ", request$how)
  )
}

no_fit <- function(error) {
  list(status = if (inherits(error, "unsupported_model")) "unsupported" else "refused",
       message = conditionMessage(error))
}

facts <- function(m) {
  if (inherits(m, "lm"))
    return(list(singular = FALSE, converged = !identical(m$converged, FALSE), evaluations = as.double(c(m$iter, 1)[1]),
                convergence_messages = character(), search = NULL))
  conv <- m@optinfo$conv
  list(
    singular = lme4::isSingular(m),
    # lme4 files "boundary (singular) fit" with its convergence messages, but without a negative code
    converged = identical(as.integer(conv$opt), 0L) && !any(conv$lme4$code < 0),
    evaluations = as.double(m@optinfo$feval),
    convergence_messages = as.character(conv$lme4$messages),
    search = attr(m, "search")
  )
}

# Equal label vectors are sent once: most quantities of a model share the labels of its rows.
evaluate_quantities <- function(m, names, request) {
  results <- lapply(names, evaluate_quantity, m = m, workspaces = new.env(), request = request)
  names(results) <- names
  absent <- vapply(results, function(result) !is.null(result$kind), NA)
  sets <- unique(lapply(results[!absent], `[[`, "labels"))
  values <- lapply(results[!absent], function(result) {
    list(labels = which(vapply(sets, identical, NA, result$labels)) - 1L, values = result$values)
  })
  list(values = named(values), missing = named(results[absent]), label_sets = unname(sets))
}

# An empty list with names is written as an object and not as an array.
named <- function(x) if (length(x)) x else structure(list(), names = character())

evaluate_quantity <- function(name, m, workspaces, request) {
  tryCatch(
    checked_result(call_quantity(name, m, workspaces, request)),
    missing_value = function(e) list(kind = e$kind, message = conditionMessage(e)),
    error = function(e) list(kind = "error", message = conditionMessage(e))
  )
}

call_quantity <- function(name, m, workspaces, request) {
  by_hlmdiag <- identical(request$source, "hlmdiag")
  own <- if (inherits(m, "lm")) glm else if (inherits(m, "glmerMod")) glmm
  if (!is.null(own)) {
    if (by_hlmdiag) missing_value("unsupported", "HLMdiag has no generalised models")
    if (is_public(name, own)) return(own[[name]](m))
    if (inherits(m, "lm") || !is_public(name, quantities)) missing_value("unsupported", "no R function computes ", name)
  }
  if (by_hlmdiag && is.function(f <- hlmdiag[[paste0("hlmdiag_", name)]])) return(f(m))
  if (is_public(name, quantities)) return(quantities[[name]](m))
  if (by_hlmdiag) missing_value("unsupported", "HLMdiag has no such quantity")
  if (is_public(name, group_residuals)) return(group_residuals[[name]](m))
  if (is_public(name, deletion)) return(deletion[[name]](shared_refits(m, workspaces, request)))
  if (!is_public(name, first_principles)) missing_value("unsupported", "no R function computes ", name)
  first_principles[[name]](shared_workspace(m, workspaces, request))
}

is_public <- function(name, env) !startsWith(name, ".") && is.function(env[[name]])

# The same condition is raised for every quantity that needs a workspace which this model cannot have.
shared_workspace <- function(m, workspaces, request) {
  if (is.null(workspaces$shared))
    workspaces$shared <- tryCatch(first_principles$.workspace(m, request$workspace), error = identity)
  if (inherits(workspaces$shared, "error")) stop(workspaces$shared)
  workspaces$shared
}

shared_refits <- function(m, workspaces, request) {
  if (is.null(workspaces$refits)) workspaces$refits <- deletion$.deletions(m, request$refits)
  workspaces$refits
}

checked_result <- function(result) {
  if (length(result$labels) != length(result$values))
    stop(length(result$labels), " labels for ", length(result$values), " values")
  if (anyDuplicated(result$labels)) stop("labels are not unique: ", result$labels[anyDuplicated(result$labels)])
  list(labels = as.character(result$labels), values = as.double(result$values))
}

# The names that have a function here, for the registry's test.
covered_quantities <- function() {
  public <- function(env) ls(env)
  list(quantities = public(quantities), first_principles = public(first_principles),
       group_residuals = public(group_residuals), deletion = public(deletion),
       glm = public(glm), glmm = public(glmm),
       hlmdiag = sub("^hlmdiag_", "", public(hlmdiag)))
}
