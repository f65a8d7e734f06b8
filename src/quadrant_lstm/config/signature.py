"""A dotted path to a class -> the parameters it takes, read from its source without importing it.

Importing torch and Lightning takes seconds; a mistyped key should not have to wait for that.
"""

import ast
import importlib.util
import typing
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from quadrant_lstm import kinds as values

NAMESPACE = {**vars(typing), **vars(values)}


class Parameter(NamedTuple):
    kind: Any  # its type, or Any where the annotation uses types of the target's own modules
    required: bool


def signature(target: str) -> dict[str, Parameter]:
    """The parameters by name; `**` stands for any other.

    Raises LookupError if there is no such class.
    """
    module, node = definition(target)
    if not isinstance(node, ast.ClassDef):
        raise LookupError(target)
    while isinstance(node, ast.ClassDef):
        init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if init is None and not node.bases:
            return {}
        module, node = (module, init) if init else definition(qualified(module, node.bases[0]))
    positional = node.args.posonlyargs + node.args.args
    defaults = [None] * (len(positional) - len(node.args.defaults)) + node.args.defaults + node.args.kw_defaults
    parameters = {
        argument.arg: Parameter(evaluate(argument.annotation), required=default is None)
        for argument, default in zip(positional + node.args.kwonlyargs, defaults, strict=True)
        if argument.arg != "self"
    }
    return parameters | ({"**": Parameter(Any, required=False)} if node.args.kwarg else {})


def evaluate(annotation: ast.expr | None) -> Any:
    try:
        return eval(ast.unparse(annotation), {}, NAMESPACE) if annotation else Any
    except (NameError, AttributeError, TypeError):
        return Any


def definition(target: str) -> tuple[str, ast.ClassDef | ast.FunctionDef]:
    """The module and the definition of `package.module.Name`, following `from ... import Name`."""
    module, _, name = target.rpartition(".")
    file = source_file(module)
    if file is None:
        raise LookupError(target)
    for node in parse(file).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return definition(f"{absolute(node, module, file)}.{alias.name}")
    raise LookupError(target)


def qualified(module: str, name: ast.expr) -> str:
    """A name as a module uses it, in full: `pl.Callback` after `import lightning.pytorch as pl`."""
    head, dot, rest = ast.unparse(name).partition(".")
    for node in parse(source_file(module)).body:
        for alias in node.names if isinstance(node, ast.Import) else ():
            if dot and alias.asname == head:
                return f"{alias.name}.{rest}"
    return f"{module}.{head}{dot}{rest}"


def source_file(module: str) -> Path | None:
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top) if top else None  # imports nothing for a name without dots
    for folder in (spec and spec.submodule_search_locations) or []:
        path = Path(folder, *parts)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    return None


def absolute(node: ast.ImportFrom, module: str, file: Path) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], node.module or ""])


@lru_cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
