# Records what R makes of the formulas below: Rscript designs.R, in this folder. The tests read designs.json.
suppressMessages({library(lme4); library(splines); library(MASS); library(jsonlite)})
invisible(Sys.setlocale("LC_COLLATE", "C"))
d <- read.csv("designs.csv", check.names = FALSE)
d$o <- factor(d$o, levels = c("lo", "mid", "hi", "max", "top"), ordered = TRUE)
d$f <- factor(d$f, levels = c("z", "a", "m", "unused"))
d$g <- factor(d$g, levels = paste0("g", 5:1))
d$h <- factor(d$h)

fixed <- c(
  "y ~ x", "y ~ f", "y ~ 0 + f", "y ~ f - 1 + x", "y ~ x + x:f", "y ~ x:f", "y ~ 0 + x:f", "y ~ 0 + x + x:f", "y ~ f:h",
  "y ~ f * h", "y ~ f * h - f", "y ~ f * b * x", "y ~ (f + h + b)^2", "y ~ (f + b + x)^3 - f:b:x", "y ~ f/b", "y ~ f/b/x",
  "y ~ (f + b)/x", "y ~ b %in% f", "y ~ f + b %in% f", "y ~ o", "y ~ 0 + o", "y ~ o:x", "y ~ o * b", "y ~ b", "y ~ 0 + b", "y ~ b:f",
  "y ~ b:x", "y ~ s", "y ~ 0 + x:b + h", "y ~ f:b + f:x", "y ~ f + h + b:h:x", "y ~ x^2", "y ~ x * z * f", "y ~ h:x + f:x",
  "y ~ x + z:x", "y ~ x:z", "y ~ f + h - 1 + f:h", "y ~ x + f - f", "y ~ (x + f) - x", "y ~ x - 1 + 1", "y ~ -1 + x", "y ~ 1",
  "y ~ I(x^2)", "y ~ I(x * 0.5 + 1e5) + I(x^2 - 1)", "log(y) ~ log(z, base = 2)", "y ~ log(z) + exp(x) + sqrt(z) + log1p(z)",
  "y/z ~ x", "I(y^2) ~ x", "y ~ I(x > 0) * b", "y ~ (x > 0) + (f == \"a\")", "y ~ x %% 2 + round(z, 1)", "y ~ I(-(x + 1))",
  "y ~ pmax(x, 0) + ifelse(x > 0, x, 0)", "y ~ I(b & x > 0) + is.na(xna)", "y ~ poly(x, 3)", "y ~ poly(z, 2) * b", "y ~ poly(x, 1)",
  "y ~ poly(x, degree = 2, raw = TRUE)", "y ~ ns(x, 3)", "y ~ ns(x, df = 2, intercept = TRUE) - 1",
  "y ~ ns(x, knots = c(-0.3, 0.4), Boundary.knots = c(-1, 1))", "y ~ bs(x)", "y ~ bs(x, df = 5)", "y ~ bs(x, knots = 0, degree = 2)",
  "y ~ scale(x)", "y ~ scale(x, scale = FALSE) + scale(z, center = FALSE)", "y ~ scale(xna)", "y ~ factor(k)", "y ~ factor(num)",
  "y ~ factor(k, labels = c(\"k1\", \"k2\", \"k3\", \"k4\"))", "y ~ as.factor(k):x", "y ~ as.numeric(f)", "y ~ ordered(k)",
  "y ~ relevel(h, ref = \"r\")", "y ~ C(h, sum)", "y ~ C(h, contr.helmert)", "y ~ C(h, contr.sdif)", "y ~ C(o, contr.treatment)",
  "y ~ C(h, \"contr.SAS\")", "y ~ offset(z) + x", "y ~ offset(log(z)) + offset(x)", "y ~ `my x` * b", "y ~ x + I(2 * x) + z",
  "y ~ f + h + f:h + f:h:b", "y ~ . - s - xna - gna - num - o - g", "y ~ xna + x", "y ~ xna + gna")
coded <- list(
  list("y ~ f * b", list(f = "contr.sum")), list("y ~ f + h", list(f = "contr.SAS", h = "contr.sdif")),
  list("y ~ o + f", list(o = "contr.treatment", f = "contr.poly")), list("y ~ f:b + x", list(f = "contr.helmert")))
mixed <- c(
  "y ~ x + (1 | g)", "y ~ x + (x | g)", "y ~ x + (x || g)", "y ~ x + (f || g)", "y ~ x + (0 + f | g)", "y ~ (1 | h) + (1 | g)",
  "y ~ (1 | h) + (1 | f) + (1 | g)", "y ~ (1 | f) + (1 | g) + (0 + x | f)", "y ~ (1 | f) + (0 + x | f)", "y ~ (1 | f/h)",
  "y ~ (x | h/f)", "y ~ (1 | b/f/h)", "y ~ (1 | f:h)", "y ~ (1 | f:h) + (1 | h:f)", "y ~ (1 | f:h:b)", "y ~ (x || f/h)",
  "y ~ (x * z || g)", "y ~ (0 + x || g)", "y ~ (1 | k)", "y ~ (1 | num)", "y ~ (1 | b)", "y ~ (1 | s)", "y ~ (1 | num/s)", "y ~ (1 | o)",
  "y ~ 0 + (1 | g)", "y ~ f - 1 + (f - 1 | g)", "y ~ x + (1 | gna)", "y ~ xna + (x | gna)", "y ~ `my x` + (`my x` | g)",
  "y ~ poly(x, 2) + (poly(x, 2) | g)", "y ~ scale(x) + (scale(x) | g)", "y ~ o + (o | h)", "y ~ (0 + b | h)",
  "y ~ offset(z) + x + (x + z | g)", "y ~ f + x | g", "y ~ f * h + (0 + h | g) + (1 | s)", "y ~ (k | k)", "y ~ (x:f | g)",
  "y ~ x + (factor(b) | h)", "y ~ . - s - xna - gna - num - o + (1 | g)")

ignore <- lmerControl(check.nobs.vs.nlev = "ignore", check.nobs.vs.nRE = "ignore", check.scaleX = "ignore")
columns <- function(X) lapply(seq_len(ncol(X)), function(j) unname(X[, j]))
term <- function(k, re) {
  Zt <- re$Ztlist[[k]]; names <- re$cnms[[k]]; group <- re$flist[[attr(re$flist, "assign")[k]]]
  of <- function(j) unname(Matrix::colSums(Zt[seq(j, by = length(names), length.out = nlevels(group)), , drop = FALSE]))
  list(group = names(re$cnms)[k], effects = as.list(names), levels = as.list(levels(group)), codes = as.integer(group) - 1L,
       columns = lapply(seq_along(names), of))
}
record_fixed <- function(text, contrasts = NULL) {
  f <- as.formula(text)
  frame <- model.frame(f, d, drop.unused.levels = TRUE)
  X <- model.matrix(terms(f, data = d), frame, contrasts.arg = contrasts)
  qrX <- qr(X, tol = 1e-7)
  X <- X[, qrX$pivot[seq_len(qrX$rank)], drop = FALSE]
  list(formula = text, contrasts = contrasts, names = as.list(colnames(X)), columns = columns(X), y = unname(model.response(frame)),
       rows = as.integer(rownames(frame)) - 1L, offset = model.offset(frame), frame = as.list(names(frame)), terms = list())
}
record_mixed <- function(text) {
  l <- suppressWarnings(suppressMessages(lFormula(as.formula(text), d, control = ignore)))
  list(formula = text, contrasts = NULL, names = as.list(colnames(l$X)), columns = columns(l$X), y = unname(model.response(l$fr)),
       rows = as.integer(rownames(l$fr)) - 1L, offset = model.offset(l$fr), frame = as.list(names(l$fr)),
       terms = lapply(seq_along(l$reTrms$cnms), term, l$reTrms))
}
cases <- c(lapply(fixed, record_fixed), lapply(coded, function(case) record_fixed(case[[1]], case[[2]])), lapply(mixed, record_mixed))
out <- list(R = as.character(getRversion()), lme4 = as.character(packageVersion("lme4")), cases = cases)
text <- toJSON(out, digits = NA, null = "null", auto_unbox = TRUE)
writeLines(gsub("},{\"formula\"", "},\n{\"formula\"", text, fixed = TRUE), "designs.json")
