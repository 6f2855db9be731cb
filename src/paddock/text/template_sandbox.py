"""The Jinja environment in which chat templates run.

It is Jinja's ImmutableSandboxedEnvironment with the options that model authors write for (``trim_blocks``,
``lstrip_blocks``, ``break`` and ``continue``, ``generation`` blocks, ``raise_exception``, ``strftime_now``,
``tojson`` without HTML escapes), narrowed in two ways: only the operations of ``template_operations.py`` can
be reached, and the code that Jinja makes of a template pays for every step it takes (see
``template_budget.py``).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from paddock.text.template_budget import Budget, BudgetExceeded
from paddock.text.template_operations import (
    METHODS,
    binary_operation,
    call_method,
    filters,
    format_text,
    tests,
)

__all__ = ["RaisedByTemplate", "TemplateSandbox", "current_budget"]

current_budget: ContextVar[Budget] = ContextVar("current_budget")
"""The account of the rendering in progress. One template may be rendered by several threads at once."""

_MAX_RANGE = 100_000
_MAX_NODES = 20_000
_FORBIDDEN = (
    nodes.Block,
    nodes.EvalContextModifier,
    nodes.Extends,
    nodes.FromImport,
    nodes.Import,
    nodes.Include,
)
_LOOP_ATTRIBUTES = frozenset(
    [
        "changed",
        "cycle",
        "depth",
        "depth0",
        "first",
        "index",
        "index0",
        "last",
        "length",
        "nextitem",
        "previtem",
        "revindex",
        "revindex0",
    ]
)


class RaisedByTemplate(Exception):
    """The template called ``raise_exception``: it refuses these messages."""


class _Namespace(Namespace):
    def __repr__(self) -> str:
        return "<namespace>"  # its contents could hold other namespaces, each shown many times over


class _GenerationBlock(Extension):
    """``{% generation %}`` marks what the model wrote, for training. Rendering shows what is inside."""

    tags = {"generation"}  # noqa: RUF012 (declared so by Jinja)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _size(node: nodes.Node) -> int:
    """How many nodes run once when ``node`` does; the bodies inside it pay for themselves."""
    size = 1
    for child in node.iter_child_nodes():
        if not isinstance(child, nodes.Stmt) or isinstance(child, nodes.Output):
            size += _size(child)
    return size


class _MeteredCode(CodeGenerator):
    """Jinja's code generator, with a payment at the head of each body and a check around each new value."""

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        body = list(nodes)
        self.writeline(f"environment.tick({1 + sum(_size(node) for node in body)})")
        super().blockvisit(body, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        if node.test is not None:
            # A loop that filters turns without entering its body.
            node.test = nodes.And(nodes.EnvironmentAttribute("turn"), node.test, lineno=node.lineno)
        super().visit_For(node, frame)

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return f"environment.template_text({super()._output_const_repr(group)})"

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible  # nothing of a template runs while it is compiled
        return super()._output_child_to_const(node, frame, finalize)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx != "load":
            super().visit_Tuple(node, frame)
            return
        self.write("environment.admit(")
        super().visit_Tuple(node, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self.write("environment.admit(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self.write("environment.admit(")
        super().visit_Dict(node, frame)
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concatenate((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("(environment.operand(")
        self.visit(node.expr, frame)
        self.write(")")
        for op in node.ops:
            self.visit(op, frame)
        self.write(")")

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:
        operator, payment = _COMPARISONS[node.op]
        self.write(f" {operator} environment.{payment}(")
        self.visit(node.expr, frame)
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("environment.admit(environment.operand(")
        self.visit(node.node, frame)
        self.write(")[")
        self.visit(node.arg, frame)
        self.write("])")


_COMPARISONS = {
    "eq": ("==", "operand"),
    "ne": ("!=", "operand"),
    "gt": (">", "operand"),
    "gteq": (">=", "operand"),
    "lt": ("<", "operand"),
    "lteq": ("<=", "operand"),
    "in": ("in", "container"),
    "notin": ("not in", "container"),
}


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    try:
        size = len(numbers)
    except OverflowError:
        size = _MAX_RANGE + 1
    if size > _MAX_RANGE:
        raise BudgetExceeded(f"a range of more than {_MAX_RANGE} numbers")
    return numbers


def _raise_exception(message: object = "") -> None:
    raise RaisedByTemplate(current_budget.get().text(message)[:1000])


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """One environment for one template. Rendering needs a :data:`current_budget`."""

    code_generator_class = _MeteredCode
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, _GenerationBlock],
            finalize=_finalize,
            optimized=False,  # folding constants would compute them before anything is metered
            cache_size=0,
        )
        self._clock = clock
        self.filters = filters(current_budget.get)
        self.tests = tests(current_budget.get)
        self.globals = {
            "dict": dict,
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "range": _range,
            "strftime_now": self._strftime_now,
        }
        self._functions = tuple(self.globals.values())

    def load(self, source: str) -> jinja2.Template:
        """Compiles a template; nothing of it runs. TemplateSyntaxError, and what Python's compiler raises."""
        tree = self.parse(source)
        count = 0
        for node in tree.find_all(nodes.Node):
            count += 1
            if isinstance(node, _FORBIDDEN):
                raise jinja2.TemplateSyntaxError(f"{type(node).__name__.lower()} is not available", node.lineno)
        if count > _MAX_NODES:
            raise BudgetExceeded(f"it has {count} nodes, more than {_MAX_NODES}")
        return jinja2.Template.from_code(self, self.compile(tree, filename="<chat template>"), dict(self.globals))

    # What the generated code calls.

    def tick(self, units: int) -> None:
        current_budget.get().charge(units)

    @property
    def turn(self) -> bool:
        current_budget.get().charge(1)
        return True

    def template_text(self, text: str) -> str:
        current_budget.get().charge_characters(len(text))
        return text

    def admit(self, value: Any) -> Any:
        return current_budget.get().admit(value)

    def operand(self, value: Any) -> Any:
        current_budget.get().charge_for(value)
        return value

    def container(self, value: Any) -> Any:
        """The right operand of ``in``: a dict looks up, anything else is searched."""
        budget = current_budget.get()
        if isinstance(value, dict):
            budget.charge(1)
        else:
            budget.charge_for(value)
        return value

    def concatenate(self, values: tuple[Any, ...]) -> str:
        budget = current_budget.get()
        parts = [budget.text(value) for value in values]
        budget.reserve(sum(map(len, parts)))
        return "".join(parts)

    # What Jinja's sandbox asks.

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return binary_operation(current_budget.get(), operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj and attribute not in METHODS[dict]:
            return obj[attribute]  # a key such as "copy" that a dict has a forbidden method for
        return super().getattr(obj, attribute)

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        if attribute.startswith("_"):
            # Jinja renders it as nothing and goes on. Whoever asks for this is no chat template.
            raise SecurityError(f"the attribute {attribute[:40]!r} of a {type(obj).__name__} may not be used")
        return super().unsafe_undefined(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, Namespace):
            return True
        if isinstance(obj, LoopContext):
            return attr in _LOOP_ATTRIBUTES
        return attr in METHODS.get(type(obj), ())

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if not isinstance(value, types.BuiltinMethodType) or value.__name__ != "format":
            return None
        text = value.__self__
        if type(text) is not str:
            return None

        def bounded_format(*args: Any, **kwargs: Any) -> str:
            budget = current_budget.get()
            budget.charge_for(*args, *kwargs.values())
            return format_text(budget, text, args, kwargs)

        bounded_format.is_bounded = True  # type: ignore[attr-defined]
        return bounded_format

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        # Jinja adds these to the keywords of every call, for functions that ask for the context. None here
        # does.
        kwargs.pop("_loop_vars", None)
        kwargs.pop("_block_vars", None)
        budget = current_budget.get()
        budget.charge(1 + len(args) + len(kwargs))
        if isinstance(__obj, types.BuiltinMethodType):
            owner, name = __obj.__self__, __obj.__name__
            if name in METHODS.get(type(owner), ()):
                return budget.admit(call_method(budget, owner, name, args, kwargs))
        elif isinstance(__obj, types.MethodType) and isinstance(__obj.__self__, LoopContext):
            budget.charge_for(*args, *kwargs.values())  # loop.changed compares
            return budget.admit(__context.call(__obj, *args, **kwargs))
        elif (
            isinstance(__obj, (Macro, LoopContext))
            or any(__obj is function for function in __self._functions)
            or getattr(__obj, "is_bounded", False) is True
        ):
            for argument in args:
                budget.charge_shallow(argument)  # dict and namespace copy it
            return budget.admit(__context.call(__obj, *args, **kwargs))
        elif isinstance(__obj, jinja2.Undefined):
            return __context.call(__obj, *args, **kwargs)  # which says what is undefined
        raise SecurityError(f"a {type(__obj).__name__} may not be called")

    def _strftime_now(self, format: str) -> str:
        if len(format) > 256:
            raise BudgetExceeded("the format of strftime_now is too long")
        return self._clock().strftime(format)


def _finalize(value: Any) -> str:
    budget = current_budget.get()
    text = budget.text(value)
    budget.charge_characters(len(text))
    return text
