# Wall and mean CPU time of fits, formula to fitted model, at default settings: for benchmarks only.
#
# The first fit of a session pays for loading and byte-compiling; the caller asks for one more than it uses.

time_fits <- function(request, repeats) {
  model <- describe_model(request)
  call <- timed_call(model)
  seconds <- double(repeats)
  cpu <- proc.time()
  for (i in seq_len(repeats)) {
    start <- Sys.time()
    fitted <- evaluate_call(model, call)
    seconds[i] <- as.double(difftime(Sys.time(), start, units = "secs"))
  }
  cpu <- sum((proc.time() - cpu)[c("user.self", "sys.self")]) / repeats
  mixed <- inherits(fitted, "merMod")
  restricted <- mixed && lme4::isREML(fitted)
  criterion <- if (restricted) lme4::REMLcrit(fitted) else -2 * as.double(stats::logLik(fitted))
  evaluations <- if (mixed) fitted@optinfo$feval else fitted$iter
  list(seconds = seconds, cpu = cpu, criterion = as.double(criterion), evaluations = as.double(evaluations))
}

# What a user writes: lmer, glmer or glm with their defaults.
timed_call <- function(model) {
  if (is_linear_mixed(model)) return(model_call(model, quote(lme4::lmer)))
  if (model$mixed) return(generalised_call(model, quote(lme4::glmer), nAGQ = model$nagq))
  generalised_call(model, quote(stats::glm))
}

# Peak memory that one fit adds, in MB (Linux): the largest resident set during the fit minus the one before it.
# Ask a fresh process: memory that an earlier fit left to R would be used again and not counted.

memory_of_fit <- function(request) {
  model <- describe_model(request)
  call <- model_call(model, quote(lme4::lmer))
  loadNamespace("lme4")
  gc()
  try(cat("5", file = "/proc/self/clear_refs"), silent = TRUE)
  before <- resident("VmRSS")
  evaluate_call(model, call)
  list(peak_mb = max(0, resident("VmHWM") - before))
}

resident <- function(field) {
  line <- grep(paste0("^", field, ":"), readLines("/proc/self/status"), value = TRUE)
  as.double(gsub("[^0-9]", "", line)) / 1024
}
