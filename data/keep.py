"""Which clips to keep, said in one line: "motion > 1.0 and cuts == 0". Parsed, never run."""

import ast
import operator
from collections.abc import Callable, Mapping

Number = int | float

_LONGEST = 1000  # characters; enough to say, too short to nest deeper than Python recurses
_COMPARE: dict[type[ast.cmpop], Callable[[Number, Number], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class Keep:
    """A condition on the scores of a clip: names and numbers, compared, joined by and, or, not.

    Args:
        expression: Such as "motion > 1.0 and not (cuts > 0 or 30 < brightness < 40)".
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        if len(expression) > _LONGEST:
            raise ValueError(f"the condition has {len(expression)} characters, over {_LONGEST}")
        try:
            self._root = ast.parse(expression.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{expression!r} is not a condition: {error}") from error
        self.names = set(_names(self._root, expression))

    def __call__(self, scores: Mapping[str, Number]) -> bool:
        """Say whether a clip of these scores is kept."""
        if missing := self.names - scores.keys():
            raise ValueError(
                f"{self.expression!r} asks for {', '.join(sorted(missing))}, but the scores are "
                f"{', '.join(sorted(scores))}"
            )
        return bool(_value(self._root, scores))


def _names(node: ast.expr, expression: str) -> list[str]:
    """Return the scores that are asked for; anything but a plain condition is refused."""
    match node:
        case ast.Name(id=name):
            return [name]
        case ast.Constant(value=int() | float()):
            return []
        case ast.BoolOp(values=parts) | ast.Compare(left=_, comparators=[*_] as parts) if (
            isinstance(node, ast.BoolOp) or all(type(op) in _COMPARE for op in node.ops)
        ):
            left = [node.left] if isinstance(node, ast.Compare) else []
            return [name for part in [*left, *parts] for name in _names(part, expression)]
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            return _names(operand, expression)
    raise ValueError(
        f"{ast.unparse(node)!r} in {expression!r} is not understood; use names of scores, numbers, "
        "< <= > >= == !=, and, or, not"
    )


def _value(node: ast.expr, scores: Mapping[str, Number]) -> Number:
    match node:
        case ast.Name(id=name):
            return scores[name]
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, scores) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, scores) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, scores)
        case ast.UnaryOp(operand=operand):
            return -_value(operand, scores)
        case ast.Compare(left=left, ops=ops, comparators=rest):
            values = [_value(part, scores) for part in (left, *rest)]
            pairs = zip(ops, values[:-1], values[1:], strict=True)
            return all(_COMPARE[type(op)](a, b) for op, a, b in pairs)
    raise AssertionError(ast.dump(node))
