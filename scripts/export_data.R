# Writes the shipped data sets and their manifest from the R packages that own them.
#
#   Rscript scripts/export_data.R [FOLDER]        default folder: r_reference/data
#
# Numbers get 15 significant digits where R reads those back as the same double, else 17; a missing value is NA;
# a factor is written by label, its level order is in the manifest. Files above 100 kB are gzipped (no time stamp
# inside, so the same data give the same bytes). Entries of the manifest that no package rebuilds (lme4 keeps them in its
# source tree only) are left as they are.

suppressMessages({
  library(jsonlite)
  for (package in c("lme4", "nlme", "mlmRev", "MASS")) library(package, character.only = TRUE)
})

sets <- list(
  lme4 = c("Arabidopsis", "Dyestuff", "Dyestuff2", "InstEval", "Pastes", "Penicillin", "VerbAgg", "cake", "cbpp",
           "grouseticks", "sleepstudy"),
  nlme = c("Alfalfa", "Assay", "BodyWeight", "Cefamandole", "Dialyzer", "Gasoline", "Glucose2", "IGF", "Machines",
           "MathAchSchool", "MathAchieve", "Milk", "Muscle", "Nitrendipene", "Oats", "Orthodont", "Ovary", "Oxboys",
           "Oxide", "PBG", "Phenobarb", "Pixel", "Quinidine", "Rail", "RatPupWeight", "Relaxin", "Remifentanil",
           "Soybean", "Spruce", "Tetracycline1", "Wafer", "Wheat2", "ergoStool"),
  mlmRev = c("Contraception", "Early", "Exam", "Gcsemv", "Hsb82", "Mmmec", "ScotsSec", "Socatt"),
  MASS = c("Traffic", "anorexia", "bacteria", "epil", "immer", "nlschools", "oats", "petrol", "quine", "ships", "snails")
)

testdata <- list( # name of the set = c(file of lme4's testdata folder, object in it)
  culcita = c("culcita_dat.RData", "culcita_dat"),
  fakesim = c("fakesim.RData", "dat"),
  gopherdat2 = c("gopherdat2.RData", "Gdat"),
  gotway_hessianfly = c("gotway_hessianfly.rda", "gotway.hessianfly"),
  radinger = c("radinger_dat.RData", "radinger_dat"),
  respiratory = c("respiratory.RData", "respiratory")
)

from_package <- function(name, package) {
  scratch <- new.env()
  data(list = name, package = package, envir = scratch)
  as.data.frame(get(name, envir = scratch))
}

from_testdata <- function(where) {
  scratch <- new.env()
  load(system.file("testdata", where[1], package = "lme4", mustWork = TRUE), envir = scratch)
  as.data.frame(get(where[2], envir = scratch))
}

# Pupils of 160 schools with the variables of their school: the High School and Beyond data as taught in HLM courses.
hsb_merged <- function() {
  pupils <- from_package("MathAchieve", "nlme")
  schools <- from_package("MathAchSchool", "nlme")
  school <- schools[match(as.character(pupils$School), as.character(schools$School)), ]
  data.frame(
    id = as.character(pupils$School), female = as.integer(pupils$Sex == "Female"),
    minority = as.integer(pupils$Minority == "Yes"), ses = pupils$SES, mathach = pupils$MathAch,
    meanses_A = pupils$MEANSES, size = school$Size, sector = as.integer(school$Sector == "Catholic"),
    pracad = school$PRACAD, disclim = school$DISCLIM, himinty = as.integer(as.character(school$HIMINTY)),
    meanses = school$MEANSES
  )
}

number_text <- function(x) {
  text <- rep(NA_character_, length(x))
  for (digits in c(15, 17)) {
    todo <- !is.na(x) & (is.na(text) | as.numeric(text) != x)
    text[todo] <- sprintf(paste0("%.", digits, "g"), x[todo])
  }
  text
}

quoted <- function(text) {
  needs <- !is.na(text) & grepl("[\",\n]|^NA$|^$|^ | $", text)
  text[needs] <- paste0('"', gsub('"', '""', text[needs], fixed = TRUE), '"')
  text
}

cell_text <- function(column) {
  text <- if (is.factor(column) || is.character(column)) quoted(as.character(column))
          else if (is.integer(column)) as.character(column)
          else number_text(as.numeric(column))
  ifelse(is.na(text), "NA", text)
}

column_type <- function(column) {
  type <- if (is.ordered(column)) "ordered"
          else if (is.factor(column)) "factor"
          else if (is.character(column)) "string"
          else if (is.integer(column)) "integer"
          else "number"
  if (is.factor(column)) list(type = type, levels = as.list(unname(levels(column)))) else list(type = type)
}

write_set <- function(data, name, folder) {
  cells <- vapply(data, cell_text, character(nrow(data)))
  lines <- c(paste(quoted(names(data)), collapse = ","), apply(cells, 1, paste, collapse = ","))
  bytes <- charToRaw(paste0(paste(enc2utf8(lines), collapse = "\n"), "\n"))
  file <- paste0(name, ".csv", if (length(bytes) > 1e5) ".gz")
  unlink(file.path(folder, paste0(name, c(".csv", ".csv.gz"))))
  connection <- if (endsWith(file, ".gz")) gzfile(file.path(folder, file), "wb", compression = 9)
                else file(file.path(folder, file), "wb")
  writeBin(bytes, connection)
  close(connection)
  file
}

sha256 <- function(path) strsplit(system2("sha256sum", shQuote(path), stdout = TRUE), " ")[[1]][1]

entry <- function(data, name, package, object, folder) {
  file <- write_set(data, name, folder)
  list(file = file, rows = nrow(data), sha256 = sha256(file.path(folder, file)),
       source = paste0(package, "::", object, " ", packageDescription(package)$Version),
       licence = packageDescription(package)$License, columns = lapply(data, column_type))
}

main <- function(folder) {
  manifest_path <- file.path(folder, "MANIFEST.json")
  manifest <- if (file.exists(manifest_path)) fromJSON(manifest_path, simplifyVector = FALSE)$datasets else list()
  for (package in names(sets)) for (object in sets[[package]]) {
    name <- if (package == "MASS") paste0("MASS_", object) else object
    manifest[[name]] <- entry(from_package(object, package), name, package, object, folder)
  }
  for (name in names(testdata))
    manifest[[name]] <- entry(from_testdata(testdata[[name]]), name, "lme4", paste0("testdata/", testdata[[name]][1]), folder)
  manifest$HSB_merged <- entry(hsb_merged(), "HSB_merged", "nlme", "MathAchieve + MathAchSchool, merged", folder)
  manifest <- manifest[order(names(manifest), method = "radix")]
  entries <- vapply(names(manifest), function(name)
    paste0(toJSON(name, auto_unbox = TRUE), ":", toJSON(manifest[[name]], auto_unbox = TRUE)), "")
  writeLines(c('{"schema":"mmparity-data/1","datasets":{', paste(entries, collapse = ",\n"), "}}"), manifest_path)
  cat(length(manifest), "data sets in", folder, "\n")
}

arguments <- commandArgs(trailingOnly = TRUE)
main(if (length(arguments)) arguments[1] else "r_reference/data")
