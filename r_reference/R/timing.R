# Wall time of fits, formula to fitted model, at default settings: for benchmarks only.
#
# The first fit of a session pays for loading and byte-compiling; the caller asks for one more than it uses.

time_fits <- function(request, repeats) {
  model <- describe_model(request)
  call <- model_call(model, quote(lme4::lmer))
  seconds <- double(repeats)
  for (i in seq_len(repeats)) {
    start <- Sys.time()
    fitted <- evaluate_call(model, call)
    seconds[i] <- as.double(difftime(Sys.time(), start, units = "secs"))
  }
  criterion <- if (lme4::isREML(fitted)) lme4::REMLcrit(fitted) else -2 * as.double(stats::logLik(fitted))
  list(seconds = seconds, criterion = as.double(criterion), evaluations = as.double(fitted@optinfo$feval))
}
