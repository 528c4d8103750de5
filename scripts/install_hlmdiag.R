# Installs HLMdiag from the CRAN mirror that this R is set up for, or else the first one of R's own list.
#
#   Rscript install_hlmdiag.R check               exit code 0 if the mirror answers and has HLMdiag
#   Rscript install_hlmdiag.R install LIBRARY     installs it, and what it needs, into LIBRARY

options(timeout = 20)
mirror <- getOption("repos")["CRAN"]
if (is.na(mirror) || mirror == "@CRAN@") chooseCRANmirror(ind = 1)

arguments <- commandArgs(trailingOnly = TRUE)
offered <- tryCatch(rownames(available.packages()), error = function(e) character())
if (!"HLMdiag" %in% offered) quit(status = 3)
if (arguments[1] == "install") {
  options(timeout = 600)
  .libPaths(c(arguments[2], .libPaths()))
  install.packages("HLMdiag", lib = arguments[2], dependencies = NA)
  if (!requireNamespace("HLMdiag", quietly = TRUE)) quit(status = 4)
}
