# Rscript run.R --in request.json --out answer.json: the functions of this folder without an embedded R.
#
# The request is {"function": NAME, "arguments": {...}}; the answer is what `guarded` returns, with the same numbers
# to the last bit as through any other way in.

run <- function(arguments) {
  directory <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)[1]))
  source(file.path(directory, "load.R"), local = TRUE)
  reference <- load_reference(directory)
  request <- as_vectors(jsonlite::fromJSON(arguments[["--in"]], simplifyVector = FALSE))
  for (extra in request$sources) sys.source(extra, envir = reference)
  f <- find_function(reference, request$`function`)
  reply <- reference$guarded(f, request$arguments)
  part <- paste0(arguments[["--out"]], ".part")
  reference$write_json(reply, part)
  file.rename(part, arguments[["--out"]])
}

# Arrays as vectors. jsonlite's own simplification would take the text "NA" for a missing value and print numbers to 15
# digits where text stands beside them ("NaN", "Inf").
as_vectors <- function(x) {
  if (!is.list(x)) return(x)
  if (!is.null(names(x)) || !all(lengths(x) == 1) || any(vapply(x, is.list, NA))) return(lapply(x, as_vectors))
  text <- vapply(x, is.character, NA)
  if (all(text)) return(vapply(x, identity, ""))
  if (all(vapply(x, is.logical, NA))) return(vapply(x, identity, NA))
  vapply(x, as.double, 0)
}

parse_arguments <- function(words) {
  if (length(words) != 4 || !setequal(words[c(1, 3)], c("--in", "--out")))
    stop("usage: Rscript run.R --in request.json --out answer.json")
  structure(as.list(words[c(2, 4)]), names = words[c(1, 3)])
}

invisible(run(parse_arguments(commandArgs(trailingOnly = TRUE))))
