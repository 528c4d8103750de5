"""R's term algebra: a right side -> terms, each a set of variables, in R's order.

A term is a bit mask over the variables in order of appearance; the empty term is the intercept flag.
"""

from collections.abc import Sequence

from ..errors import FormulaError
from .syntax import Call, Constant, Expr, Name, deparse

Term = tuple[Expr, ...]

# Operators that combine terms; any other call is a variable.
ALGEBRA = frozenset(("+", "-", "*", "/", ":", "^", "%in%", "("))

_MOST_TERMS = 100_000


class Algebra:
    """State of one expansion: variables seen so far, and whether there is an intercept."""

    __slots__ = ("bits", "intercept", "removing", "text", "variables")

    def __init__(self, text: str):
        self.text = text
        self.variables: list[Expr] = []
        self.bits: dict[str | tuple[str], int] = {}
        self.intercept = True
        self.removing = False

    def bit(self, variable: Expr) -> int:
        """The mask of one variable; it is a new one when its text was not seen before."""
        # A column called "log(x)" is not the call log(x).
        label = (variable.id,) if isinstance(variable, Name) else deparse(variable)
        found = self.bits.get(label)
        if found is None:
            found = self.bits[label] = 1 << len(self.variables)
            self.variables.append(variable)
        return found

    def expand(self, expr: Expr) -> list[int]:
        """Masks of the terms of `expr` in order of appearance; the intercept flag is set on the way."""
        if isinstance(expr, Call):
            rule = _RULES.get(expr.function)
            if rule is not None:
                return rule(self, expr)
        elif isinstance(expr, Constant):
            return self._constant(expr)
        return [self.bit(expr)]

    def _constant(self, expr: Constant) -> list[int]:
        if isinstance(expr.value, bool) or expr.value not in (0.0, 1.0):
            raise FormulaError(
                "only the numbers 0 and 1 can be terms: use I() for arithmetic", self.text, expr.position
            )
        self.intercept = (expr.value == 1.0) != self.removing
        return []

    def _sum(self, expr: Call) -> list[int]:
        # Unrolled along the left spine: a long sum is as deep a tree as it has terms.
        rights: list[Call] = []
        left: Expr = expr
        while isinstance(left, Call) and left.function in ("+", "-") and len(left.args) == 2:
            rights.append(left)
            left = left.args[0]
        if isinstance(left, Call) and left.function in ("+", "-") and len(left.args) == 1:
            rights.append(left)
            masks: list[int] = []
        else:
            masks = self.expand(left)
        for node in reversed(rights):
            masks = (
                self._remove(masks, node.args[-1])
                if node.function == "-"
                else _unique(masks, self.expand(node.args[-1]))
            )
        return masks

    def _remove(self, masks: list[int], expr: Expr) -> list[int]:
        self.removing = not self.removing
        gone = self.expand(expr)
        self.removing = not self.removing
        return [m for m in masks if m not in gone]

    def _parentheses(self, expr: Call) -> list[int]:
        return self.expand(expr.args[0])

    def _cross(self, expr: Call) -> list[int]:
        left, right = self.expand(expr.args[0]), self.expand(expr.args[1])
        # As in R, nothing crossed with anything is nothing: `1 * a` has no `a`.
        return _unique(left, right, self._interactions(left, right, expr)) if left else []

    def _interact(self, expr: Call) -> list[int]:
        return self._interactions(self.expand(expr.args[0]), self.expand(expr.args[1]), expr)

    def _nest(self, expr: Call) -> list[int]:
        left, right = self.expand(expr.args[0]), self.expand(expr.args[1])
        return _unique(left, [mask | _union(left) for mask in right]) if left else []

    def _inside(self, expr: Call) -> list[int]:
        left, right = self.expand(expr.args[0]), self.expand(expr.args[1])
        return _unique([mask | _union(right) for mask in left])

    def _power(self, expr: Call) -> list[int]:
        base, exponent = self.expand(expr.args[0]), expr.args[1]
        power = exponent.value if isinstance(exponent, Constant) else None
        if not isinstance(power, float) or power < 2 or power != int(power):
            message = "the power of a term must be a whole number from 2: use I() for arithmetic"
            raise FormulaError(message, self.text, expr.position)
        masks = base
        for _ in range(min(int(power), len(base)) - 1):
            masks = self._interactions(masks, base, expr)
        return masks

    def _interactions(self, left: Sequence[int], right: Sequence[int], expr: Call) -> list[int]:
        if len(left) * len(right) > _MOST_TERMS:
            message = f"the formula expands to more than {_MOST_TERMS:,} terms"
            raise FormulaError(message, self.text, expr.position)
        return _unique([a | b for a in left for b in right])

    def terms_and_offsets(self, masks: Sequence[int], response: Expr | None):
        """(terms in R's order, offset calls): offsets and the response are taken out of the terms."""
        if response is not None:
            masks = [m for m in masks if m != 1]
        offsets: list[Call] = []
        offset_bits = 0
        for position, variable in enumerate(self.variables):
            if isinstance(variable, Call) and variable.function in ("offset", "stats::offset"):
                offsets.append(variable)
                offset_bits |= 1 << position
        if offset_bits:
            masks = self._without_offsets(masks, offset_bits)
        ordered = sorted(masks, key=int.bit_count) if len(masks) > 1 else masks
        return tuple(self._term(mask) for mask in ordered), tuple(offsets)

    def _without_offsets(self, masks: Sequence[int], offset_bits: int) -> list[int]:
        for mask in masks:
            if mask & offset_bits and mask.bit_count() > 1:
                raise FormulaError("offset() cannot be part of an interaction", self.text)
        return [mask for mask in masks if not mask & offset_bits]

    def _term(self, mask: int) -> Term:
        found = []
        while mask:
            lowest = mask & -mask
            found.append(self.variables[lowest.bit_length() - 1])
            mask ^= lowest
        return tuple(found)


_RULES = {
    "+": Algebra._sum,
    "-": Algebra._sum,
    "(": Algebra._parentheses,
    "*": Algebra._cross,
    ":": Algebra._interact,
    "/": Algebra._nest,
    "%in%": Algebra._inside,
    "^": Algebra._power,
}


def _unique(*parts: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(mask for part in parts for mask in part))


def _union(masks: Sequence[int]) -> int:
    total = 0
    for mask in masks:
        total |= mask
    return total
