"""Render Atari games with a random player, for docs/results.md:

    pip install ale-py av
    python docs/studies/render_atari.py OUT

OUT/train/GAME/ and OUT/held_out/GAME/ get one mp4 an episode: 160 x 210, 30 frames a second, H.264.
Episodes held out have seeds of their own; OUT/unseen/ has games that are not trained on.
"""

import random
import sys
from multiprocessing import Pool
from pathlib import Path

import av
from ale_py import ALEInterface, LoggerMode, roms

GAMES = (
    "alien", "amidar", "assault", "asterix", "bank_heist", "battle_zone", "boxing", "breakout",
    "chopper_command", "crazy_climber", "demon_attack", "freeway", "frostbite", "gopher", "hero",
    "jamesbond", "kangaroo", "krull", "kung_fu_master", "ms_pacman", "pong", "private_eye", "qbert",
    "road_runner", "seaquest", "up_n_down",
)  # fmt: skip
UNSEEN = ("beam_rider", "enduro", "ice_hockey", "name_this_game", "riverraid", "space_invaders")
EPISODES = {"train": range(4), "held_out": range(100, 101), "unseen": range(100, 101)}
FRAMES = {"train": 512, "held_out": 256, "unseen": 256}
SKIP = 2
"""Of the console's 60 frames a second, one in so many is kept."""
FIRST_FRAME = 60
"""Titles are gone before it."""


def render(job: tuple[str, str, int, Path]) -> Path:
    """One episode, started again whenever the game is over."""
    game, part, episode, path = job
    draw = random.Random(f"{game} {part} {episode}")
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setInt("random_seed", draw.randrange(2**31))
    ale.loadROM(roms.get_rom_path(game))
    actions = ale.getMinimalActionSet()
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 160, 210, "yuv420p"
        seen, held, action = -FIRST_FRAME, 0, actions[0]
        while seen < FRAMES[part]:
            if ale.game_over():
                ale.reset_game()
            if not held:
                action, held = draw.choice(actions), draw.randrange(2, 12)
            for _ in range(SKIP):
                ale.act(action)
            held -= 1
            if seen >= 0:
                picture = av.VideoFrame.from_ndarray(ale.getScreenRGB(), format="rgb24")
                container.mux(stream.encode(picture))
            seen += 1
        container.mux(stream.encode(None))
    return path


def main(out: str) -> None:
    jobs = [
        (game, part, episode, Path(out) / part / game / f"episode_{episode:03d}.mp4")
        for part, episodes in EPISODES.items()
        for game in (UNSEEN if part == "unseen" else GAMES)
        for episode in episodes
    ]
    with Pool() as pool:
        for path in pool.imap(render, jobs):
            print(path, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
