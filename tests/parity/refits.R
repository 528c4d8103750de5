# Deletions said another way: plain lmer on the data without the rows, and lme4's own influence().

refit_literally <- function(request, unit, group = NULL) {
  model <- describe_model(request)
  gone <- if (is.null(group)) rownames(model$data) == unit else model$data[[group]] == unit
  model$data <- model$data[!gone, , drop = FALSE]
  if (!is.null(group)) model$data[[group]] <- droplevels(model$data[[group]])
  m <- polished_fit(model)
  list(criterion = if (lme4::isREML(m)) lme4::REMLcrit(m) else stats::deviance(m), names = names(lme4::fixef(m)),
       fixef = lme4::fixef(m), vcov = as.vector(as.matrix(stats::vcov(m))), sigma = stats::sigma(m))
}

lme4_influence <- function(request, group) {
  model <- describe_model(request)
  assign("frame", model$data, envir = globalenv())
  m <- eval(as.call(c(list(quote(lme4::lmer), formula = model$formula, data = quote(frame), REML = model$reml),
                      model$extra)))
  found <- suppressMessages(stats::influence(m, groups = group))
  list(units = rownames(found[[2]]), names = colnames(found[[2]]), cooks = stats::cooks.distance(found),
       dfbeta = as.vector(as.matrix(stats::dfbeta(found))), dfbetas = as.vector(as.matrix(stats::dfbetas(found))))
}

# Values of one quantity before and after all others.
order_of_asking <- function(request, first, then) {
  request$quantities <- first
  alone <- answer(request)$values
  request$quantities <- c(then, first)
  list(alone = alone[[1]]$values, after = answer(request)$values[[first]]$values)
}
