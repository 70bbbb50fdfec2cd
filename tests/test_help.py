"""`help()` is complete: whatever is public is explained, with each argument and attribute."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
import typing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pydantic
import pytest

MODULES = [
    "prodia_async",
    "prodia_async.batch",
    "prodia_async.emulator",
    "prodia_async.fireworks",
    "prodia_async.integrations.aiohttp",
    "prodia_async.integrations.daft",
    "prodia_async.integrations.opentelemetry",
    "prodia_async.integrations.ray",
    "prodia_async.integrations.starlette",
    "prodia_async.job_types",
    "prodia_async.testing",
    "prodia_async.transports",
    "prodia_async.types",
]
HANDED_OUT = {"AsyncJob", "JobStream", "Outcomes", "OutputPart"}
"""Nobody but us makes them, so that their constructors are nobody's business."""
NAMES = [
    pytest.param(module, name, id=f"{module.removeprefix('prodia_async.')}.{name}")
    for module in MODULES
    for name in importlib.import_module(module).__all__
    if name != "__version__"
]
ROOT = Path(__file__).parents[1] / "prodia_async"
ENTRY = re.compile(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?: +\S", re.MULTILINE)
SECTION = re.compile(
    r"^(Args|Attributes|Returns|Yields|Raises|Receives|Warns|Example|Note)s?:", re.MULTILINE
)


SOURCES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for path in [*ROOT.rglob("*.py"), Path(__file__)]
}
CLASSES: dict[str, list[ast.ClassDef]] = {}
for _tree in SOURCES.values():
    for _node in ast.walk(_tree):
        if isinstance(_node, ast.ClassDef):
            CLASSES.setdefault(_node.name, []).append(_node)


def entries(doc: str, *sections: str) -> set[str]:
    """Return the names that have an entry in one of the sections of a docstring."""
    starts = [*SECTION.finditer(doc), None]
    found: set[str] = set()
    for here, following in pairwise(starts):
        assert here is not None
        if here[1] in sections:
            text = doc[here.end() : following.start() if following else None]
            for names in ENTRY.findall(text):
                found |= {name.strip(" *") for name in names.split(",")}
    return found


def is_ours(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").startswith("prodia_async")


def own_doc(cls: type) -> str:
    """Return the docstring that a class was written with, or nothing."""
    doc = cls.__dict__.get("__doc__") or ""
    return "" if doc.startswith(f"{cls.__name__}(") else inspect.cleandoc(doc)


def class_docs(cls: type) -> str:
    """Return the docstrings of a class and of its bases of ours, which `help()` shows with it."""
    return "\n\n".join(own_doc(each) for each in cls.__mro__ if is_ours(each))


def said_below(cls: type) -> set[str]:
    """Return the attributes that have a docstring under them in the source, bases' too."""
    found: set[str] = set()
    for each in cls.__mro__:
        if is_ours(each):
            for written in CLASSES.get(each.__name__, []):
                # They say that they are of the front door, so the docstring has to tell.
                if ast.get_docstring(written) == inspect.cleandoc(each.__doc__ or ""):
                    found |= names_with_docstrings(written.body)
    return found


def names_with_docstrings(body: list[ast.stmt]) -> set[str]:
    return {
        getattr(target, "id", "")
        for statement, following in pairwise(body)
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
        and isinstance(following.value.value, str)
        for target in (
            [statement.target] if isinstance(statement, ast.AnnAssign) else statement.targets
        )
    }


def fields_of(cls: type) -> set[str]:
    """Return the public attributes that a class of ours declares."""
    return {
        name
        for each in cls.__mro__
        if is_ours(each)
        for name, kind in inspect.get_annotations(each).items()
        if not name.startswith("_") and "ClassVar" not in str(kind)
    }


def parameters_of(function: Any) -> set[str]:
    """Return the names that a caller may give, options of a TypedDict one by one."""
    found: set[str] = set()
    for parameter in inspect.signature(function).parameters.values():
        options = options_of(function, parameter)
        if options is not None:
            found |= set(options.__annotations__)
        elif parameter.name not in {"self", "cls"}:
            found.add(parameter.name)
    return found


def options_of(function: Any, parameter: inspect.Parameter) -> Any:
    """Return the TypedDict of ``**options: Unpack[...]``, if it is such a parameter."""
    if parameter.kind is not parameter.VAR_KEYWORD:
        return None
    written = re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation))
    return (
        vars(sys.modules[inspect.unwrap(function).__module__]).get(written[1]) if written else None
    )


def raised_in(function: Any) -> set[str]:
    """Return the errors that a function raises in its own lines, by name."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return set()
    return {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id.endswith("Error")
    }


def told_by_options(function: Any, doc: str) -> set[str]:
    """Return the options that the entry of ``**options`` names, or those of a class it names."""
    found: set[str] = set()
    for parameter in inspect.signature(function).parameters.values():
        if options_of(function, parameter) is not None:
            entry = re.search(
                rf"^    {parameter.name}: ((?:.*\n?)(?:^     .*\n?)*)", doc, re.MULTILINE
            )
            for name in re.findall(r"`(\w+)`", entry[1] if entry else ""):
                found.add(name)
                thing = vars(sys.modules[inspect.unwrap(function).__module__]).get(name)
                if isinstance(thing, type):
                    found |= entries(class_docs(thing), "Args")
    return found


def faults_of_function(function: Any, where: str, doc: str | None = None) -> list[str]:
    doc = inspect.getdoc(function) or "" if doc is None else doc
    if not doc:
        return [f"{where} has no docstring"]
    faults = [
        f"{where}: no word of `{name}`"
        for name in sorted(
            parameters_of(function) - entries(doc, "Args") - told_by_options(function, doc)
        )
    ]
    return faults + [
        f"{where}: raises {name} and does not say so"
        for name in sorted(raised_in(function) - entries(doc, "Raises"))
        if name not in {"AssertionError", "NotImplementedError"}
    ]


def faults_of_class(cls: type, where: str) -> list[str]:
    if not own_doc(cls):
        return [f"{where} has no docstring"]
    faults: list[str] = []
    doc = class_docs(cls)
    init: Any = vars(cls).get("__init__", object.__init__)
    if inspect.isfunction(init):
        told = entries(doc, "Args", "Attributes") | entries(inspect.getdoc(init) or "", "Args")
        if (
            not issubclass(cls, BaseException | pydantic.BaseModel)
            and cls.__name__ not in HANDED_OUT
        ):
            given = parameters_of(init) - {"args", "kwargs"}
            told |= said_below(cls)
            faults += [f"{where}: no word of `{name}`" for name in sorted(given - told)]
    # What is given by name is told where it is given; what is read has its word below it,
    # where an editor finds it.
    told = entries(doc, "Args") | said_below(cls)
    inherited = {name for each in cls.__mro__[1:] for name in inspect.get_annotations(each)}
    faults += [
        f"{where}.{name} has its word far from it"
        for name in sorted(entries(own_doc(cls), "Attributes") - inherited - set(dir_of(cls)))
    ]
    faults += [
        f"{where}.{name} has no docstring"
        for name in sorted(fields_of(cls) - told - set(dir_of(cls)))
    ]
    for name, member in dir_of(cls).items():
        here = f"{where}.{name}"
        if isinstance(member, property):
            if not inspect.getdoc(member.fget):
                faults.append(f"{here} has no docstring")
        elif callable(getattr(cls, name)):
            faults += faults_of_function(getattr(cls, name), here)
    return faults


def dir_of(cls: type) -> dict[str, Any]:
    """Return the public methods and properties that a class has from classes of ours."""
    kinds = property | classmethod | staticmethod | type(dir_of)
    return {
        name: member
        for each in reversed(cls.__mro__)
        if is_ours(each)
        for name, member in vars(each).items()
        if not name.startswith("_") and isinstance(member, kinds)
    }


def faults_of_value(module: Any, name: str) -> list[str]:
    """Anything else is a constant or an alias: it has a docstring under it, where it is made."""
    if any(name in names_with_docstrings(tree.body) for tree in SOURCES.values()):
        return []
    return [f"{module.__name__}.{name} has no docstring under it"]


@pytest.mark.parametrize(("module_name", "name"), NAMES)
def test_what_is_public_is_explained(module_name: str, name: str) -> None:
    """Each class, method, property, field and argument; and which errors are raised."""
    module = importlib.import_module(module_name)
    thing = getattr(module, name)
    if isinstance(thing, type):
        faults = faults_of_class(thing, name)
    elif typing.get_origin(thing) is typing.Union:
        faults = faults_of_value(module, name)
        for each in typing.get_args(thing):
            cls = typing.get_origin(each)
            if isinstance(cls, type) and is_ours(cls):
                faults += faults_of_class(cls, cls.__name__)
    elif inspect.isroutine(thing):
        faults = faults_of_function(thing, name)
    else:
        faults = faults_of_value(module, name)
    assert faults == []


@pytest.mark.parametrize("name", [*MODULES, "prodia_async.integrations"])
def test_help_opens_with_a_sentence(name: str) -> None:
    """For those who use it: what it is for, and how it looks; nothing of what is behind it."""
    doc = inspect.getdoc(importlib.import_module(name)) or ""
    first, empty, *rest = doc.splitlines()
    assert first.endswith((".", ";"))
    assert empty == ""
    assert rest
    assert not re.search(r"`_\w+`", doc), "a name that is not public"


# ------------------------------------------------------------------ is it able to fail?


class Explained:
    """
    One that is explained.

    Args:
        given: So.

    """

    said: int
    """Below."""

    def __init__(self, given: int) -> None:
        self.given = given

    def method(self, argument: int) -> None:
        """
        Do it.

        Args:
            argument: So.

        Raises:
            ValueError: Never.
        """
        raise ValueError("x")


class Bare(Explained):
    """
    Bare.

    Attributes:
        untold: Where no editor looks.
    """

    untold: int

    def method(self, argument: int, other: int = 0) -> None:  # noqa: D417  (on purpose)
        """
        Do it.

        Args:
            argument: So.
        """
        raise ValueError("x")

    @property
    def value(self) -> int:
        return 1


def test_what_is_missing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found in it; and of one that is not, all that is missing."""
    monkeypatch.setitem(
        globals(), "is_ours", lambda thing: getattr(thing, "__module__", "") == __name__
    )
    assert faults_of_class(Explained, "E") == []
    assert faults_of_class(Bare, "B") == [
        "B.untold has its word far from it",
        "B.untold has no docstring",
        "B.method: no word of `other`",
        "B.method: raises ValueError and does not say so",
        "B.value has no docstring",
    ]
