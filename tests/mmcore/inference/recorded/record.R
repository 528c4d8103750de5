# Writes tests.json: what lmerTest and pbkrtest compute at a given theta, 17 digits.
#   Rscript record.R > tests.json
# Data sets are those of lme4, nlme, mlmRev and MASS, with a Python loader of the same name.
suppressMessages({ library(lme4); library(lmerTest); library(pbkrtest) })
options(warn = 1)
num <- function(x) ifelse(is.na(x), "null", sprintf("%.17g", as.numeric(x)))
vec <- function(x) paste0("[", paste(num(x), collapse = ","), "]")
str_ <- function(x) paste0('"', gsub('"', '\\\\"', gsub("\\\\", "\\\\\\\\", x)), '"')
strs <- function(x) paste0("[", paste(str_(x), collapse = ","), "]")
table_ <- function(x) {
  x <- as.data.frame(x, check.names = FALSE)
  parts <- vapply(names(x), function(n) paste0(str_(n), ":", vec(x[[n]])), "")
  paste0('{"row":', strs(rownames(x)), ",", paste(parts, collapse = ","), "}")
}
get_data <- function(name) {
  for (p in c("lme4", "nlme", "MASS")) {
    e <- new.env()
    suppressWarnings(data(list = name, package = p, envir = e))
    if (exists(name, envir = e)) return(as.data.frame(get(name, envir = e)))
  }
  stop(name)
}
case <- function(name, data, formula, reml = TRUE, contrasts = NULL, weights = FALSE, offset = FALSE, drop = NULL, ranova = TRUE) {
  d <- get_data(data)
  for (v in names(d)) if (is.ordered(d[[v]]) && data %in% c("Machines", "Oats", "Orthodont", "ergoStool", "Alfalfa", "Pixel", "Oxide", "Wafer", "BodyWeight", "Rail"))
    d[[v]] <- d[[v]]
  if (!is.null(drop)) d <- droplevels(d[!eval(parse(text = drop), d), ])
  n <- nrow(d)
  args <- list(formula = as.formula(formula), data = d, REML = reml)
  if (!is.null(contrasts)) args$contrasts <- contrasts
  if (weights) { d$.w <- 0.5 + (seq_len(n) %% 5) / 2; args$data <- d; args$weights <- d$.w }
  if (offset) { d$.o <- 10 * sin(seq_len(n)); args$data <- d; args$offset <- d$.o }
  args$control <- lmerControl(check.conv.singular = "ignore", optimizer = "bobyqa", optCtrl = list(rhobeg = 0.2, rhoend = 2e-9),
    check.conv.grad = "ignore", check.conv.hess = "ignore")
  m <- suppressMessages(suppressWarnings(do.call(lmerTest::lmer, args)))
  out <- c(name = str_(name), dataset = str_(data), formula = str_(formula), reml = tolower(reml),
    weights = tolower(weights), offset = tolower(offset),
    drop = if (is.null(drop)) "null" else str_(drop),
    contrasts = if (is.null(contrasts)) "null" else paste0("{", paste0(str_(names(contrasts)), ":", str_(unlist(contrasts)), collapse = ","), "}"),
    theta = vec(getME(m, "theta")), sigma = num(sigma(m)), singular = tolower(isSingular(m)))
  quiet <- function(x) suppressMessages(suppressWarnings(x))
  out["coefficients satterthwaite"] <- table_(quiet(coef(summary(m))))
  for (type in c("I", "II", "III")) out[paste("anova", type, "satterthwaite")] <- table_(quiet(anova(m, type = type)))
  if (reml && !weights) {  # pbkrtest ignores weights
    out["coefficients kenward-roger"] <- table_(quiet(coef(summary(m, ddf = "Kenward-Roger"))))
    out["vcov_kr"] <- vec(as.matrix(quiet(vcovAdj(m))))
    for (type in c("I", "II", "III")) out[paste("anova", type, "kenward-roger")] <- table_(quiet(anova(m, type = type, ddf = "Kenward-Roger")))
  }
  out["drop1 F"] <- table_(quiet(drop1(m)))
  cat(if (first) "" else ",\n", "{", paste0(str_(names(out)), ":", out, collapse = ",\n "), "}", sep = "")
  first <<- FALSE
}
first <- TRUE
cat("[")
case("sleepstudy_ml", "sleepstudy", "Reaction ~ Days + (Days | Subject)", reml = FALSE)
case("sleepstudy_double_bar", "sleepstudy", "Reaction ~ Days + (Days || Subject)")
case("sleepstudy_weights", "sleepstudy", "Reaction ~ Days + (Days | Subject)", weights = TRUE)
case("sleepstudy_offset", "sleepstudy", "Reaction ~ Days + (Days | Subject)", offset = TRUE)
case("sleepstudy_no_intercept", "sleepstudy", "Reaction ~ 0 + Days + (1 | Subject)")
case("sleepstudy_quadratic", "sleepstudy", "Reaction ~ Days + I(Days^2) + (Days | Subject)")
case("sleepstudy_aliased", "sleepstudy", "Reaction ~ Days + I(2 * Days) + I(Days^2) + (1 | Subject)")
case("machines_slopes", "Machines", "score ~ Machine + (Machine | Worker)")
case("machines_cell_effects", "Machines", "score ~ Machine + (0 + Machine | Worker)")
case("machines_no_intercept", "Machines", "score ~ 0 + Machine + (1 | Worker)")
case("machines_sum_weights", "Machines", "score ~ Machine + (1 | Worker)", contrasts = list(Machine = "contr.sum"), weights = TRUE)
case("machines_unbalanced", "Machines", "score ~ Machine + (1 | Worker/Machine)", drop = "seq_along(score) %% 5 == 2")
case("penicillin_crossed", "Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", reml = FALSE)
case("pastes_singular", "Pastes", "strength ~ 1 + (1 | batch/cask)")
case("dyestuff2_zero", "Dyestuff2", "Yield ~ 1 + (1 | Batch)")
case("cake_poly", "cake", "angle ~ recipe * temperature + (1 | recipe:replicate)")
case("cake_sum_helmert", "cake", "angle ~ recipe * temperature + (1 | recipe:replicate)",
  contrasts = list(recipe = "contr.sum", temperature = "contr.helmert"))
case("cake_crossed", "cake", "angle ~ recipe + temp + (1 | replicate) + (1 | temperature)")
case("cake_singular_slope", "cake", "angle ~ recipe + temp + (temp | replicate)")
case("cake_unbalanced", "cake", "angle ~ recipe * temperature + (1 | replicate)", drop = "seq_along(angle) %% 7 %in% c(1, 4)")
case("cake_empty_cell", "cake", "angle ~ recipe * temperature + (1 | replicate)",
  contrasts = list(temperature = "contr.treatment"), drop = "recipe == 'B' & temperature == '205'")
case("oats_numeric_by_factor", "Oats", "yield ~ Variety * nitro + (1 | Block/Variety)", reml = FALSE, drop = "seq_along(yield) %% 6 == 3")
case("orthodont_double_bar", "Orthodont", "distance ~ age * Sex + (age || Subject)")
case("orthodont_weights_ml", "Orthodont", "distance ~ age * Sex + (1 | Subject)", reml = FALSE, weights = TRUE)
case("bodyweight_slope", "BodyWeight", "weight ~ Time * Diet + (Time | Rat)")
case("alfalfa_split", "Alfalfa", "Yield ~ Variety * Date + (1 | Block/Variety)")
case("pixel_nested_slopes", "Pixel", "pixel ~ day + I(day^2) + (day | Dog) + (1 | Side:Dog)")
case("ergostool_small", "ergoStool", "effort ~ Type + (1 | Subject)")
case("oxide_two_levels", "Oxide", "Thickness ~ Source + (1 | Lot/Wafer)")
case("quine_three_way", "quine", "Days ~ Sex * Age + Lrn + Eth:Sex + (1 | Age:Eth)", ranova = FALSE)
case("nlschools_slopes", "nlschools", "lang ~ IQ * SES + COMB + (IQ | class)")
cat("]\n")
