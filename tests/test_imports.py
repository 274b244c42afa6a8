"""Imports point from the run towards the mathematics (README.md, Layout)."""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.imports import Graph, cycles, import_graph, reached

ROOT = Path(__file__).parent.parent
GRAPH = import_graph(ROOT, ["coordtok", "data_prep", "scripts"])
ROOMS = (
    "coordtok",
    "coordtok.errors",
    "coordtok.progress",
    "coordtok.endings",
    "coordtok.storage",
    "coordtok.geometry",
    "coordtok.config",
    "coordtok.cli",
    "coordtok.scaling",
    "coordtok.torch_files",
    "coordtok.ops",
    "coordtok.losses",
    "coordtok.diffusion",
    "coordtok.pretrained",
    "coordtok.models",
    "coordtok.pretrained.official",
    "coordtok.video",
    "coordtok.data",
    "coordtok.distributed",
    "coordtok.inference",
    "coordtok.evaluation",
    "coordtok.train.tasks",
    "coordtok.train",
    "data_prep",
    "coordtok.benchmarks",
    "scripts",
)
"""Folders, and the files that lie beside them in coordtok: each may import those before it."""

RUN_LIBRARIES = {"deepspeed", "torch.distributed", "wandb", "webdataset"}
RUN = {
    *RUN_LIBRARIES,
    *(f"coordtok.{room}" for room in ("data", "distributed", "inference", "evaluation", "train")),
}
UNREACHED = {
    "coordtok.config": {*RUN, "torch"},
    "coordtok.geometry.latent": {"torch"},
    "coordtok.geometry": RUN,
    "coordtok.ops": RUN,
    "coordtok.losses": RUN,
    "coordtok.diffusion": RUN,
    "coordtok.models": RUN,
    "coordtok.pretrained": RUN,
    "coordtok.storage": {"torch"},
    "coordtok.torch_files": RUN,
    "coordtok.video": {"torch"},
    "coordtok.inference": {"deepspeed", "coordtok.evaluation", "coordtok.train"},
    "coordtok.evaluation": {"deepspeed", "coordtok.train"},
    "coordtok.cli": {"torch"},
    "coordtok.scaling": {"torch"},
    "data_prep": {"torch"},
}
"""What a room, or a file, never imports, not even through others."""

DATA_PREP_USES = {"cli", "config", "data", "errors", "progress", "storage", "video"}
SAME_NAMES = {
    "tokenizer": "the model, and the task that trains it",
}
"""Modules of one name, which hence must be about one thing."""


def room_of(module: str, graph: Graph = GRAPH) -> str:
    """The folder of a module; a file beside the folders of coordtok is a room of its own."""
    is_folder = any(name.startswith(f"{module}.") for name in graph)
    folder = module if is_folder else module.rpartition(".")[0]
    return module if folder == "coordtok" else folder


def modules_of(room: str) -> list[str]:
    modules = [module for module in GRAPH if room in (module, room_of(module))]
    assert modules, f"there is no {room}"
    return modules


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room_of(module) for module in GRAPH} == set(ROOMS)


def test_the_readme_shows_the_rooms_in_this_order() -> None:
    layout = re.search(
        r"^coordtok/.*\n((  \S.*\n)+)", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert layout is not None
    shown = [line.split()[0].removesuffix(".py").rstrip("/") for line in layout[1].splitlines()]
    assert shown == [room.removeprefix("coordtok.") for room in ROOMS if room.count(".") == 1]


def test_imports_point_one_way() -> None:
    place = {room: number for number, room in enumerate(ROOMS)}
    upward = {
        f"{module} -> {name}"
        for module, names in GRAPH.items()
        for name in names & GRAPH.keys()
        if place[room_of(name)] > place[room_of(module)]
    }
    assert not upward


def test_files_do_not_import_each_other_in_circles() -> None:
    assert cycles(GRAPH) == []


@pytest.mark.parametrize("room", UNREACHED)
def test_a_room_never_reaches(room: str) -> None:
    for module in modules_of(room):
        for name, way in reached(GRAPH, module).items():
            forbidden = name in UNREACHED[room] or room_of(name) in UNREACHED[room]
            assert not forbidden, " -> ".join(way)


def test_one_file_names_torch_distributed_and_one_folder_deepspeed() -> None:
    for module, names in GRAPH.items():
        assert "torch.distributed" not in names or module == "coordtok.distributed", module
        assert "deepspeed" not in names or module.startswith("coordtok.train."), module


def test_training_asks_evaluation_and_inference_in_few_places() -> None:
    for module in modules_of("coordtok.train"):
        rooms = {room_of(name) for name in GRAPH[module]}
        asks = rooms & {"coordtok.evaluation", "coordtok.inference"}
        assert not asks or module in ("coordtok.train.validation", "coordtok.train.curves"), module


def test_data_prep_stands_on_the_shards_rooms_alone() -> None:
    for module in modules_of("data_prep"):
        rooms = {room_of(name) for name in GRAPH[module] if name.startswith("coordtok.")}
        assert rooms <= {f"coordtok.{room}" for room in DATA_PREP_USES}, module


def test_modules_of_one_name_are_about_one_thing() -> None:
    named = defaultdict(list)
    for module in GRAPH:
        if room_of(module) not in (module, "scripts"):
            named[module.rpartition(".")[2]].append(module)
    assert {name for name, modules in named.items() if len(modules) > 1} == SAME_NAMES.keys()


@pytest.mark.parametrize("module", ["coordtok", "coordtok.config.load", "data_prep.build_shards"])
def test_planning_and_data_preparation_load_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_importing_the_library_changes_nothing_outside_it() -> None:
    code = (
        "import os, signal; before = dict(os.environ), signal.getsignal(signal.SIGTERM);"
        "import coordtok.models.tokenizer, coordtok.data.loader;"
        "assert before == (dict(os.environ), signal.getsignal(signal.SIGTERM))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def tree(folder: Path, files: dict[str, str]) -> Graph:
    """The imports of a made-up tree."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return import_graph(folder, {name.split("/")[0] for name in files})


def test_the_checker_sees_imports_inside_functions_but_not_those_for_types(tmp_path: Path) -> None:
    body = "if TYPE_CHECKING:\n    import wandb\n\ndef f():\n    from house.b import g\n"
    graph = tree(tmp_path, {"house/a.py": body, "house/b.py": "import torch.nn\n"})
    assert graph["house.a"] == {"house.b"}
    assert reached(graph, "house.a")["torch"] == ("house.a", "house.b", "torch")


def test_the_checker_sees_what_a_package_imports_for_its_modules(tmp_path: Path) -> None:
    files = {"house/a.py": "from house.room.b import f\n", "house/room/b.py": ""}
    graph = tree(tmp_path, {**files, "house/room/__init__.py": "from torch import distributed\n"})
    assert "torch.distributed" in reached(graph, "house.a")


def test_the_checker_sees_circles(tmp_path: Path) -> None:
    files = {"house/a.py": "import house.b", "house/b.py": "import house.c", "house/d.py": ""}
    graph = tree(tmp_path, {**files, "house/c.py": "def f():\n    from house import a, d\n"})
    assert cycles(graph) == [("house.a", "house.b", "house.c")]


def test_the_checker_refuses_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="scaling"):
        import_graph(tmp_path, ["scaling"])
