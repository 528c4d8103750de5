"""Formula text -> Formula: fixed terms, random-effects bars and offsets in R's order. No data are needed.

Fixed terms follow R's `terms()`: sets of variables expanded from `+ - * / : ^ %in%`, sorted by number of
variables, ties in order of appearance. Bars follow lme4: `||` splits into independent terms, `a/b` in a group
becomes `b:a` and `a`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..errors import FormulaError
from .algebra import ALGEBRA, Algebra, Term
from .syntax import (
    STRUCTURES,
    Call,
    Constant,
    Expr,
    Name,
    deparse,
    parse_sides,
    strip_parentheses,
)

Group = tuple[str, tuple[Expr, ...]]  # lme4's name of a grouping factor, the variables it is made of

_BARS = ("|", "||")
_DEFAULT_HOMOGENEOUS = {"us": None, "diag": False, "cs": False, "ar1": True}
_AS_GROUPS = ("factor", "as.factor", "ordered")  # calls that a grouping factor may be
_ONE = Constant(1.0)
_LONG_SUM = 100


@dataclass(frozen=True, slots=True)
class Bar:
    """One random-effects term `(left | group)` after `||` and `/` were expanded."""

    terms: tuple[Term, ...]  # left side in R's order, intercept not included
    intercept: bool  # whether the left side has one
    group: str  # lme4's name of the grouping factor: "Subject", "cask:batch", "c:(b:a)"
    made_of: tuple[Expr, ...]  # what makes up the group, in the order of its labels: names or factor(name)
    structure: str  # us | diag | cs | ar1
    homogeneous: bool | None  # one variance for all effects? None where the structure has no such choice
    left: str  # text of the left side as R writes it

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the variables that make up the group."""
        return tuple(v.id if isinstance(v, Name) else deparse(v) for v in self.made_of)

    def to_r(self) -> str:
        """R source of the term; only `us` terms are understood by lme4 before 2.0."""
        group = deparse(self.made_of[0]) if len(self.made_of) == 1 else self.group
        inside = f"{self.left} | {group}"
        if self.structure == "us":
            return f"({inside})"
        if self.homogeneous == _DEFAULT_HOMOGENEOUS[self.structure]:
            return f"{self.structure}({inside})"
        return f"{self.structure}({inside}, hom = {'TRUE' if self.homogeneous else 'FALSE'})"


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula. It is data: safe to keep, compare, pickle and send to R through `to_r`."""

    text: str  # what the user wrote, for messages only
    response: Expr | None  # None for a one-sided formula
    terms: tuple[Term, ...]  # fixed terms in R's order, intercept not included
    intercept: bool  # whether the fixed part has one
    bars: tuple[Bar, ...]  # in order of appearance
    offsets: tuple[Call, ...]  # offset(...) calls
    frame_variables: tuple[Expr, ...]  # columns of R's model frame in its order, response first
    variables: tuple[str, ...]  # data columns that are used, in order of appearance
    right: Expr  # tree of the right side

    @property
    def has_dot(self) -> bool:
        """Whether a `.` waits to be expanded to the columns of the data."""
        return any(isinstance(v, Name) and v.id == "." for v in self.frame_variables)

    @property
    def term_labels(self) -> tuple[str, ...]:
        """R's `attr(terms, "term.labels")` of the fixed part."""
        return tuple(term_label(term) for term in self.terms)

    def to_r(self) -> str:
        """R source rebuilt from the tree alone, never from the text; it parses to the same model."""
        left = "" if self.response is None else deparse(self.response) + " "
        return f"{left}~ {deparse(_without_us(self.right))}"

    def expand_dot(self, columns: Iterable[str]) -> "Formula":
        """The formula with `.` replaced by all `columns` that the response does not use, as R does.

        Grouping factors are among them, as in lme4: write `. - g` to leave one out.
        """
        if not self.has_dot:
            return self
        used = set(column_names(self.response)) if self.response is not None else set()
        rest = [Name(str(c)) for c in columns if c not in used]
        if not rest:
            raise FormulaError("'.' stands for no column: the data have only the response", self.text)
        return _assemble(self.text, self.response, _replace_dot(self.right, Call("(", (_sum(rest),))))


def parse(text: str) -> Formula:
    """Parse lme4's formula language: `y ~ x * f + offset(z) + (x | g) + (1 | a/b)`.

    Nothing is evaluated: a name is a column of the data that come later, a call must name a function of the
    whitelist. One-sided formulas (`~ (1 | g)`) have `response` None. Cost: about 40 us for `y ~ x + (x | g)`; the
    last 256 are kept, as `re` keeps its patterns.

    Raises FormulaError, which shows the text with a caret under the fault: not in the grammar, a function
    that is not allowed, a bar that is not added with `+`, a grouping factor that is not made of names with
    `:` and `/`.
    R equivalent: `terms(nobars(f))`, `findbars(f)`.
    """
    if not isinstance(text, str):
        raise FormulaError(
            f"a formula is text such as 'y ~ x + (1 | g)', not {type(text).__name__}; it comes first, the data second"
        )
    return _parsed(text)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Formula:
    try:
        left, right = parse_sides(text)
        return _assemble(text, left, _shallow(right))
    except RecursionError:
        raise FormulaError("the formula is nested too deeply") from None


def bars_of(expr: Expr) -> tuple[Bar, ...]:
    """The random-effects terms that one summand of a formula stands for; none for a fixed term."""
    inner = strip_parentheses(expr)
    if not isinstance(inner, Call) or inner.function not in (*_BARS, *STRUCTURES):
        return ()
    return tuple(_expand_bar(inner, deparse(expr)))


def term_label(term: Term) -> str:
    """R's label of a term: its variables joined by ':'; '(Intercept)' for the empty term."""
    return ":".join(deparse(v) for v in term) if term else "(Intercept)"


def column_names(expr: Expr) -> Iterator[str]:
    """Names of the data columns that `expr` reads, repeats included; words for functions are left out."""
    if isinstance(expr, Name):
        if expr.id != ".":
            yield expr.id
    elif isinstance(expr, Call):
        for index, arg in enumerate(expr.args):
            if not is_word(expr, index):
                yield from column_names(arg)


def is_word(call: Call, index: int) -> bool:
    """Whether argument `index` of `call` is a bare word (`C(x, sum)`, `raw = T`) and not a column."""
    arg = call.args[index]
    if not isinstance(arg, Name):
        return False
    name = call.names[index] if call.names else None
    if call.function in ("C", "stats::C"):
        return name == "contr" or (name is None and index == 1)
    return name is not None and arg.id in ("T", "F")


def _assemble(text: str, response: Expr | None, right: Expr) -> Formula:
    splitter = _BarSplitter(text)
    fixed = splitter.split(right)
    algebra = Algebra(text)
    if response is not None:
        _refuse_bars(response, text)
        algebra.bit(response)
    masks = algebra.expand(_ONE if fixed is None else fixed)
    terms, offsets = algebra.terms_and_offsets(masks, response)
    frame = _frame_variables(response, right)
    bars = tuple(bar for node in splitter.nodes for bar in _expand_bar(node, text))
    names = dict.fromkeys(name for variable in frame for name in column_names(variable))
    return Formula(text, response, terms, algebra.intercept, bars, offsets, frame, tuple(names), right)


class _BarSplitter:
    """Takes the bars out of a right side; only sums and parentheses may hold them."""

    __slots__ = ("nodes", "text")

    def __init__(self, text: str):
        self.text = text
        self.nodes: list[Call] = []

    def split(self, expr: Expr) -> Expr | None:
        """`expr` without its bars, None when nothing is left; the bars are appended to `nodes`."""
        if not isinstance(expr, Call):
            return expr
        if expr.function in _BARS or expr.function in STRUCTURES:
            self.nodes.append(expr)
            return None
        if expr.function in ("+", "(") or (expr.function == "-" and len(expr.args) == 2):
            return self._split_sum(expr)
        _refuse_bars(expr, self.text)
        return expr

    def _split_sum(self, expr: Call) -> Expr | None:
        if expr.function == "-":
            _refuse_bars(expr.args[1], self.text)
        parts = [self.split(arg) for arg in expr.args]
        kept = tuple(part for part in parts if part is not None)
        if len(kept) == len(parts):
            return expr if all(a is b for a, b in zip(kept, expr.args, strict=True)) else _rebuilt(expr, kept)
        if expr.function == "-" and kept:
            return Call("-", kept, (), expr.position)
        return kept[0] if kept else None


def _rebuilt(expr: Call, args: tuple[Expr, ...]) -> Call:
    return Call(expr.function, args, expr.names, expr.position)


def _refuse_bars(expr: Expr, text: str) -> None:
    if not isinstance(expr, Call):
        return
    if expr.function in _BARS or expr.function in STRUCTURES:
        raise FormulaError("a random-effects term can only be added with '+'", text, expr.position)
    if expr.function in ALGEBRA:
        for arg in expr.args:
            _refuse_bars(arg, text)


def _frame_variables(response: Expr | None, right: Expr) -> tuple[Expr, ...]:
    found: dict[str, Expr] = {}
    if response is not None:
        found[deparse(response)] = response
    stack = [right]
    while stack:
        expr = stack.pop()
        if isinstance(expr, Constant):
            continue
        if isinstance(expr, Call) and expr.function in STRUCTURES:
            expr = strip_parentheses(expr.args[0])
        parts = _operands(expr) if isinstance(expr, Call) else None
        if parts is None:
            found.setdefault(deparse(expr), expr)
        else:
            stack.extend(reversed(parts))
    return tuple(found.values())


def _operands(call: Call) -> Sequence[Expr] | None:
    """What R sees of a formula operator when it lists variables; None for a call that is a variable
    itself."""
    if call.function == "^":
        return call.args[:1]
    if call.function == "||":
        return _double_bar_operands(call)
    return call.args if call.function in ALGEBRA or call.function == "|" else None


def _double_bar_operands(call: Call) -> Sequence[Expr]:
    # The order of (1 | g) + (0 + x | g): lme4 splits the bar before it lists variables.
    left, group = call.args
    algebra = Algebra("")
    masks = algebra.expand(left)
    variables = algebra.variables
    if algebra.intercept or not masks:
        return (group, *variables)
    first = algebra.terms_and_offsets(masks, None)[0][0]
    return (*first, group, *variables)


def _expand_bar(node: Call, text: str) -> Iterator[Bar]:
    structure, homogeneous = "us", None
    if node.function in STRUCTURES:
        structure = node.function
        homogeneous = _homogeneous(node, text)
        inner = strip_parentheses(node.args[0])
        if not isinstance(inner, Call) or inner.function != "|":
            raise FormulaError(
                f"{structure}() takes one term such as {structure}(x | g)", text, node.position
            )
        node = inner
    left, group = node.args
    _refuse_bars(left, text)
    algebra = Algebra(text)
    masks = algebra.expand(left)
    terms, offsets = algebra.terms_and_offsets(masks, None)
    if offsets or any(isinstance(v, Name) and v.id == "." for v in algebra.variables):
        raise FormulaError(
            "offset() and '.' have no meaning inside a random-effects term", text, node.position
        )
    if not terms and not algebra.intercept:
        raise FormulaError("this random-effects term has no effects", text, node.position)
    for one_terms, one_intercept, shown in _split_double(node.function, terms, algebra.intercept, left):
        for name, factors in _groups(group, text):
            yield Bar(one_terms, one_intercept, name, factors, structure, homogeneous, shown)


def _split_double(operator: str, terms: tuple[Term, ...], intercept: bool, left: Expr):
    """(terms, intercept, text) of each term that `left | g` or `left || g` stands for."""
    if operator == "|":
        yield terms, intercept, deparse(left)
        return
    if intercept:
        yield (), True, "1"
    for term in terms:
        yield (term,), False, f"0 + {term_label(term)}"


def _homogeneous(node: Call, text: str) -> bool | None:
    default = _DEFAULT_HOMOGENEOUS[node.function]
    if len(node.args) == 1:
        return default
    value = node.args[1]
    named = bool(node.names) and node.names[1] == "hom"
    flag = (
        value.value if isinstance(value, Constant) else {"T": True, "F": False}.get(getattr(value, "id", ""))
    )
    if not named or len(node.args) > 2 or not isinstance(flag, bool) or node.function == "us":
        raise FormulaError(
            f"{node.function}() takes a term and, unless it is us(), hom = TRUE or FALSE", text, node.position
        )
    return flag


def _groups(expr: Expr, text: str) -> list[Group]:
    """(lme4's name, columns) of each factor of a grouping expression, the most nested first."""
    expr = strip_parentheses(expr)
    if isinstance(expr, Name) and expr.id != ".":
        return [(expr.id, (expr,))]
    if isinstance(expr, Call) and expr.function in _AS_GROUPS:
        return [(deparse(expr), (expr,))]
    if isinstance(expr, Call) and expr.function in (":", "/"):
        left, right = _groups(expr.args[0], text), _groups(expr.args[1], text)
        if expr.function == "/" and len(right) == 1:
            return [_interaction(right[0], left[0]), *left]
        if expr.function == ":" and len(left) == len(right) == 1:
            return [_interaction(left[0], right[0])]
    raise FormulaError(
        f"the grouping factor {deparse(expr)!r} must be made of column names or factor(name) joined by ':' or '/'; "
        "put each random-effects term in parentheses, and compute other factors as a column first",
        text,
        expr.position,
    )


def _interaction(first: Group, second: Group) -> Group:
    # R prints c:(b:a) for a/b/c: the inner interaction is one argument of the outer ':'.
    inner = f"({second[0]})" if len(second[1]) > 1 else deparse(second[1][0])
    outer = first[0] if len(first[1]) > 1 else deparse(first[1][0])
    return f"{outer}:{inner}", first[1] + second[1]


def _without_us(expr: Expr) -> Expr:
    if not isinstance(expr, Call):
        return expr
    if expr.function == "us":
        return Call("(", (strip_parentheses(expr.args[0]),))
    if expr.function in ("+", "("):
        args = tuple(_without_us(arg) for arg in expr.args)
        return expr if all(a is b for a, b in zip(args, expr.args, strict=True)) else _rebuilt(expr, args)
    return expr


def _replace_dot(expr: Expr, replacement: Expr) -> Expr:
    if isinstance(expr, Name):
        return replacement if expr.id == "." else expr
    if isinstance(expr, Call) and expr.function in ALGEBRA:
        return _rebuilt(expr, tuple(_replace_dot(arg, replacement) for arg in expr.args))
    return expr


def _shallow(expr: Expr) -> Expr:
    """`expr`, a long sum as a balanced tree: it reads the same and can be walked recursively."""
    parts: list[Expr] = []
    left = expr
    while isinstance(left, Call) and left.function == "+" and len(left.args) == 2:
        parts.append(left.args[1])
        left = left.args[0]
    return expr if len(parts) < _LONG_SUM else _sum([left, *reversed(parts)])


def _sum(parts: Sequence[Expr]) -> Expr:
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return Call("+", (_sum(parts[:middle]), _sum(parts[middle:])))
