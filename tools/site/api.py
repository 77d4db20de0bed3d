"""What reading the source alone would miss in the API pages: an extension of Griffe.

- `class SE(Layer, composite=spec.se)` gets signature and documentation of the spec's function when Python makes it.
- Primitives and named tuples get a constructor of their fields.
- A package that takes a function from a module of the same name (`from maam.parity.check import check`) means the
  function.
"""

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from griffe import (
    Alias,
    AliasResolutionError,
    Attribute,
    Class,
    Docstring,
    Extension,
    Function,
    GriffeLoader,
    Module,
    Object,
    Parameter,
    ParameterKind,
    Parameters,
)

NODE = "maam.spec.node.Node"


class Api(Extension):
    """Completes the package once all of it is read."""

    def __init__(self) -> None:
        self.composites: list[tuple[Class, str]] = []

    def on_class_instance(self, *, node: ast.AST, cls: Class, **_: Any) -> None:
        """Note the classes that have a composite."""
        for keyword in getattr(node, "keywords", ()):
            if keyword.arg == "composite":
                self.composites.append((cls, ast.unparse(keyword.value)))

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **_: Any) -> None:
        """Give names the objects that Python gives them, and layers what their composites say."""
        loader.resolve_aliases(implicit=True, external=False)
        for module in [*modules_of(pkg)]:
            prefer_objects(module)
            for member in module.members.values():
                if isinstance(member, Class):
                    construct(member)
        for cls, name in self.composites:
            document(cls, pkg[name].final_target)


def modules_of(module: Module) -> Iterator[Module]:
    """The module and all below it."""
    yield module
    for child in module.members.values():
        if isinstance(child, Module):
            yield from modules_of(child)


def prefer_objects(module: Module) -> None:
    """Where an import gives a name to a function or class and a module is called the same, the former wins."""
    for name in module.imports.keys() & module.members.keys():
        found = target_of(module.members[name])
        inner = target_of(found.members[name]) if isinstance(found, Module) and name in found.members else None
        if isinstance(inner, Function | Class):
            module.members[name] = Alias(name, inner, parent=module)


def target_of(member: Object | Alias) -> Object | None:
    """What a name stands for; None where that belongs to another package."""
    try:
        return member.final_target if isinstance(member, Alias) else member
    except AliasResolutionError:
        return None


def document(cls: Class, composite: Object) -> None:
    """The class's constructor takes the composite's arguments, and the keyword arguments that its base class adds."""
    if not isinstance(composite, Function) or composite.docstring is None:
        raise TypeError(f"{cls.path}: the composite {composite.path} is no documented function")
    text = composite.docstring
    cls.docstring = Docstring(
        text.value, lineno=text.lineno, parent=cls, parser=text.parser, parser_options=text.parser_options
    )
    base = cls.resolved_bases[0].members["__init__"]
    own = [one for one in base.parameters if one.kind is ParameterKind.keyword_only]
    set_constructor(cls, [*composite.parameters, *own])


def construct(cls: Class) -> None:
    """Give a primitive or a named tuple the constructor that its annotated fields make."""
    classes = [cls, *(one for one in cls.mro() if one.package is cls.package)]
    is_tuple = any(str(base) == "NamedTuple" for base in cls.bases)
    if not is_tuple and not any(one.path == NODE for one in classes[1:]):
        return
    kind = ParameterKind.positional_or_keyword if is_tuple else ParameterKind.keyword_only
    fields = [field for one in reversed(classes) for field in one.members.values() if is_field(field)]
    set_constructor(
        cls, [Parameter(one.name, kind=kind, annotation=one.annotation, default=one.value) for one in fields]
    )


def is_field(member: Object) -> bool:
    """Whether each instance has its own: neither a class variable nor private nor a property."""
    own = isinstance(member, Attribute) and "instance-attribute" in member.labels and "property" not in member.labels
    return own and member.annotation is not None and not member.name.startswith("_")


def set_constructor(cls: Class, parameters: Sequence[Parameter]) -> None:
    """The class is made with these."""
    first = Parameter("self", kind=ParameterKind.positional_or_keyword)
    cls.set_member("__init__", Function("__init__", parameters=Parameters(first, *parameters)))
