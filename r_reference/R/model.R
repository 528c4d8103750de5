# What a request describes: a data frame, a formula that is safe to evaluate, and the arguments for lme4.

# --- data -------------------------------------------------------------------------------------------------------

# Columns arrive as doubles, integers, or codes: -1 is missing, other codes count from 0. A factor is made from codes
# and levels here, so that neither the level order nor an unused level depends on a conversion.
data_column <- function(column) {
  if (column$kind == "double") return(na_for_nan(as.double(column$values)))
  codes <- as.integer(column$codes)
  if (column$kind == "integer") return(replace(codes, as.integer(column$missing) + 1L, NA_integer_))
  codes[codes < 0L] <- NA_integer_
  if (column$kind == "logical") return(codes == 1L)
  if (column$kind != "factor") stop("a column has the unknown kind ", sQuote(column$kind, FALSE))
  structure(codes + 1L, levels = as.character(column$levels),
            class = if (isTRUE(column$ordered)) c("ordered", "factor") else "factor")
}

# A factor made from doubles would get a level "NaN", but none for NA.
na_for_nan <- function(x) replace(x, is.nan(x), NA_real_)

data_frame <- function(columns, row_labels) {
  data <- lapply(columns, data_column)
  n <- unique(c(lengths(data), length(row_labels)))
  if (length(n) != 1) stop("the columns have different lengths: ", paste(n, collapse = ", "))
  structure(data, class = "data.frame", row.names = as.character(row_labels))
}

# --- formula ----------------------------------------------------------------------------------------------------

OPERATORS <- c("~", "+", "-", "*", "/", ":", "^", "%in%", "%%", "%/%", "(", "|", "||", "&", "&&", "!", "==", "!=",
               "<", ">", "<=", ">=")
FUNCTIONS <- c(
  "abs", "acos", "asin", "atan", "ceiling", "cos", "cosh", "exp", "expm1", "floor", "log", "log10", "log1p", "log2",
  "sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc", "round", "pmin", "pmax", "ifelse", "is.na", "c", "cbind",
  "I", "offset", "C", "factor", "ordered", "relevel", "as.factor", "as.integer", "as.logical", "as.numeric",
  "poly", "ns", "bs", "scale"
)
CONTRASTS <- c("contr.treatment", "contr.sum", "contr.helmert", "contr.poly", "contr.SAS", "contr.sdif")
STRUCTURES <- c("us", "diag", "cs", "ar1")
QUALIFIED <- c("splines::ns", "splines::bs", "stats::poly", "stats::C", "stats::offset", "stats::relevel",
               "MASS::contr.sdif")
BARE_WORDS <- c(CONTRASTS, "treatment", "sum", "helmert", "poly", "SAS", "sdif", "pi", ".")

refuse <- function(...) stop("the formula is refused: ", ..., call. = FALSE)

# The text is ours, rebuilt from a parsed tree; it is checked again here because evaluating it is what R will do.
checked_formula <- function(text, columns) {
  parsed <- parse(text = text, keep.source = FALSE)
  if (length(parsed) != 1 || !is.call(parsed[[1]]) || !identical(parsed[[1]][[1]], as.name("~")) ||
      length(parsed[[1]]) != 3)
    refuse("it is not of the form `response ~ terms`")
  check_expression(parsed[[1]], columns)
  formula <- eval(parsed[[1]], baseenv())
  environment(formula) <- formula_environment()
  formula
}

check_expression <- function(expression, columns) {
  if (is_qualified(expression)) return(invisible())
  if (is.call(expression)) {
    check_function(expression[[1]])
    for (i in seq_along(expression)[-1]) check_expression(expression[[i]], columns)
  } else if (is.symbol(expression)) {
    name <- as.character(expression)
    if (!(name %in% c(columns, BARE_WORDS))) refuse("the data have no column ", sQuote(name, FALSE))
  } else if (!is.null(expression) && !(is.atomic(expression) && length(expression) == 1)) {
    refuse("it contains an object of class ", class(expression)[1])
  }
}

is_qualified <- function(x) {
  is.call(x) && identical(x[[1]], as.name("::")) && paste(deparse(x), collapse = "") %in% QUALIFIED
}

check_function <- function(head) {
  name <- paste(deparse(head), collapse = "")
  if (name %in% STRUCTURES && utils::packageVersion("lme4") < "2.0")
    unsupported_model("the covariance structure ", name, "() needs lme4 2.0; here is ",
                      as.character(utils::packageVersion("lme4")))
  known <- (is.symbol(head) && as.character(head) %in% c(OPERATORS, FUNCTIONS, CONTRASTS, STRUCTURES)) ||
    is_qualified(head)
  if (!known) refuse("it calls ", sQuote(name, FALSE), ", which is not a function of model formulas")
}

# The splines and MASS functions are found without attaching their packages.
formula_environment <- function() {
  env <- new.env(parent = globalenv())
  env$ns <- splines::ns
  env$bs <- splines::bs
  if (requireNamespace("MASS", quietly = TRUE)) env$contr.sdif <- MASS::contr.sdif
  env
}

# --- model ------------------------------------------------------------------------------------------------------

describe_model <- function(request) {
  family <- model_family(request)
  data <- data_frame(request$columns, request$row_labels)
  for (role in c("weights", "offset")) check_column(request[[role]], role, names(data))
  formula <- checked_formula(request$formula, names(data))
  list(
    data = data,
    formula = formula,
    family = family,
    mixed = length(lme4::findbars(formula)) > 0,
    nagq = if (is.null(request$nagq)) 1L else as.integer(request$nagq),
    reml = isTRUE(as.logical(request$reml)),
    extra = c(
      if (!is.null(request$weights)) list(weights = as.name(request$weights)),
      if (!is.null(request$offset)) list(offset = as.name(request$offset)),
      if (length(request$contrasts)) list(contrasts = lapply(request$contrasts, contrast_function))
    )
  )
}

check_column <- function(name, role, columns) {
  if (!is.null(name) && !(name %in% columns))
    stop("the data have no column ", sQuote(name, FALSE), " (", role, ")", call. = FALSE)
}

contrast_function <- function(name) {
  if (!(name %in% CONTRASTS)) stop("unknown contrasts ", sQuote(name, FALSE), call. = FALSE)
  if (name == "contr.sdif") MASS::contr.sdif else name
}

# `model_call(model, quote(lme4::lmer))`: data by name, weights and offset as symbols, as lme4 expects them.
model_call <- function(model, f) {
  as.call(c(list(f, formula = model$formula, data = quote(data), REML = model$reml), model$extra))
}

evaluate_call <- function(model, call) {
  env <- new.env(parent = environment(model$formula))
  env$data <- model$data
  env$family <- model$family
  eval(call, env)
}
