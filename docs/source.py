"""What the source says and the running classes do not: the string under a field or a name, and annotations as they were written."""

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType


def notes(module: ModuleType) -> dict[str, str]:
    """The string under each field (`Class.field`) and under each name of a module."""
    return {name: text for name, _, below in _assignments(module) if (text := _string(below)) is not None}


def annotations(module: ModuleType) -> dict[str, str]:
    """The annotation of each field (`Class.field`), without its bounds."""
    return {name: _bare(node.annotation) for name, node, _ in _assignments(module) if isinstance(node, ast.AnnAssign)}


def aliases(module: ModuleType) -> list[str]:
    """The names a module gives to types, in order."""
    plain = [(name, node.value) for name, node, _ in _assignments(module) if isinstance(node, ast.Assign)]
    return [name for name, value in plain if isinstance(value, ast.Subscript)]


def _assignments(module: ModuleType) -> Iterator[tuple[str, ast.Assign | ast.AnnAssign, ast.stmt]]:
    """Each assignment with its full name and the statement after it."""
    tree = ast.parse(inspect.getsource(module))
    scopes = [("", tree.body)] + [(f"{node.name}.", node.body) for node in tree.body if isinstance(node, ast.ClassDef)]
    for prefix, body in scopes:
        for node, below in pairwise([*body, ast.Pass()]):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                yield prefix + ast.unparse(target), node, below


def _string(node: ast.stmt) -> str | None:
    match node:
        case ast.Expr(ast.Constant(str(text))):
            return inspect.cleandoc(text)
    return None


def _bare(annotation: ast.expr) -> str:
    return ast.unparse(_Unbound().visit(annotation))


class _Unbound(ast.NodeTransformer):
    """`Annotated[int, Meta(ge=1)]` becomes `int`: the bounds have a column of their own."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        if ast.unparse(node.value) == "Annotated" and isinstance(node.slice, ast.Tuple):
            return node.slice.elts[0]
        return node
