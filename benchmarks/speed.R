# Times lme4::lmer, formula to fitted model, at its default settings; `repeats` fits, wall time of each in seconds.
# The first fit of a session pays for loading and byte-compiling; the caller asks for one round more than it uses.

time_lmer <- function(request, repeats) {
  model <- describe_model(request)
  call <- model_call(model, quote(lme4::lmer))
  seconds <- vapply(seq_len(repeats), function(i) {
    start <- Sys.time()
    evaluate_call(model, call)
    as.double(difftime(Sys.time(), start, units = "secs"))
  }, 0)
  m <- evaluate_call(model, call)
  list(seconds = seconds, criterion = as.double(lme4::REMLcrit(m)), fixef = as.double(lme4::fixef(m)))
}
