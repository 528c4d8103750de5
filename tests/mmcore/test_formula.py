"""The formula language: term algebra and bars against R's own answers, and nothing is evaluated."""

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.errors import FormulaError
from mmcore.formula.parse import parse
from mmcore.formula.syntax import Constant, deparse, format_number, parse_expression

# attr(terms(f), "term.labels") and attr(terms(f), "intercept") of R 4.2.2
TERMS = {
    "y ~ a + b": (["a", "b"], 1),
    "y ~ a*b": (["a", "b", "a:b"], 1),
    "y ~ b:a + a": (["a", "b:a"], 1),
    "y ~ a + b:a + a*c - a:c": (["a", "c", "a:b"], 1),
    "y ~ (a+b+c)^2 - a:b": (["a", "b", "c", "a:c", "b:c"], 1),
    "y ~ (a + b + c)^3": (["a", "b", "c", "a:b", "a:c", "b:c", "a:b:c"], 1),
    "y ~ a/b": (["a", "a:b"], 1),
    "y ~ (a + b)/c": (["a", "b", "a:b:c"], 1),
    "y ~ a/b/c": (["a", "a:b", "a:b:c"], 1),
    "y ~ a/(b + c)": (["a", "a:b", "a:c"], 1),
    "y ~ b %in% a": (["b:a"], 1),
    "y ~ a + b %in% a": (["a", "a:b"], 1),
    "y ~ a*b - a": (["b", "a:b"], 1),
    "y ~ a - a": ([], 1),
    "y ~ a + a + a:a": (["a"], 1),
    "y ~ -1 + a": (["a"], 0),
    "y ~ a - 1 + 1": (["a"], 1),
    "y ~ a + 0": (["a"], 0),
    "y ~ a - 0": (["a"], 1),
    "y ~ 0": ([], 0),
    "y ~ 1": ([], 1),
    "y ~ (a - 1)*b": (["a", "b", "a:b"], 0),
    "y ~ c + b*a + offset(z)": (["c", "b", "a", "b:a"], 1),
    "y ~ a**2": (["a"], 1),
    "y ~ (a + b)^9": (["a", "b", "a:b"], 1),
    "y ~ 1*a + b": (["b"], 1),
    "y ~ (a - a)/b": ([], 1),
    "y ~ a*1": (["a"], 1),
    "log(y) ~ I(x^2)+poly(x,2,raw=TRUE)": (["I(x^2)", "poly(x, 2, raw = TRUE)"], 1),
    "y ~ `my x`*a": (["`my x`", "a", "`my x`:a"], 1),
    "y ~ x > 0 & b": (["x > 0 & b"], 1),
    "y ~ x%%2 + y": (["x%%2"], 1),
}


@pytest.mark.parametrize("text", TERMS)
def test_terms_are_those_of_r(text):
    formula = parse(text)
    labels, intercept = TERMS[text]
    assert list(formula.term_labels) == labels
    assert formula.intercept == bool(intercept)


# names(lFormula(f, d)$reTrms$cnms) before lme4 sorts the terms, and the left sides
BARS = {
    "y ~ (1 | g)": ["(1 | g)"],
    "y ~ x + (x | g)": ["(x | g)"],
    "y ~ (x || g)": ["(1 | g)", "(0 + x | g)"],
    "y ~ (0 + x || g)": ["(0 + x | g)"],
    "y ~ (x*z || g)": ["(1 | g)", "(0 + x | g)", "(0 + z | g)", "(0 + x:z | g)"],
    "y ~ (1 | a/b)": ["(1 | b:a)", "(1 | a)"],
    "y ~ (1 | a/b/c)": ["(1 | c:(b:a))", "(1 | b:a)", "(1 | a)"],
    "y ~ (1 | a:b)": ["(1 | a:b)"],
    "y ~ (1 | a:b:c)": ["(1 | a:b:c)"],
    "y ~ (1 | a:b/c)": ["(1 | c:(a:b))", "(1 | a:b)"],
    "y ~ (x || a/b)": ["(1 | b:a)", "(1 | a)", "(0 + x | b:a)", "(0 + x | a)"],
    "y ~ x | g": ["(x | g)"],
    "y ~ x + z | g": ["(x + z | g)"],
    "y ~ ((1 | g) + x)": ["(1 | g)"],
    "y ~ (x - 1 | `my g`)": ["(x - 1 | `my g`)"],
    "y ~ (1 | `my g`:b)": ["(1 | `my g`:b)"],
    "y ~ us(x | g)": ["(x | g)"],
    "y ~ cs(0 + f | g) + diag(x | h, hom = TRUE)": ["cs(0 + f | g)", "diag(x | h, hom = TRUE)"],
    "y ~ ar1(0 + t | g) + ar1(0 + t | h, hom = FALSE)": ["ar1(0 + t | g)", "ar1(0 + t | h, hom = FALSE)"],
}


@pytest.mark.parametrize("text", BARS)
def test_bars_are_expanded_as_lme4_does(text):
    assert [bar.to_r() for bar in parse(text).bars] == BARS[text]


def test_structures_have_lme4_defaults():
    bars = parse("y ~ us(x | g) + diag(x | g) + cs(x | g) + ar1(x | g) + diag(x | g, hom = T)").bars
    assert [(b.structure, b.homogeneous) for b in bars] == [
        ("us", None), ("diag", False), ("cs", False), ("ar1", True), ("diag", True),
    ]  # fmt: skip


def test_parts_of_a_formula():
    formula = parse("log(y) ~ x + offset(log(w)) + C(f, sum) + poly(t, 2, raw = T) + (1 + u | a/b)")
    assert formula.variables == ("y", "x", "w", "f", "t", "u", "a", "b")
    assert [deparse(call) for call in formula.offsets] == ["offset(log(w))"]
    assert [deparse(v) for v in formula.frame_variables] == [
        "log(y)", "x", "offset(log(w))", "C(f, sum)", "poly(t, 2, raw = T)", "u", "a", "b",
    ]  # fmt: skip
    assert [bar.factors for bar in formula.bars] == [("b", "a"), ("a",)]


def test_double_bar_lists_the_group_first():
    # names(lFormula(y ~ x + (f || g), d)$fr) is y, x, g, f
    assert [deparse(v) for v in parse("y ~ x + (f || g)").frame_variables] == ["y", "x", "g", "f"]


def test_one_sided_formula_has_no_response():
    formula = parse("~ (1 | g)")
    assert formula.response is None
    assert formula.to_r() == "~ (1 | g)"


# deparse(quote(...)) of R 4.2.2
DEPARSED = {
    "a+b*c-d/e": "a + b * c - d/e",
    "a^-b": "a^-b",
    "-a^2": "-a^2",
    "a:b%in%c": "a:b %in% c",
    "x>=1&!z": "x >= 1 & !z",
    "1e5+100000L+.1+1e-4": "1e+05 + 100000L + 0.1 + 1e-04",
    "123456.5*1e15": "123456.5 * 1e+15",
    "f == 'it\\'s'": 'f == "it\'s"',
    "`a b`+`if`": "`a b` + `if`",
    "bs(x,knots=c(-.5,5),df=NULL)": "bs(x, knots = c(-0.5, 5), df = NULL)",
    "(a+b)*TRUE": "(a + b) * TRUE",
}


@pytest.mark.parametrize("text", DEPARSED)
def test_text_of_a_variable_is_the_one_r_gives(text):
    assert deparse(parse_expression(text)) == DEPARSED[text]


@pytest.mark.parametrize(
    ("value", "text"),  # as.character(value) of R 4.2.2
    [(1.0, "1"), (1e5, "1e+05"), (123456.0, "123456"), (0.1, "0.1"), (1e-5, "1e-05"), (0.1 + 0.2, "0.3"),
     (-2.5, "-2.5"), (1e15, "1e+15"), (1234567890123456.0, "1234567890123456"), (1 / 3, "0.333333333333333"),
     (0.0001, "1e-04"), (0.00012, "0.00012"), (100.0, "100"), (float("inf"), "Inf"), (float("nan"), "NaN")],
)  # fmt: skip
def test_numbers_are_written_as_r_writes_them(value, text):
    assert format_number(value) == text


def test_to_r_is_rebuilt_from_the_tree():
    assert parse("y ~x*`a b`+us(x|g)+( 1|a/b )").to_r() == "y ~ x * `a b` + (x | g) + (1 | a/b)"
    assert parse("y ~ diag(x|g,hom=TRUE)").to_r() == "y ~ diag(x | g, hom = TRUE)"


def test_dot_stands_for_the_other_columns():
    formula = parse("log(y) ~ . - b + (1 | g)").expand_dot(["y", "a", "b", "my x", "g"])
    assert formula.term_labels == ("a", "`my x`", "g")
    assert formula.to_r() == "log(y) ~ (a + b + `my x` + g) - b + (1 | g)"
    assert not formula.has_dot
    with pytest.raises(FormulaError, match="no column"):
        parse("y ~ .").expand_dot(["y"])


def test_long_formulas_are_walked_without_deep_recursion():
    names = [f"x{i}" for i in range(5000)]
    formula = parse("y ~ " + " + ".join(names))
    assert formula.term_labels == tuple(names)
    assert parse(formula.to_r()).term_labels == tuple(names)
    assert pickle.loads(pickle.dumps(formula)) == formula


CODE = [
    'y ~ __import__("os")',
    'y ~ system("x")',
    "y ~ eval(x)",
    "y ~ x; quit()",
    "y ~ x\nquit()",
    "y ~ {x}",
    "y ~ x[1]",
    "y ~ x$a",
    "y ~ x@a",
    "y ~ function(x) x",
    "y ~ base::system('x')",
    "y ~ (1 | system('x'))",
    "system('x') ~ x",
    "y ~ x <- 2",
    "y ~ x -> z",
    "y ~ \\(x) x",
    "y ~ get('x')(1)",
    "y ~ I(system('x'))",
    "y ~ x # comment",
    "y ~ `x`()",
    "y ~ 'f'(x)",
    "y ~ x.__class__()",
    "y ~ stats::sd(x)",
    "y ~ x %do% y",
    "y ~ if (a) b",
    "y ~ x |> f()",
    "y ~ while",
]


@pytest.mark.parametrize("text", CODE)
def test_code_is_refused(text):
    with pytest.raises(FormulaError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ('y ~ system("x")', 4, "system\\(\\) is not among the functions"),
        ('y ~ __import__("os")', 4, "cannot start with '_'"),
        ("y ~ x +", 7, "ends where a variable is expected"),
        ("y ~ (x + z", 4, "not closed"),
        ("y ~ x) + z", 5, "unexpected '\\)'"),
        ("y ~ a ~ b", 6, "only one '~'"),
        ("y x", 2, "unexpected 'x'"),
        ("y", 1, "needs a '~'"),
        ("", None, "empty"),
        ("y ~ a + 2", 8, "only the numbers 0 and 1"),
        ("y ~ (a + b)^0.5", 11, "whole number"),
        ("y ~ (a + b)^1", 11, "whole number"),
        ("y ~ x * (1 | g)", 11, "can only be added"),
        ("y ~ x - (1 | g)", 11, "can only be added"),
        ("y ~ x2 | ff + x1", 12, "parentheses"),
        ("y ~ (1 | log(g))", 9, "grouping factor"),
        ("y ~ (0 | g)", 7, "no effects"),
        ("y ~ (offset(x) | g)", 15, "offset"),
        ("y ~ cs(x)", 4, "takes one term"),
        ("y ~ us(x | g, hom = TRUE)", 4, "unless it is us"),
        ("y ~ 3x", 4, "neither a number nor a name"),
        ("y ~ `x", 4, "not closed"),
        ("y ~ a < b < c", 10, "chained"),
        ("y ~ offset(x):z", None, "interaction"),
        ("y ~ while", 4, "reserved word"),
    ],
)
def test_errors_point_at_the_fault(text, position, message):
    with pytest.raises(FormulaError, match=message) as caught:
        parse(text)
    if position is not None:
        assert caught.value.position == position
        *_, line, caret = str(caught.value).splitlines()
        assert line[2:] == text
        assert caret == " " * (position + 2) + "^"


def test_deep_nesting_is_an_error_not_a_crash():
    with pytest.raises(FormulaError, match="nested too deeply"):
        parse("y ~ " + "(" * 5000 + "x" + ")" * 5000)


def test_formulas_that_explode_are_refused():
    with pytest.raises(FormulaError, match="more than 100,000 terms"):
        parse("y ~ " + "*".join(f"x{i}" for i in range(30)))


def test_formula_errors_survive_pickling():
    with pytest.raises(FormulaError) as caught:
        parse("y ~ (x")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.position, str(again)) == (caught.value.position, str(caught.value))


NAMES = st.sampled_from(
    ["a", "b", "x", "z.1", "`my x`", "log(x)", "I(x^2)", "poly(z, 2)", "factor(k)", "C(f, sum)"]
)
OPERATORS = st.sampled_from([" + ", "*", ":", "/", " %in% ", " - "])


def _joined(children):
    return st.tuples(children, OPERATORS, children).map("".join) | children.map(lambda t: f"({t})")


FIXED = st.recursive(NAMES, _joined, max_leaves=7)
BAR = st.sampled_from(
    ["", " + (1 | g)", " + (x || g/h)", " + (0 + x | g:h)", " + cs(f | g, hom = TRUE)", " - 1"]
)


@given(FIXED, BAR)
def test_to_r_reads_back_as_the_same_model(fixed, bar):
    formula = parse(f"y ~ {fixed}{bar}")
    again = parse(formula.to_r())
    assert again.to_r() == formula.to_r()
    assert (again.response, again.terms, again.intercept, again.bars, again.offsets, again.variables) == (
        formula.response, formula.terms, formula.intercept, formula.bars, formula.offsets, formula.variables,
    )  # fmt: skip


@given(FIXED)
def test_terms_are_sorted_by_degree_and_distinct(fixed):
    terms = parse(f"y ~ {fixed}").terms
    degrees = [len(term) for term in terms]
    assert degrees == sorted(degrees)
    assert len({frozenset(map(deparse, term)) for term in terms}) == len(terms)


@given(st.text(max_size=30))
def test_any_text_parses_or_is_a_formula_error(text):
    try:
        formula = parse("y ~ " + text)
    except FormulaError:
        return
    assert re.match(r"y ~ ", formula.to_r())


@given(st.text(min_size=1, max_size=10).filter(lambda t: t.strip()))
def test_any_name_and_any_string_can_be_quoted(text):
    quoted = text.replace("\\", "\\\\").replace("`", "\\`").replace("'", "\\'")
    formula = parse(f"y ~ `{quoted}` + (f == '{quoted}')")
    assert parse(formula.to_r()).terms == formula.terms
    if text not in ("y", "f", "."):  # R's `.` is the dot with or without backquotes
        assert formula.variables[1] == text


def test_constants_keep_their_type():
    assert parse_expression("2L") == Constant(2.0, True)
    assert deparse(parse_expression("c(TRUE, NULL, 2L, 'a\\n')")) == 'c(TRUE, NULL, 2L, "a\\n")'
