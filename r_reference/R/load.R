# Reads the reference functions into environments of their own, so that a function may have the name of its quantity
# (`fixef`, `sigma`, `fitted`) without hiding lme4's generic of that name from anything else.

load_reference <- function(directory) {
  suppressPackageStartupMessages(loadNamespace("lme4"))
  options(contrasts = c("contr.treatment", "contr.poly"), warn = 1, stringsAsFactors = FALSE,
          na.action = "na.omit", OutDec = ".", scipen = 0)
  reference <- new.env(parent = globalenv())
  for (file in c("call.R", "write.R", "model.R", "fit.R", "at_theta.R", "generalised.R", "answer.R", "timing.R"))
    sys.source(file.path(directory, file), envir = reference)
  for (source in c("quantities", "first_principles", "group_residuals", "deletion", "glm", "glmm", "hlmdiag")) {
    reference[[source]] <- new.env(parent = reference)
    sys.source(file.path(directory, paste0(source, ".R")), envir = reference[[source]])
  }
  reference
}

# A function by name: one of ours, or one of an R package if the name has a `::`.
find_function <- function(reference, name) {
  parts <- strsplit(name, "::", fixed = TRUE)[[1]]
  if (length(parts) == 2) getExportedValue(parts[1], parts[2])
  else get(name, envir = reference, mode = "function")
}
