"""Which module imports which, read from the source: every import statement counts, those inside
functions too. Only blocks `if TYPE_CHECKING:` do not, which never run."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

Graph = Mapping[str, frozenset[str]]
"""By the dotted name of each module of a tree: what it imports, modules of the tree and names from
outside it (`torch`, `torch.nn`, with all their parents)."""


def import_graph(root: Path, folders: Iterable[str]) -> Graph:
    """The imports of all files in `folders` of `root`.

    Importing `a.b.c` also runs `a.b.__init__`, which hence counts as imported by every module
    outside `a.b`.
    """
    paths = {_name(path.relative_to(root)): path for each in folders for path in _files(root, each)}
    return {module: frozenset(_imported(module, path, paths)) for module, path in paths.items()}


def reached(graph: Graph, start: str) -> dict[str, tuple[str, ...]]:
    """All that `start` imports, itself or through others, each with a shortest path to it."""
    paths: dict[str, tuple[str, ...]] = {start: (start,)}
    waiting = [start]
    for module in waiting:
        for name in sorted(graph.get(module, ())):
            if name not in paths:
                paths[name] = (*paths[module], name)
                waiting.append(name)
    del paths[start]
    return paths


def cycles(graph: Graph) -> list[tuple[str, ...]]:
    """A shortest way round for each module that reaches itself, beginning with its first name."""
    found = set()
    for module, names in graph.items():
        ways = [reached(graph, name).get(module) for name in names & graph.keys()]
        if closed := [way for way in ways if way is not None]:
            way = min(closed, key=lambda each: (len(each), each))
            first = way.index(min(way))
            found.add((*way[first:], *way[:first]))
    return sorted(found)


def _files(root: Path, folder: str) -> list[Path]:
    files = sorted((root / folder).rglob("*.py"))
    assert files, f"{folder} holds no module: it does not exist, or is spelled otherwise"
    return files


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imported(module: str, path: Path, tree: Mapping[str, Path]) -> Iterator[str]:
    for name in _named(ast.parse(path.read_text()), path):
        parts = name.split(".")
        parents = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        if parts[0] in {each.split(".")[0] for each in tree}:
            parents = [each for each in parents if each in tree]
        yield from (each for each in parents if not f"{module}.".startswith(f"{each}."))


def _named(tree: ast.AST, path: Path) -> Iterator[str]:
    """Every dotted name that is imported, or written out as `torch.distributed` is."""
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.distributed":
            yield "torch.distributed"


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _running(node)
