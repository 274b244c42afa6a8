"""Render gameplay with a random player, the recipe's second data set (docs/recipe.md):

    pip install vizdoom av
    python docs/studies/render_gameplay.py OUT

OUT/train/SCENE/ and OUT/held_out/SCENE/ get one mp4 an episode: 320 x 240, 35 frames a second,
H.264. Episodes held out have seeds of their own.
"""

import random
import sys
from multiprocessing import Process
from pathlib import Path

import av
import vizdoom

SCENES = (
    "deadly_corridor", "deathmatch", "defend_the_center", "defend_the_line", "freedoom1",
    "health_gathering", "health_gathering_supreme", "my_way_home", "take_cover",
)  # fmt: skip
EPISODES = {"train": range(8), "held_out": range(100, 103)}
FRAMES = 160
FIRST_FRAME = 20
"""Weapons are raised before it."""


def render(scene: str, part: str, episode: int, out: Path) -> None:
    """One episode, started again with the next seed whenever the player dies."""
    draw = random.Random(f"{scene} {part} {episode}")
    game = vizdoom.DoomGame()
    game.load_config(str(Path(vizdoom.scenarios_path) / f"{scene}.cfg"))
    game.set_window_visible(False)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_seed(draw.randrange(2**31))
    game.init()
    out.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=35, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        seen = 0
        while seen < FIRST_FRAME + FRAMES:
            if game.is_episode_finished():
                game.new_episode()
            action = [draw.random() < 0.4 for _ in range(game.get_available_buttons_size())]
            for _ in range(draw.randrange(4, 13)):
                if game.is_episode_finished() or seen == FIRST_FRAME + FRAMES:
                    break
                frame = game.get_state().screen_buffer.copy()
                if seen >= FIRST_FRAME:
                    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                    container.mux(stream.encode(picture))
                game.make_action([float(pressed) for pressed in action])
                seen += 1
        container.mux(stream.encode(None))
    game.close()


def main(out: str) -> None:
    for part, episodes in EPISODES.items():
        for scene in SCENES:
            for episode in episodes:
                path = Path(out) / part / scene / f"episode_{episode:03d}.mp4"
                process = Process(target=render, args=(scene, part, episode, path))
                process.start()  # one game per process
                process.join()
                if process.exitcode:
                    sys.exit(f"{scene}, episode {episode}: the game ended with {process.exitcode}")
                print(path, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
