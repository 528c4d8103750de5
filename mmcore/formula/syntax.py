"""Formula text -> expression tree, and back to text: R's operator grammar, nothing else.

The tree is data. Only names, numbers, strings, TRUE/FALSE/NULL and calls exist, a call can only name a
function of `FUNCTIONS`, and nothing here or later is handed to `eval`. Operators are calls too (`a + b` is
`Call("+", (a, b))`) and parentheses are kept as `Call("(", (a,))`, so that `deparse` gives R's own spelling
of every variable and hence R's coefficient names.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from ..errors import FormulaError

STRUCTURES = ("us", "diag", "cs", "ar1")

FUNCTIONS = frozenset(
    """
    abs acos asin atan ceiling cos cosh exp expm1 floor log log10 log1p log2 sign sin sinh sqrt tan tanh trunc
    ( I C as.factor as.integer as.logical as.numeric bs c cbind factor ifelse is.na ns offset ordered pmax
    pmin poly relevel round scale
    """.split()  # noqa: SIM905
)
NAMESPACES = {"splines": ("ns", "bs"), "stats": ("poly", "C", "offset", "relevel")}

CONSTANTS: dict[str, bool | float | None] = {
    "TRUE": True,
    "FALSE": False,
    "NULL": None,
    "NA": float("nan"),
    "NaN": float("nan"),
    "Inf": float("inf"),
}
RESERVED = frozenset(("if", "else", "repeat", "while", "function", "for", "next", "break", *CONSTANTS))

# Binding powers of R's grammar, loosest first; a right-hand side is parsed with the second number.
_BINARY: dict[str, tuple[int, int]] = {
    "||": (10, 11), "|": (10, 11), "&&": (20, 21), "&": (20, 21),
    "==": (40, 41), "!=": (40, 41), "<": (40, 41), ">": (40, 41), "<=": (40, 41), ">=": (40, 41),
    "+": (50, 51), "-": (50, 51), "*": (60, 61), "/": (60, 61), ":": (80, 81), "^": (100, 99),
}  # fmt: skip
_SPECIAL = (70, 71)
_PREFIX = {"-": 90, "+": 90, "!": 30}
_UNSPACED = frozenset(("/", ":", "^", "%%", "%/%"))
_COMPARISONS = frozenset(("==", "!=", "<", ">", "<=", ">="))
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
OPERATORS = frozenset(_BINARY) | frozenset(("!", "%in%", "%%", "%/%", "("))

_TOKEN = re.compile(
    r"""\s*(?:
        ((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?L?)      # 1 number
      | ((?:[^\W\d_]|\.(?!\d))(?:[\w.])*)              # 2 name
      | (`(?:[^`\\]|\\.)+`)                            # 3 quoted name
      | ("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')          # 4 string
      | (<-|->|%[^%\s]*%|::|\|\||&&|[=!<>]=|\*\*|[-+*/^:|&!<>=~(),])   # 5 operator
    )""",
    re.VERBOSE,
)
_SYNTACTIC = re.compile(r"(?:[^\W\d_]|\.(?!\d))[\w.]*\Z")


@dataclass(frozen=True, slots=True)
class Name:
    """A column of the data, or a bare word that a function understands (`C(x, sum)`)."""

    id: str
    position: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, string, TRUE, FALSE, NULL, NA or Inf. `integer` marks R's `2L`."""

    value: float | str | bool | None
    integer: bool = False
    position: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A function or operator applied to arguments; `names` is empty or one name (or None) per argument."""

    function: str
    args: tuple["Expr", ...]
    names: tuple[str | None, ...] = ()
    position: int = field(default=0, compare=False, repr=False)


Expr = Name | Constant | Call


def parse_sides(text: str) -> tuple[Expr | None, Expr]:
    """`text` as (left side or None, right side) of one `~`. Raises FormulaError pointing at the fault."""
    return _Parser(text).formula()


def parse_expression(text: str) -> Expr:
    """`text` as one expression without a `~`, for weights- and level-like arguments."""
    parser = _Parser(text)
    expr = parser.expression(0)
    parser.expect_end()
    return expr


class _Parser:
    """Precedence climbing over the token list: `kinds[i], texts[i], starts[i]`; `i` is the next token."""

    __slots__ = ("i", "kinds", "starts", "text", "texts")

    def __init__(self, text: str):
        if not isinstance(text, str):
            raise FormulaError(f"a formula is text such as 'y ~ x + (1 | g)', not {type(text).__name__}")
        self.text = text
        self.kinds: list[int] = []
        self.texts: list[str] = []
        self.starts: list[int] = []
        self.i = 0
        self._tokenize()

    def _tokenize(self) -> None:
        text, at, end = self.text, 0, len(self.text.rstrip())
        match, kinds, texts, starts = _TOKEN.match, self.kinds, self.texts, self.starts
        while at < end:
            found = match(text, at)
            kind = found.lastindex if found else None
            if found is None or kind is None:
                raise self._bad_character(at)
            kinds.append(kind)
            texts.append(found[kind])
            starts.append(found.start(kind))
            at = found.end()
        kinds.append(0)
        texts.append("")
        starts.append(end)

    def _bad_character(self, at: int) -> FormulaError:
        while self.text[at].isspace():
            at += 1
        character = self.text[at]
        if character in "`\"'":
            return FormulaError(f"the quote {character} is not closed", self.text, at)
        if character == "_":
            return FormulaError("a name cannot start with '_': put it between backquotes", self.text, at)
        return FormulaError(f"{character!r} is not part of the formula language", self.text, at)

    def fail(self, message: str, position: int | None = None) -> FormulaError:
        return FormulaError(message, self.text, self.starts[self.i] if position is None else position)

    def expect_end(self) -> None:
        if self.kinds[self.i]:
            token = self.texts[self.i]
            reason = "a formula has only one '~'" if token == "~" else f"unexpected {token!r}"
            raise self.fail(reason)

    def formula(self) -> tuple[Expr | None, Expr]:
        left: Expr | None = None
        if self.texts[self.i] != "~":
            left = self.expression(0)
            if self.texts[self.i] != "~":
                if self.kinds[self.i]:
                    self.expect_end()
                raise self.fail("a formula needs a '~' between response and predictors")
        self.i += 1
        right = self.expression(0)
        self.expect_end()
        return left, right

    def expression(self, least: int) -> Expr:
        left = self.primary()
        while self.kinds[self.i] == 5:
            operator = self.texts[self.i]
            if operator == "**":
                operator = "^"
            power = _BINARY.get(operator) or self._special(operator)
            if power is None or power[0] < least:
                break
            start = self.starts[self.i]
            self.i += 1
            left = Call(operator, (left, self.expression(power[1])), (), start)
            if operator in _COMPARISONS and self.texts[self.i] in _COMPARISONS:
                raise self.fail("comparisons cannot be chained: use parentheses")
        return left

    def _special(self, operator: str) -> tuple[int, int] | None:
        if operator[0] != "%":
            return None
        if operator not in OPERATORS:
            raise self.fail(f"the operator {operator} is not part of the formula language")
        return _SPECIAL

    def primary(self) -> Expr:
        kind, token, start = self.kinds[self.i], self.texts[self.i], self.starts[self.i]
        self.i += 1
        if kind == 2:
            return self._word(token, start)
        if kind == 1:
            return self._number(token, start)
        if kind == 3:
            return Name(_unescape(token[1:-1]), start)
        if kind == 4:
            return Constant(_unescape(token[1:-1]), False, start)
        if token == "(":
            inner = self.expression(0)
            self._close(start)
            return Call("(", (inner,), (), start)
        if token in _PREFIX:
            return Call(token, (self.expression(_PREFIX[token]),), (), start)
        self.i -= 1
        raise self.fail(
            f"expected a variable, number or '(' instead of {token!r}" if kind else _unfinished(self.text)
        )

    def _number(self, token: str, start: int) -> Constant:
        if token[-1] == "L":
            return Constant(float(token[:-1]), True, start)
        if self.kinds[self.i] == 2 and self.starts[self.i] == start + len(token):
            raise self.fail(f"{token + self.texts[self.i]!r} is neither a number nor a name", start)
        return Constant(float(token), False, start)

    def _word(self, word: str, start: int) -> Expr:
        following = self.texts[self.i]
        if following == "::":
            word = self._namespaced(word, start)
            following = self.texts[self.i]
        if following == "(" and self.kinds[self.i] == 5:
            return self._call(word, start)
        if word in RESERVED:
            if word in CONSTANTS:
                return Constant(CONSTANTS[word], False, start)
            raise self.fail(f"{word!r} is a reserved word of R: a formula holds no code", start)
        return Name(word, start)

    def _namespaced(self, package: str, start: int) -> str:
        self.i += 1
        function = self.texts[self.i]
        if function not in NAMESPACES.get(package, ()):
            raise self.fail(f"{package}::{function} is not among the functions a formula may use", start)
        self.i += 1
        if self.texts[self.i] != "(":
            raise self.fail(f"{package}::{function} needs its arguments in parentheses", start)
        return f"{package}::{function}"

    def _call(self, function: str, start: int) -> Call:
        bare = function.rpartition("::")[2]
        if bare not in FUNCTIONS and function not in STRUCTURES:
            raise self.fail(f"{function}() is not among the functions a formula may use: {_listing()}", start)
        opening = self.starts[self.i]
        self.i += 1
        args: list[Expr] = []
        names: list[str | None] = []
        while self.texts[self.i] != ")" or self.kinds[self.i] != 5:
            names.append(self._argument_name())
            args.append(self.expression(0))
            if self.texts[self.i] != ",":
                break
            self.i += 1
        self._close(opening)
        if not args:
            raise self.fail(f"{function}() needs an argument", start)
        return Call(function, tuple(args), tuple(names) if any(names) else (), start)

    def _argument_name(self) -> str | None:
        if self.kinds[self.i] == 2 and self.texts[self.i + 1] == "=":
            self.i += 2
            return self.texts[self.i - 2]
        return None

    def _close(self, opening: int) -> None:
        if self.texts[self.i] != ")":
            if self.kinds[self.i]:
                raise self.fail(f"unexpected {self.texts[self.i]!r}: expected ')'")
            raise self.fail("this '(' is not closed", opening)
        self.i += 1


def _unfinished(text: str) -> str:
    return "the formula ends where a variable is expected" if text.strip() else "the formula is empty"


def _listing() -> str:
    return ", ".join(sorted(FUNCTIONS - {"("}))


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), text) if "\\" in text else text


def _escape(text: str, quote: str) -> str:
    text = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
    for letter, character in _ESCAPES.items():
        text = text.replace(character, "\\" + letter)
    return text


def walk(expr: Expr) -> Iterator[Expr]:
    """Every node of the tree, parents first, left to right."""
    yield expr
    if isinstance(expr, Call):
        for arg in expr.args:
            yield from walk(arg)


def strip_parentheses(expr: Expr) -> Expr:
    """`expr` without the parentheses around the whole of it."""
    while isinstance(expr, Call) and expr.function == "(":
        expr = expr.args[0]
    return expr


@lru_cache(maxsize=4096)
def quote_name(name: str) -> str:
    """`name` as R source: backquoted unless it is a syntactic name."""
    if _SYNTACTIC.match(name) and name not in RESERVED:
        return name
    return "`" + _escape(name, "`") + "`"


def deparse(expr: Expr) -> str:
    """`expr` spelled as R's `deparse(expr, backtick = TRUE)` spells it: this is the name of a variable."""
    if isinstance(expr, Name):
        return quote_name(expr.id)
    if isinstance(expr, Constant):
        return _deparse_constant(expr)
    function, args = expr.function, expr.args
    if function == "(":
        return f"({deparse(args[0])})"
    if function in OPERATORS:
        if len(args) == 1:
            return function + deparse(args[0])
        space = "" if function in _UNSPACED else " "
        return f"{deparse(args[0])}{space}{function}{space}{deparse(args[1])}"
    names = expr.names or (None,) * len(args)
    inside = ", ".join(
        deparse(a) if n is None else f"{n} = {deparse(a)}" for n, a in zip(names, args, strict=True)
    )
    return f"{function}({inside})"


def _deparse_constant(expr: Constant) -> str:
    value = expr.value
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return '"' + _escape(value, '"') + '"'
    if expr.integer:
        return f"{value:.0f}L"
    return format_number(value)


def format_number(value: float) -> str:
    """`value` as R's `as.character` writes a double: up to 15 digits, fixed unless scientific is shorter."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e5:
        return str(int(value))
    mantissa, _, exponent = f"{value:.14e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    power = int(exponent)
    scientific = f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
    digits = len(mantissa.lstrip("-").replace(".", ""))
    fixed = f"{value:.{max(0, digits - 1 - power)}f}"
    return fixed if len(fixed) <= len(scientific) else scientific
