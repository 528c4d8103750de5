# Rscript facts.R: what this R has, one "name<TAB>value" per line. Base R only, so that it works where nothing else does.

local({
  version <- function(package) {
    if (nzchar(system.file(package = package))) as.character(utils::packageVersion(package)) else ""
  }
  packages <- c("lme4", "Matrix", "nlme", "MASS", "mlmRev", "lmerTest", "pbkrtest", "car", "sandwich", "clubSandwich",
                "jsonlite", "glmmTMB", "nloptr", "minqa", "HLMdiag")
  values <- c(r = as.character(getRversion()), home = R.home(), platform = R.version$platform,
              blas = unname(extSoftVersion()["BLAS"]), lapack = La_version(), libraries = paste(.libPaths(), collapse = ":"),
              vapply(packages, version, ""))
  cat(paste(names(values), values, sep = "\t"), sep = "\n")
})
