"""One command that says whether a GPU trains this repository right, and how fast:

    python -m tests.gpu.check --wheels WHEELS --output OUT

Every ZeRO stage plain, compiled and recomputed, at the width of tokenizer_l and dit_l and two
layers, against a CPU in fp32; averages, sampling and decoding; runs that are killed and go on; then
whole models for rates, memory, waits of the host and a trace. Parts run in processes of their own
with a time each; what fails or takes longer is named and the rest still runs. OUT gets results.json
(rewritten after every part) and log.txt. Nothing comes from a network: what is missing is
taken from wheels. Without a GPU the verdict is "not run"; --rehearse does all of it on a CPU, tiny.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.gpu.record import read_lines

ROOT = Path(__file__).parents[2]
WHOLE = 480
"""Seconds for everything, by default."""


@dataclass(frozen=True)
class Part:
    """A process of tests.gpu.parts."""

    name: str
    seconds: float
    without_gpu: bool = False


FIRST = (Part("prepare", 90),)
TOGETHER = (
    Part("losses:tokenizer_l", 170),
    Part("losses:dit_l", 170),
    Part("reference", 120, without_gpu=True),
    Part("restart", 170),
    Part("sampling", 90),
    Part("marked", 90),
)
"""Beside each other: nothing in them is timed."""
ALONE = (
    Part("kernels", 30),
    Part("full:tokenizer_l:compiled:zero1", 130),
    Part("full:dit_l:compiled:zero1", 70),
    Part("full:tokenizer_l:eager:zero1", 60),
    Part("full:tokenizer_l:eager:zero3", 70),
    Part("full:tokenizer_l:both:zero1", 60),
    Part("full:dit_l:eager:zero1", 50),
)
"""One after another, the most important first."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, help="a folder of wheels for what is missing")
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", "gpu_check")))
    parser.add_argument("--only", nargs="+", default=[], metavar="PART")
    parser.add_argument("--seconds", type=float, default=WHOLE)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--compiler", default="inductor")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        check = Check(args, Path(folder))
        check.run()
    return 1 if check.verdict.startswith("failed") else 0


class Check:
    """All parts, in their order, and what they found."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self._args, self._work = args, folder / "work"
        self._work.mkdir()
        self._site = folder / "site"
        self._ends = time.monotonic() + args.seconds
        self._began = time.monotonic()
        self._machine: dict[str, Any] = {}
        self._parts: dict[str, dict[str, Any]] = {}
        self._log: IO[str] = (args.output / "log.txt").open("w")
        self.verdict = "not run"

    def run(self) -> None:
        if self._args.wheels is not None:
            self._install()
        self._machine = self._facts()
        if self._machine.get("gpu") or self._args.rehearse:
            self._run(list(FIRST))
            self._run(self._wanted(TOGETHER))
            for part in self._wanted(ALONE):
                self._run([part])
        self._write()
        self._say()

    def _wanted(self, parts: Sequence[Part]) -> list[Part]:
        only = self._args.only
        return [part for part in parts if not only or part.name in only]

    def _install(self) -> None:
        """Into a folder of its own; what that does not bring is missed by `_facts`."""
        wheels = sorted(map(str, self._args.wheels.glob("*.whl")))
        command = [
            sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile",
            "--no-cache-dir", "--target", str(self._site), *wheels,
        ]  # fmt: skip
        subprocess.run(command, check=False, stdout=self._log, stderr=self._log)

    def _facts(self) -> dict[str, Any]:
        """Of the machine, asked in a process that sees the wheels, and needs what parts need."""
        code = (
            "import json, torch, deepspeed, einops, safetensors, tqdm, yaml, av, webdataset\n"
            "from coordtok.benchmarks.table import machine_facts\n"
            "found = machine_facts()\n"
            "found['gpu'] = torch.cuda.is_available() and torch.cuda.get_device_name()\n"
            "found['cuda'], found['deepspeed'] = torch.version.cuda, deepspeed.__version__\n"
            "found['cudnn'] = torch.backends.cudnn.version()\n"
            "print(json.dumps(found))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=self._environment(), stdout=subprocess.PIPE,
            stderr=self._log, cwd=ROOT, text=True,
        )  # fmt: skip
        if done.returncode:
            self.verdict = "failed: a package is missing or unusable, see log.txt"
            return {"gpu": False}
        return json.loads(done.stdout.splitlines()[-1])

    def _environment(self, without_gpu: bool = False) -> dict[str, str]:
        """No compiler for DeepSpeed, no network, caches that all parts share."""
        paths = [str(self._site), str(ROOT), os.environ.get("PYTHONPATH", "")]
        found = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONUNBUFFERED": "1",
            "DS_BUILD_OPS": "0",
            "DS_SKIP_CUDA_CHECK": "1",
            "HF_HUB_OFFLINE": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "NCCL_SOCKET_IFNAME": "lo",
            "TORCHINDUCTOR_CACHE_DIR": str(self._work / "inductor"),
            "TRITON_CACHE_DIR": str(self._work / "triton"),
        }
        if without_gpu:
            found |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "6"}
        if self._args.rehearse:
            found["OMP_NUM_THREADS"] = "1"
        return found

    def _run(self, parts: list[Part]) -> None:
        """Beside each other, each for its time at most and all while there is any."""
        started = []
        for part in parts:
            limit = min(part.seconds * (20 if self._args.rehearse else 1), self._left())
            if limit < 10:
                self._parts[part.name] = {"ended": "not begun: no time left"}
                continue
            log = (self._work / f"{part.name.replace(':', '_')}.log").open("w+")
            command = [sys.executable, "-m", "tests.gpu.parts", part.name, str(self._work)]
            command += ["--compiler", self._args.compiler]
            command += ["--rehearse"] if self._args.rehearse else []
            process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment(part.without_gpu), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            started.append((part, process, time.monotonic(), limit, log))
        while started:
            for each in list(started):
                part, process, began, limit, log = each
                seconds = time.monotonic() - began
                if process.poll() is None and seconds < limit:
                    continue
                started.remove(each)
                ended = f"exit {process.returncode}"
                if process.poll() is None:
                    os.killpg(process.pid, 9)
                    process.wait()
                    ended = "overran its time"
                log.seek(0)
                self._log.write(f"\n==== {part.name}: {ended}\n{log.read()[-200_000:]}")
                self._log.flush()
                log.close()
                self._parts[part.name] = {"ended": ended, "seconds": round(seconds, 1)}
                self._write()
                print(f"{part.name}: {ended}, {seconds:.0f} s", flush=True)
            time.sleep(0.1)

    def _left(self) -> float:
        return self._ends - time.monotonic()

    def _write(self) -> None:
        checks = [line for lines in self._lines().values() for line in lines if "check" in line]
        bad = [line["check"] for line in checks if not line["ok"]]
        cut = [name for name, part in self._parts.items() if part["ended"] != "exit 0"]
        if checks or cut:
            self.verdict = "failed" if bad or cut else "passed"
        report = {
            "verdict": self.verdict,
            "rehearsal": self._args.rehearse,
            "failed": bad,
            "cut": cut,
            "seconds": round(time.monotonic() - self._began, 1),
            "machine": self._machine,
            "parts": {
                name: {**part, "found": self._lines().get(name, [])}
                for name, part in self._parts.items()
            },
        }
        text = json.dumps(report, indent=1)
        (self._args.output / "results.json").write_text(text + "\n", encoding="utf-8")

    def _lines(self) -> dict[str, list[dict[str, Any]]]:
        return {
            name: read_lines(self._work / f"{name.replace(':', '_')}.jsonl") for name in self._parts
        }

    def _say(self) -> None:
        for name, lines in self._lines().items():
            for line in lines:
                if "check" in line and not line["ok"]:
                    print(f"FAILED {line['check']}: {json.dumps(line)[:300]}")
                if line.get("figures") == "full":
                    print(
                        f"{name}: {line['clips_per_s']:.1f} clips/s, "
                        f"{line['flops_per_s'] / 1e12:.3g} TFLOP/s, MFU {line.get('mfu')}, "
                        f"{line['peak_bytes'] / 2**30:.1f} GiB, {line['attention']}"
                    )
        print(f"verdict: {self.verdict} ({time.monotonic() - self._began:.0f} s)")


if __name__ == "__main__":
    sys.exit(main())
