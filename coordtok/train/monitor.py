"""What a run reports: metrics.jsonl always, a progress bar, pictures, curves, trackers when asked.

Only rank 0 reports; on the other ranks every method does nothing. metrics.jsonl is the record: one
JSON object a line, flushed at once. Nothing else here decides whether training goes on.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from coordtok import distributed
from coordtok.config.schema import RunConfig
from coordtok.errors import DataError, one_line
from coordtok.progress import ProgressBar
from coordtok.storage.files import append_whole
from coordtok.train.checkpoint_folder import tag_of
from coordtok.train.curves import write_curves
from coordtok.train.run_folder import RunFolder
from coordtok.train.tasks.task import Headline
from coordtok.train.trackers import Tracker, start_trackers
from coordtok.train.validation import Movie
from coordtok.video.mp4 import write_mp4
from coordtok.video.pictures import side_by_side, write_picture


class Monitor:
    def __init__(self, run: RunConfig, folder: RunFolder) -> None:
        self._run, self._folder = run, folder
        self._active = False
        self._unwritten = ""
        self._trackers: list[Tracker] = []
        self._draws_curves = run.train.curves

    def begin(self, first_step: int) -> None:
        """Report from here on: until then, and on other ranks than 0, nothing is written."""
        self._active = distributed.is_main()
        if not self._active:
            return
        self._trackers = start_trackers(self._run, self._folder, first_step)
        self._bar = ProgressBar(
            total=self._run.train.steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
        )

    def step(self, loss: float, clips_per_s: float) -> None:
        """Advance the progress bar by one step."""
        if self._active:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {clips_per_s:.1f} clips/s", refresh=False)
            self._bar.update()

    def log(self, step: int, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl; a full disk delays it, and does not end the run."""
        if not self._active:
            return
        self._unwritten += json.dumps({"step": step, **values}) + "\n"
        try:
            append_whole(self._folder.metrics, self._unwritten)
            self._unwritten = ""
        except OSError as error:
            self.warn(f"{self._folder.metrics} cannot be written yet: {error.strerror}")
        self._track(lambda tracker: tracker.log(step, values))

    def say(self, text: str) -> None:
        """A line for people, above the progress bar."""
        if self._active:
            self._bar.write(text, file=sys.stderr)

    def warn(self, text: str) -> None:
        """A line on standard error, from whichever rank has something to say."""
        ProgressBar.write(f"warning: {text}", file=sys.stderr)

    def picture(self, step: int, rows: list[np.ndarray], kind: str = "held_out") -> None:
        """samples/step_STEP_KIND.png: each row (F, H, W, 3) uint8 becomes one line of frames."""
        if not self._active or not rows:
            return
        path = self._folder.samples / f"{tag_of(step)}_{kind}.png"
        try:
            write_picture(path, rows)
        except DataError as error:
            self.warn(str(error))
            return
        self._track(lambda tracker: tracker.picture(step, f"samples/{kind}", path))

    def movie(self, step: int, movie: Movie | None, kind: str = "held_out") -> None:
        """samples/step_STEP_KIND.mp4: the videos side by side."""
        if not self._active or movie is None:
            return
        path = self._folder.samples / f"{tag_of(step)}_{kind}.mp4"
        try:
            write_mp4(path, side_by_side(movie.videos), movie.fps)
        except (DataError, OSError) as error:
            self.warn(str(error))
            return
        self._track(lambda tracker: tracker.movie(step, f"movies/{kind}", path))

    def curves(self, headline: Headline) -> None:
        """curves.png, from all of metrics.jsonl."""
        if not self._active or not self._draws_curves:
            return
        try:
            write_curves(self._folder.metrics, self._folder.curves, headline)
        except Exception as error:  # a picture must not decide whether training goes on
            self._draws_curves = False
            self.warn(f"no curves.png from now on: {one_line(error)}")

    def close(self) -> None:
        if self._active:
            self._bar.close()
            self._track(lambda tracker: tracker.close())

    def _track(self, action: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                action(tracker)
            except Exception as error:  # a tracker must not decide whether training goes on
                self._trackers.remove(tracker)
                self.warn(f"{tracker.name} failed and is off from now on: {one_line(error)}")
