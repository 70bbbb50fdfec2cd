"""The house: modules import from floors below only, and each dependency has its module."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import prodia_async

HOUSE = Path(prodia_async.__file__).parent

FLOORS: dict[int, set[str]] = {
    0: {
        "_notebook",
        "_waiting", "_show", "_media", "_files", "_version", "_closing", "_catalogue_data",
        "_attempts", "_limit", "_admission", "_secret",
    },
    1: {"_results", "_outputs", "_line", "_statistics"},
    2: {"_errors", "_source"},
    3: {"_checks", "_part_headers", "_pixels", "_sources"},
    4: {
        "_formats", "_multipart", "_retry", "_scheduler", "_uploads", "_wire",
        "_hooks", "_catalogue", "_keys",
    },
    5: {"_models", "_statuses", "transports"},
    6: {"_requests", "_answers", "_exchange", "job_types"},
    7: {"_vocabulary", "_sessions", "_verdicts"},
    8: {"_cache", "_engine", "_map", "_progress", "_reading", "_stream"},
    9: {"_base", "_polling", "_grid"},
    10: {"_async_jobs", "_options"},
    11: {"_client", "fireworks", "types"},
    12: {"batch"},
    13: {"_cli", "_demo", "_contact_sheet", "__main__", "integrations", "testing"},
}  # fmt: skip
FLOOR_OF = {module: floor for floor, modules in FLOORS.items() for module in modules}

# _contact_sheet draws for _demo, in the one floor whose modules know each other.
TOP_FLOOR = 13

OWNERS: dict[str, set[str]] = {
    "httpcore": {"transports"},
    "h11": {"transports"},
    "pydantic": {"_results"},
    "python_multipart": {"_multipart"},
    "tenacity": {"_retry"},
}
ONLY_ON_TOP = {"click", "typer", "rich", "starlette", "uvicorn", "PIL"}
# Pillow, where it is installed: pictures out of outputs, and pictures as inputs.
WITH_EXTRAS = {("_outputs", "PIL"), ("_pixels", "PIL"), ("batch", "PIL"), ("batch", "rich")}


def name_of(file: Path) -> str:
    return file.relative_to(HOUSE).parts[0].removesuffix(".py")


def files() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path, *, typing_too: bool = True) -> Iterator[str]:
    """Yield each imported module: ours as ``.module``, theirs by its first name."""
    tree = parsed(file)
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if not typing_too and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(inner for each in node.body for inner in ast.walk(each))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from absolute(alias.name)
        elif isinstance(node, ast.ImportFrom):
            yield from from_import(file, node)


def absolute(name: str) -> Iterator[str]:
    first, _, rest = name.partition(".")
    yield f".{rest.partition('.')[0]}" if first == "prodia_async" else first


def from_import(file: Path, node: ast.ImportFrom) -> Iterator[str]:
    if not node.level:
        yield from absolute(node.module or "")
        return
    folder = file.relative_to(HOUSE).parent.parts
    base = folder[: len(folder) - node.level + 1]
    path = [*base, *(node.module or "").split(".")] if node.module else list(base)
    if path:
        yield f".{path[0]}"
    else:
        yield from (f".{alias.name}" for alias in node.names)


HOUSE_FILES = [file for file in files() if name_of(file) not in {"emulator", "__init__"}]
MODULES = pytest.mark.parametrize("file", HOUSE_FILES, ids=lambda file: file.stem)


def test_the_map_for_contributors_is_this_one() -> None:
    """CONTRIBUTING.md has the same modules on the same floors, for whoever reads it."""
    text = (HOUSE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = text.split("```text\n", 1)[1].split("```", 1)[0]
    # A floor's lines stand together; what a module is for stands behind wide space.
    floors = [
        {name for line in floor.splitlines() for name in re.split(r"\s{3,}", line)[0].split()}
        for floor in drawn.strip().split("\n\n")
    ]
    assert floors == [FLOORS[number] for number in sorted(FLOORS)]


@MODULES
def test_every_module_has_a_floor(file: Path) -> None:
    """A new module is put into the plan above, or it does not pass."""
    assert name_of(file) in FLOOR_OF


@MODULES
def test_imports_go_down_only(file: Path) -> None:
    """No module imports from its own floor or above, not even for the type checker."""
    module = name_of(file)
    floor = FLOOR_OF[module]
    for imported in imports(file):
        if not imported.startswith(".") or imported == f".{module}":
            continue
        if imported == ".emulator":
            assert floor == TOP_FLOOR
        else:
            below = FLOOR_OF[imported[1:]]
            assert below < floor or floor == below == TOP_FLOOR, f"{module} imports {imported}"


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(HOUSE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_nothing_goes_round() -> None:
    """No module needs itself by way of others, not even for the type checker."""
    by_name = {module_of(file): file for file in files()}
    needs: dict[str, set[str]] = {}
    for name, file in by_name.items():
        package = name if file.stem == "__init__" else name.rpartition(".")[0]
        found = needs.setdefault(name, set())
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = package.split(".")
                base = base[: len(base) - node.level + 1] if node.level else []
                whole = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
                # What is imported is a module, or else a name in one.
                names = {f"{whole}.{alias.name}" for alias in node.names}
                found.update(each if each in by_name else whole for each in names)
        found &= by_name.keys()
    assert sum(map(len, needs.values())) > len(needs)
    TopologicalSorter(needs).prepare()  # CycleError names the circle


@MODULES
def test_each_dependency_has_its_module(file: Path) -> None:
    """Not even for types is a library known outside the module that owns it."""
    module = name_of(file)
    for imported in imports(file):
        assert module in OWNERS.get(imported, {module}), f"{module} imports {imported}"
        if imported in ONLY_ON_TOP and (module, imported) not in WITH_EXTRAS:
            assert FLOOR_OF[module] == TOP_FLOOR, f"{module} imports {imported}"


@pytest.mark.parametrize(
    "file", [file for file in files() if name_of(file) == "emulator"], ids=lambda file: file.stem
)
def test_the_annex_shares_nothing_with_the_house(file: Path) -> None:
    """A server built on our decoder would agree with our mistakes."""
    for imported in imports(file):
        assert not imported.startswith(".") or imported == ".emulator", imported


def test_the_test_sees_imports() -> None:
    """Each form of import is understood, or the tests above would prove nothing."""
    found = {name_of(file): set(imports(file)) for file in HOUSE_FILES}
    assert {"._errors", "._media", "json"} <= found["_requests"]
    assert "._outputs" in found["_errors"]
    here = {name_of(file): set(imports(file, typing_too=False)) for file in HOUSE_FILES}
    assert {each for each in here["_errors"] if each.startswith(".")} == {
        "._show", "._attempts", "._secret",
    }  # fmt: skip
    assert "httpx" in here["_base"]


def loaded_by(*modules: str) -> set[str]:
    """Return what a fresh interpreter has loaded after these imports."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOUSE.parent
    )
    return set(done.stdout.split())


def test_the_front_door_is_light() -> None:
    """A fresh import loads no module of the top floor, and nothing that only that floor needs."""
    loaded = loaded_by("prodia_async")
    top = {f"prodia_async.{module}" for module in FLOORS[TOP_FLOOR]} | {"prodia_async.emulator"}
    assert loaded.isdisjoint(top), sorted(loaded & top)
    # httpx loads its own command line, and click with it, wherever those are installed.
    extras = (loaded - loaded_by("httpx", "pydantic")) & ONLY_ON_TOP
    assert not extras, sorted(extras)


def test_nothing_of_the_core_is_imported_late() -> None:
    """What a client needs is there once the package is imported; later there is nothing to load."""
    loaded = loaded_by("prodia_async")
    late = {
        f"prodia_async.{module}" for module in FLOOR_OF if FLOOR_OF[module] <= FLOOR_OF["_client"]
    }
    late -= {"prodia_async.job_types", "prodia_async.fireworks", "prodia_async.transports"}
    late -= {"prodia_async._keys"}  # the batch asks for it, not a client
    late -= {"prodia_async._catalogue", "prodia_async._catalogue_data"}  # only checks ask for it
    assert late <= loaded, sorted(late - loaded)
    assert {"tenacity", "h11", "python_multipart", "pydantic.main"} <= loaded
