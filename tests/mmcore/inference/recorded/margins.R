# Records what R says of the models below: Rscript margins.R, in this folder. The tests read margins.json.
# lm, glm and weighted models by clubSandwich and sandwich; means and contrasts by emmeans.
suppressMessages({library(lme4); library(lmerTest); library(emmeans); library(clubSandwich); library(sandwich)})
emm_options(msg.nesting = FALSE, msg.interaction = FALSE, lmer.df = "asymptotic")
exact <- function(x) if (is.numeric(x)) sprintf("%.17g", as.numeric(x)) else as.character(x)
Oats <- as.data.frame(nlme::Oats); Oats$Variety <- factor(as.character(Oats$Variety)); Oats$nf <- factor(Oats$nitro)
Oats$Block <- factor(as.character(Oats$Block))
sleep <- as.data.frame(sleepstudy); sleep$w <- 1 + (seq_len(180) %% 5) / 2; sleep$late <- as.numeric(sleep$Days > 4)
data(cbpp); tight <- glm.control(epsilon = 1e-15, maxit = 100)
gap <- Oats[!(Oats$Variety == "Victory" & Oats$nf == "0.6"), ]
pastes <- Pastes[Pastes$batch %in% c("A", "B", "C"), ]; pastes <- droplevels(pastes)[-(1:2), ]
models <- list(
  lm = lm(Reaction ~ Days, sleep), wlm = lm(Reaction ~ Days, sleep, weights = w),
  binomial = glm(cbind(incidence, size - incidence) ~ period, binomial, cbpp, control = tight),
  poisson = glm(incidence ~ period + offset(log(size)), poisson, cbpp, control = tight),
  gamma = glm(Reaction ~ Days, Gamma(link = "log"), sleep, weights = w, control = tight),
  quadratic = lm(Reaction ~ poly(Days, 2) + Subject, sleep), late = lm(Reaction ~ late + Subject, sleep),
  interaction = lm(yield ~ Variety * nf, Oats), slope = lm(yield ~ Variety * nitro, Oats), gap = lm(yield ~ Variety * nf, gap),
  nested = lm(strength ~ batch + sample, pastes), sums = lm(yield ~ Variety * nf, Oats, contrasts = list(Variety = "contr.sum")),
  coded = lm(Reaction ~ factor(Days) + Subject, sleep), gammanf = glm(yield ~ Variety + nf, Gamma(link = "log"), Oats, control = tight))
table <- function(t, columns) {
  t <- as.data.frame(t); c(list(.row = as.character(t[[1]])), lapply(t[intersect(columns, names(t))], exact))
}
means <- c("emmean", "SE", "df", "lower.CL", "upper.CL", "asymp.LCL", "asymp.UCL", "prob", "rate", "response")
tests <- c("estimate", "SE", "df", "t.ratio", "z.ratio", "p.value")
robust <- list()
clusters <- list(lm = sleep$Subject, wlm = sleep$Subject, binomial = cbpp$herd, poisson = cbpp$herd, gamma = sleep$Subject)
for (m in names(clusters)) for (type in c("CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3")) {
  v <- vcovCR(models[[m]], cluster = clusters[[m]], type = type)
  t <- coef_test(models[[m]], v)
  robust[[m]][[type]] <- list(vcov = exact(as.matrix(v)), df = exact(t$df_Satt), p = exact(t$p_Satt), rows = rownames(as.matrix(v)))
}
for (m in names(clusters)) for (type in paste0("HC", 0:4))
  robust[[m]][[type]] <- list(vcov = exact(vcovHC(models[[m]], type = type)))
emm <- list()
add <- function(id, e, what = means) emm[[id]] <<- table(e, what)
add("binomial|period", emmeans(models$binomial, ~period)); add("binomial|period|response", emmeans(models$binomial, ~period, type = "response"))
add("binomial|period|pairs", pairs(emmeans(models$binomial, ~period)), tests); add("poisson|period", emmeans(models$poisson, ~period))
add("quadratic|Subject", emmeans(models$quadratic, ~Subject)); add("late|Subject", emmeans(models$late, ~Subject))
add("late|late|pairs", pairs(emmeans(models$late, ~late)), tests)
e <- emmeans(models$interaction, ~nf); add("interaction|nf", e)
for (a in c("tukey", "holm", "bonferroni", "sidak", "fdr", "none")) add(paste0("interaction|nf|pairs|", a), pairs(e, adjust = a), tests)
for (k in c("poly", "eff", "trt.vs.ctrl", "consec")) add(paste0("interaction|nf|contrast|", k), contrast(e, k, adjust = "none"), tests)
add("interaction|nf:Variety|pairs", pairs(emmeans(models$interaction, ~nf:Variety)), tests)
add("interaction|nf by Variety|pairs", pairs(emmeans(models$interaction, ~nf | Variety)), tests)
add("slope|Variety:nitro|at", emmeans(models$slope, ~Variety * nitro, at = list(nitro = c(0, 0.6))))
add("slope|Variety:nitro|at|pairs", pairs(emmeans(models$slope, ~Variety * nitro, at = list(nitro = c(0, 0.6)))), tests)
add("gap|Variety", emmeans(models$gap, ~Variety)); add("gap|Variety|pairs", pairs(emmeans(models$gap, ~Variety)), tests)
add("nested|batch", emmeans(models$nested, ~batch)); add("sums|Variety", emmeans(models$sums, ~Variety))
add("coded|Days|pairs", pairs(emmeans(models$coded, ~Days), adjust = "holm"), tests); add("gammanf|nf", emmeans(models$gammanf, ~nf))
versions <- sapply(c("emmeans", "clubSandwich", "sandwich", "lme4"), function(p) as.character(packageVersion(p)))
jsonlite::write_json(list(R = as.character(getRversion()), versions = as.list(versions), robust = robust, emmeans = emm),
  "margins.json", auto_unbox = FALSE, digits = NA)
