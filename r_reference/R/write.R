# JSON whose numbers read back to the same double, and what is needed to say where a number came from.

# 17 significant digits identify a double; JSON has no NaN and no infinities, and readers take "-0" for an integer.
exact <- function(x) {
  x <- as.double(x)
  text <- sprintf("%.17g", x)
  text[x == 0 & 1 / x < 0] <- "-0.0"
  text[is.nan(x) | is.na(x)] <- "\"NaN\""
  text[is.infinite(x)] <- ifelse(x[is.infinite(x)] > 0, "\"Inf\"", "\"-Inf\"")
  text
}

quoted <- function(x) {
  x <- enc2utf8(as.character(x))
  text <- gsub("\"", "\\\"", gsub("\\", "\\\\", x, fixed = TRUE), fixed = TRUE)
  text <- gsub("\n", "\\n", gsub("\t", "\\t", gsub("\r", "\\r", text, fixed = TRUE), fixed = TRUE), fixed = TRUE)
  text <- gsub("[[:cntrl:]]", " ", text)
  ifelse(is.na(x), "null", paste0("\"", text, "\""))
}

# Every vector becomes an array, also one of length one; a list with names becomes an object.
to_json <- function(x) {
  if (is.null(x)) return("null")
  if (is.list(x)) {
    parts <- vapply(x, to_json, "")
    if (is.null(names(x))) return(paste0("[", paste(parts, collapse = ","), "]"))
    return(paste0("{", paste(paste0(quoted(names(x)), rep(":", length(x)), parts), collapse = ","), "}"))
  }
  parts <- if (is.character(x)) quoted(x)
           else if (is.logical(x)) ifelse(is.na(x), "null", ifelse(x, "true", "false"))
           else exact(x)
  paste0("[", paste(parts, collapse = ","), "]")
}

write_json <- function(x, path) {
  connection <- file(path, open = "wb")
  on.exit(close(connection))
  writeBin(charToRaw(enc2utf8(to_json(x))), connection)
}

installed_version <- function(package) {
  if (requireNamespace(package, quietly = TRUE)) as.character(utils::packageVersion(package)) else NA_character_
}

provenance <- function() {
  packages <- c("lme4", "Matrix", "nloptr", "minqa", "HLMdiag", "nlme", "MASS")
  session <- utils::sessionInfo()
  list(
    r = as.character(getRversion()),
    r_version = R.version.string,
    platform = R.version$platform,
    packages = as.list(vapply(packages, installed_version, "")),
    blas = if (is.null(session$BLAS)) "" else session$BLAS,
    lapack = if (is.null(session$LAPACK)) "" else session$LAPACK,
    lapack_version = La_version(),
    locale = Sys.getlocale("LC_COLLATE"),
    session = utils::capture.output(print(session))
  )
}
