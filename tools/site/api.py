"""Complete the API pages where the source alone does not suffice: an extension of Griffe.

- A layer class such as `class SE(Layer, composite=spec.se)` gets the documentation of its spec function.
- Primitives and named tuples get a constructor from their fields.
- A name that is both a function and a module (`from maam.parity.check import check`) means the function.
- The section "Example:" of a docstring is shown as code, as Griffe does with "Examples:".
"""

import ast
import re
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

from maam.backend.layers import layer_docstring

NODE = "maam.spec.node.Node"


class Api(Extension):
    """An extension that completes the package once all of it is read."""

    def __init__(self) -> None:
        self.composites: list[tuple[Class, str]] = []

    def on_class_instance(self, *, node: ast.AST, cls: Class, **_: Any) -> None:
        """Record the classes that have a composite."""
        for keyword in getattr(node, "keywords", ()):
            if keyword.arg == "composite":
                self.composites.append((cls, ast.unparse(keyword.value)))

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **_: Any) -> None:
        """Resolve names as Python does, and document layers by their composites."""
        loader.resolve_aliases(implicit=True, external=False)
        modules = [*modules_of(pkg)]
        for module in modules:
            prefer_objects(module)
        for cls, name in self.composites:
            document(cls, pkg[name].final_target)
        for module in modules:
            show_examples(module)
            for member in module.members.values():
                if isinstance(member, Class):
                    construct(member)


def modules_of(module: Module) -> Iterator[Module]:
    """Yield the module and all modules below it."""
    yield module
    for child in module.members.values():
        if isinstance(child, Module):
            yield from modules_of(child)


def prefer_objects(module: Module) -> None:
    """Prefer an imported function or class to a module of the same name."""
    for name in module.imports.keys() & module.members.keys():
        found = target_of(module.members[name])
        inner = target_of(found.members[name]) if isinstance(found, Module) and name in found.members else None
        if isinstance(inner, Function | Class):
            module.members[name] = Alias(name, inner, parent=module)


def show_examples(item: Object) -> None:
    """Rename the sections "Example:" in the docstrings of an object and its members."""
    if item.docstring is not None:
        item.docstring.value = re.sub(r"^(\s*)Example:$", r"\1Examples:", item.docstring.value, flags=re.MULTILINE)
    for member in item.members.values():
        if isinstance(member, Class | Function | Attribute):
            show_examples(member)


def target_of(member: Object | Alias) -> Object | None:
    """Return the object that a name refers to, or None if it belongs to another package."""
    try:
        return member.final_target if isinstance(member, Alias) else member
    except AliasResolutionError:
        return None


def document(cls: Class, composite: Object) -> None:
    """Give the class the docstring of its composite with its own example, as it has at run time.

    The constructor comes from the stub file. A class without one gets the arguments of its composite, and the keyword
    arguments of its base class.
    """
    if not isinstance(composite, Function) or composite.docstring is None:
        raise TypeError(f"{cls.path}: the composite {composite.path} is not a function with a docstring")
    text, own = composite.docstring, cls.docstring
    value = layer_docstring(text.value, None if own is None else own.value)
    cls.docstring = Docstring(
        value, lineno=text.lineno, parent=cls, parser=text.parser, parser_options=text.parser_options
    )
    if "__init__" not in cls.members:
        base = cls.resolved_bases[0].all_members["__init__"]
        keywords = [one for one in base.parameters if one.kind is ParameterKind.keyword_only]
        set_constructor(cls, [*composite.parameters, *keywords])


def construct(cls: Class) -> None:
    """Give a primitive or a named tuple a constructor from its annotated fields."""
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
    """Return whether the member is a public field of each instance, not a class variable or a property."""
    own = isinstance(member, Attribute) and "instance-attribute" in member.labels and "property" not in member.labels
    return own and member.annotation is not None and not member.name.startswith("_")


def set_constructor(cls: Class, parameters: Sequence[Parameter]) -> None:
    """Give the class a constructor with these parameters."""
    first = Parameter("self", kind=ParameterKind.positional_or_keyword)
    cls.set_member("__init__", Function("__init__", parameters=Parameters(first, *parameters)))
