"""What a case is: a command on good input, and one thing that is wrong; all of it from a number."""

import argparse
import hashlib
import io
import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path

from coordtok.config.load import load_config, to_dict
from coordtok.data.index import INDEX_NAME, SampleEntry, ShardEntry, ShardIndex
from coordtok.data.sums import sums_of
from tests.campaign.conditions import Conditions
from tests.campaign.good_input import GoodInputs, command_line
from tests.campaign.lying_server import LyingServer, any_lie
from tests.support.commands import parser_of
from tests.support.damage import damage
from tests.support.damaged_documents import ODD_NUMBERS

OUTPUT = "out"


@dataclass(frozen=True)
class Setup:
    """A command on good input."""

    name: str
    words: str
    """Of the command line."""
    inputs: str
    """The files and folders that it reads."""
    remote: str | None = None
    """The one that may be a URL."""
    every: int = 1
    """In how many rounds it has one case: more than 1 for what takes long."""

    @property
    def script(self) -> list[str]:
        """Its words up to the script or the module, and the word that chooses a parser."""
        words = self.words.split()
        return words[: 2 if words[0] in ("-m", *_OF_MANY_PARSERS) else 1]

    @property
    def command(self) -> str:
        """What --only takes."""
        return (
            self.script[1].removeprefix("data_prep.")
            if self.script[0] == "-m"
            else Path(self.script[0]).stem
        )


_OF_MANY_PARSERS = ("scripts/benchmark.py", "scripts/scaling.py")
_TRAIN = "scripts/train.py --deepspeed zero.json --config"
_EVALUATE = "scripts/evaluate.py --output out --shards"
_BUILD = "-m data_prep.build_shards --height 32 --width 32 --clip-frames 8 --workers 1 --output out"
_IDLE = ("build.json", "failures.jsonl", "encode.json", "sample.json", "skipped.jsonl")
"""Files beside the inputs that their commands left there for people."""
_RUN = "run.yaml zero.json shards raw"
SETUPS = (
    Setup("train", f"{_TRAIN} run.yaml train.steps=1", _RUN, "shards"),
    Setup("train, loader", f"{_TRAIN} run.yaml train.steps=1 data.workers=2", _RUN, "shards"),
    Setup("resume", f"{_TRAIN} run.yaml run_dir=run train.steps=3", f"{_RUN} run"),
    Setup("init_from", f"{_TRAIN} run.yaml train.steps=1 train.init_from=export", f"{_RUN} export"),
    Setup("train dit", f"{_TRAIN} dit.yaml train.steps=1", "dit.yaml zero.json latents export",
          "latents"),
    Setup("train videos", f"{_TRAIN} run.yaml train.steps=1 data.shards=videos "
          "data.val_shards=null", "run.yaml zero.json videos"),
    Setup("encode", "scripts/encode.py --model export --shards shards --output out --workers 0",
          "export shards", "shards"),
    Setup("encode, loader", "scripts/encode.py --model export --shards raw --output out "
          "--windows 2 --workers 2", "export raw", "raw"),
    Setup("decode", "scripts/decode.py --model export --latents latents --output out --num 3",
          "export latents", "latents"),
    Setup("evaluate", f"{_EVALUATE} shards --model export --linear-codec codec.safetensors "
          "--workers 0", "export shards codec.safetensors", "shards"),
    Setup("evaluate videos", f"{_EVALUATE} videos --model export --workers 0", "export videos"),
    Setup("evaluate clips", f"{_EVALUATE} raw --model export --clip-list evaluated/clips.csv",
          "export raw evaluated/clips.csv", "raw"),
    Setup("evaluate generated", f"{_EVALUATE} raw --generated samples --features features.pt "
          "--clips 3 --fvd-frames 8 --features-size 0", "raw samples features.pt"),
    Setup("reconstruct", "scripts/reconstruct.py --model export --output out --input "
          "videos/a/one.mp4",
          "export videos/a/one.mp4"),
    Setup("reconstruct mkv", "scripts/reconstruct.py --model export --input videos/b/three.mkv "
          "--output out --fit tile --batch 4", "export videos/b/three.mkv"),
    Setup("sample", "scripts/sample.py --model dit --num 2 --steps 2 --output out", "dit export"),
    Setup("export", "scripts/export.py run out", "run"),
    Setup("import", "scripts/import_official.py official/tokenizer.pth out --heads 2",
          "official/tokenizer.pth"),
    Setup("import generator", "scripts/import_official.py official/generator.pt out --heads 2 "
          "--log official/generator_log.txt", "official/generator.pt official/generator_log.txt"),
    Setup("fit", "scripts/fit_linear_codec.py --config run.yaml --shards shards --output out "
          "--tubelet 4 8 8", "run.yaml shards", "shards"),
    Setup("scaling", "scripts/scaling.py run study.yaml --print", "study.yaml run.yaml zero.json"),
    Setup("build", f"{_BUILD} --input videos", "videos"),
    Setup("build list", f"{_BUILD} --input videos.txt --dataset list", "videos.txt videos"),
    Setup("build ucf101", f"{_BUILD} --input videos --dataset ucf101 --splits splits --split train",
          "videos splits"),
    Setup("build kinetics", f"{_BUILD} --input videos --dataset kinetics --csv kinetics.csv",
          "videos kinetics.csv"),
    Setup("verify", "-m data_prep.verify_shards shards --decode all", "shards"),
    Setup("verify latents", "-m data_prep.verify_shards latents --decode all", "latents"),
    Setup("write index", "-m data_prep.verify_shards raw --write-index --clip-frames 8", "raw"),
    Setup("benchmark loader", "scripts/benchmark.py loader --clips 2 --resume-samples 400 --input "
          "videos/a/one.mp4", "videos/a/one.mp4", every=16),
    Setup("benchmark decode", "scripts/benchmark.py decode --model export --shards raw",
          "export raw"),
)  # fmt: skip


@dataclass
class Case:
    """A command line to run in a folder, and what is wrong."""

    number: int
    setup: Setup
    folder: Path
    kind: str = ""
    """Of what is wrong, for the table."""
    detail: str = ""
    words: list[str] = field(default_factory=list)
    conditions: Conditions = field(default_factory=Conditions)
    cleanup: ExitStack = field(default_factory=ExitStack)

    def inputs(self) -> list[Path]:
        return [self.folder / name for name in self.setup.inputs.split()]

    def wrong(self, kind: str, detail: str = "") -> None:
        self.kind, self.detail = kind, detail

    def replace_word(self, old: str, new: str) -> None:
        """In options and in overrides."""
        self.words = [
            new if word == old else word.replace(f"={old}", f"={new}") for word in self.words
        ]

    def close(self) -> None:
        self.cleanup.close()
        for path in [self.folder, *self.folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(self.folder)


ORDER = [setup for each in range(16) for setup in SETUPS if each % setup.every == 0]
"""Of case numbers, again and again."""
UNHARMED = range(-len(SETUPS), 0)
"""Numbers of the cases in which nothing is wrong, one of each setup."""


def numbers(only: str | None, count: int) -> list[int]:
    """The first `count` cases (of one command), after those with nothing wrong."""
    chosen = (number for number in itertools.count() if _is_of(only, number))
    return [number for number in UNHARMED if _is_of(only, number)] + list(islice(chosen, count))


def _is_of(command: str | None, number: int) -> bool:
    return command in (None, setup_of(number).command)


def setup_of(number: int) -> Setup:
    """Of a case."""
    return SETUPS[number] if number in UNHARMED else ORDER[number % len(ORDER)]


def prepare(seed: int, number: int, good: GoodInputs, folder: Path) -> Case:
    """Make a case in `folder`, which is new. The same numbers give the same case."""
    rng = random.Random(f"{seed} {number}")
    case = Case(number, setup_of(number), folder)
    folder.mkdir()
    case.words = case.setup.words.split()
    names = case.setup.inputs.split()
    good.make(names)
    for name in names:
        _copy(good.folder / name, folder / name)
    if number in UNHARMED:
        case.wrong("nothing")
    else:
        _choose_trouble(case, rng)
    case.words = command_line(case.words)
    return case


def _choose_trouble(case: Case, rng: random.Random) -> None:
    weights = {_damaged_file: 10, _odd_option: 4, _odd_file: 4, _hard_conditions: 2}
    if case.setup.remote:
        weights[_lying_server] = 3
    if case.setup.command == "train":
        weights[_odd_key] = 3
    rng.choices(list(weights), list(weights.values()))[0](case, rng)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def _files(case: Case) -> list[Path]:
    """Of all inputs, those that a reader would look for."""
    found = [path for top in case.inputs() for path in (top, *sorted(top.rglob("*")))]
    return [
        path for path in found
        if path.is_file() and path.name not in _IDLE and path.suffix not in (".png", ".py")
    ]  # fmt: skip


def _damaged_file(case: Case, rng: random.Random) -> None:
    files = _files(case)
    suffix = rng.choice(sorted({path.suffix for path in files}))
    path = rng.choice([path for path in files if path.suffix == suffix])
    found = damage(path.name, path.read_bytes(), rng)
    path.write_bytes(found.data)
    case.wrong(f"{found.kind}{'' if path.suffix in found.kind else f' ({path.suffix})'}",
               f"{path.relative_to(case.folder)}: {found.detail}")  # fmt: skip
    if path.suffix == ".tar" and rng.random() < 0.6:
        _index_as_it_is(path)


def _index_as_it_is(tar: Path) -> None:
    """Have the index beside a damaged shard agree with it, as that of a forger would."""
    path, content = tar.parent / INDEX_NAME, tar.read_bytes()

    def forged(shard: ShardEntry) -> ShardEntry:
        samples = tuple(_with_sums_of(content, sample) for sample in shard.samples)
        return ShardEntry(tar.name, len(content), hashlib.sha256(content).hexdigest(), samples)

    index = ShardIndex.from_json(path.read_text(), str(path))
    shards = (forged(each) if each.name == tar.name else each for each in index.shards)
    path.write_text(replace(index, shards=tuple(shards)).to_json())


def _with_sums_of(content: bytes, sample: SampleEntry) -> SampleEntry:
    sums = {ext: sums_of(io.BytesIO(content), *place) for ext, place in sample.files.items()}
    return replace(sample, checksums=sums)


_ODD_PATHS = (
    "", ".", "..", "/", "nowhere", "no/where", "x" * 300, "/" + "x/" * 3000, "a\nb", "\x1b[31m",
    "\udcff", "/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "/proc/self/fd/0", "-", "~",
    "http://", "http://[", "http://127.0.0.1:1/x", "https://127.0.0.1:1", "ftp://127.0.0.1/x",
    "file:///etc/passwd", "pipe:false", "pipe:false {name}", "pipe:cat /dev/zero {name}",
    "pipe:sleep 100 {name}", "{name}", "run.yaml", "videos", "|true", "s3://", "hf://nobody/x",
    "export/config.json", "raw",
)  # fmt: skip
_LONG = {"num", "steps", "clips", "resume_samples"}
"""Options that say how much is to be done: there is nothing wrong with much."""


@cache
def _options(script: tuple[str, ...]) -> list[argparse.Action]:
    parser = parser_of([word for word in script if word != "-m"])
    skipped = (argparse._HelpAction, argparse._StoreTrueAction, argparse._SubParsersAction)
    return [
        action
        for action in parser._actions
        if not isinstance(action, skipped)
        and action.dest not in ("local_rank", "overrides", "options")
    ]


def _odd_option(case: Case, rng: random.Random) -> None:
    action = rng.choice(_options(tuple(case.setup.script)))
    odd = rng.choice(_odd_values(action))
    if action.option_strings:
        count = action.nargs if isinstance(action.nargs, int) else 1
        case.words += [action.option_strings[-1], *[odd] * count]
        name = action.option_strings[-1]
    else:
        at = [word for word in case.words if not word.startswith("-")]
        case.replace_word(rng.choice(at[1:] or at), odd)
        name = action.dest
    case.words = [word for word in case.words if "\0" not in word]
    case.wrong("options", f"{name} {odd[:60]!r}")


def _odd_values(action: argparse.Action) -> list[str]:
    small = ["0", "-1", "1", "nan", "", "x", "1" * 5000, "0.5", "1e400", "٣"]
    if action.dest in _LONG:
        return small
    if action.choices is not None:
        return ["", "x", "\x1b[31m", "None", "1"]
    if action.type in (None, Path):
        return [*_ODD_PATHS, *small]
    return [*ODD_NUMBERS, *small, "1,2", "0:0", "1:0", ":", "1:2:3:4", "1/0", "-5:", "all", "2e9"]


def _odd_key(case: Case, rng: random.Random) -> None:
    run = to_dict(load_config(str(case.folder / case.words[4])))
    keys = [*_dotted(run), "model", "train", "x.y", "", "=", "model.dim.x"]
    key = rng.choice(keys)
    odd = rng.choice([*ODD_NUMBERS, *_ODD_PATHS, "null", "[1]", "{a: 1}", "!!int ''", ".inf",
                      ".nan", "&a [*a]", "[" * 1000, "1" * 5000, "yes", "\x00"])  # fmt: skip
    if key in ("train.steps", "sampler.steps"):
        odd = rng.choice(["0", "-1", "x", ".nan", "1.5", "1e400"])
    case.words.append(f"{key}={odd}".replace("\0", ""))
    case.wrong("keys of a run", f"{key}={odd[:60]!r}")


def _dotted(tree: dict, before: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield f"{before}{key}"
        if isinstance(value, dict):
            yield from _dotted(value, f"{before}{key}.")


def _odd_file(case: Case, rng: random.Random) -> None:
    """Something else where a file or folder is expected, or nothing that one may read or write."""
    files = _files(case)
    places = [*case.inputs(), rng.choice(files), rng.choice(files).parent]
    place = rng.choice([path for path in places if path != case.folder])
    has_output = OUTPUT in " ".join(case.words).replace("=", " ").split()
    way = rng.choice([way for way in _ODD_FILES if has_output or "output" not in way])
    detail = _ODD_FILES[way](case, place) or str(place.relative_to(case.folder))
    case.wrong(f"files: {way}", detail)


def _linked_to(target: str) -> Callable[[Case, Path], None]:
    def link(case: Case, path: Path) -> None:
        _remove(path)
        path.symlink_to(target)

    return link


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _fifo(case: Case, path: Path) -> None:
    _remove(path)
    os.mkfifo(path)


def _other_kind(case: Case, path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("no folder")
    else:
        path.unlink()
        path.mkdir()


def _emptied(case: Case, path: Path) -> None:
    _remove(path)
    path.mkdir()


def _forbidden(case: Case, path: Path) -> None:
    case.conditions = replace(case.conditions, permissions=True)
    path.chmod(0)


def _forbidden_output(case: Case, path: Path) -> str:
    _forbidden(case, case.folder)
    case.folder.chmod(0o555)
    return "its parent may not be written"


def _output_is(what: str) -> Callable[[Case, Path], str]:
    def make(case: Case, path: Path) -> str:
        output = case.folder / OUTPUT
        if what == "a file":
            output.write_text("here before")
        elif what == "a full folder":
            output.mkdir()
            (output / "mine").write_text("here before")
        elif what == "a FIFO":
            os.mkfifo(output)
        elif what == "a link in a circle":
            output.symlink_to(OUTPUT)
        else:
            case.replace_word(OUTPUT, what)
        return f"output is {what[:20]}"

    return make


_ODD_FILES: dict[str, Callable[[Case, Path], str | None]] = {
    "link to /dev/zero": _linked_to("/dev/zero"),
    "link to /dev/full": _linked_to("/dev/full"),
    "link to /dev/null": _linked_to("/dev/null"),
    "link to itself": _linked_to("."),
    "link to nothing": _linked_to("/nowhere"),
    "FIFO": _fifo,
    "file for folder": _other_kind,
    "empty folder": _emptied,
    "no permission": _forbidden,
    "output may not be written": _forbidden_output,
    "output a file": _output_is("a file"),
    "output used": _output_is("a full folder"),
    "output a FIFO": _output_is("a FIFO"),
    "output a circle": _output_is("a link in a circle"),
    "output name too long": _output_is("x" * 300),
    "output path too long": _output_is("x/" * 3000),
    "output in a device": _output_is("/dev/null/x"),
}


def _hard_conditions(case: Case, rng: random.Random) -> None:
    kind, conditions = rng.choice(
        [
            ("full disk", Conditions(file_bytes=rng.choice([0, 100, 3000, 20_000]))),
            ("few open files", Conditions(open_files=rng.choice([4, 8, 12, 16, 24, 32]))),
            ("no standard output", Conditions(stdout=rng.choice(["closed", "full", "broken"]))),
            ("working folder removed", Conditions(without_folder=True)),
        ]
    )
    case.conditions = conditions
    asked = {
        name: value for name, value in asdict(conditions).items() if value not in (None, False)
    }
    case.wrong(kind, ", ".join(f"{name} {value}" for name, value in asked.items()))


def _lying_server(case: Case, rng: random.Random) -> None:
    assert case.setup.remote is not None
    lie, about = any_lie(rng), rng.choice(["index.json", ".tar"])
    server = LyingServer(case.folder / case.setup.remote, about, lie)
    case.cleanup.callback(server.close)
    case.replace_word(case.setup.remote, server.url)
    case.wrong("servers that lie", f"{about}: {lie}")
