"""Episodes of game-like environments, with actions and rewards: python -m data.record crafter OUT.

ENV is minigrid, crafter, or the id of any environment that gymnasium knows and that renders as
`rgb_array`, such as CarRacing-v3. Actions are drawn at random and held for a while. Episode i is a
function of the seed and i, so that a run that was stopped goes on; train.py reads the shards by
`class_path: ShardFolder`, with the action that leads to each frame in `Batch.actions`.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from data.episodes import Episode, write_episodes
from data.resizing import resize_and_crop

try:
    import gymnasium
except ImportError as error:
    raise ImportError("recording needs gymnasium; pip install 'reelm[env]'") from error


@dataclass(frozen=True)
class Recording:
    """What is recorded.

    Args:
        env: Name or gymnasium id.
        frames: Longest episode, in frames.
        size: Side of the square frames.
        hold: Mean steps for which an action is kept.
        seed: Episode i draws from `seed` and i.
    """

    env: str
    frames: int = 64
    size: int = 64
    hold: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("frames", 2), ("size", 2), ("hold", 1), ("seed", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name} is {value}, but must be at least {least}; raise it")


def episodes(recording: Recording, first: int, last: int) -> Iterator[Episode]:
    """Play episodes `first` to `last` - 1."""
    environment = make(recording.env)
    for index in range(first, last):
        yield play(environment, recording, index)
    environment.close()


def play(environment: Any, recording: Recording, index: int) -> Episode:
    """Play one episode, to its end or to the longest that is wanted."""
    rng = np.random.default_rng((recording.seed, index))
    environment.reset(seed=int(rng.integers(2**31)))
    environment.action_space.seed(int(rng.integers(2**31)))
    pictures, actions, rewards = [_picture(environment)], [], []
    action, done = environment.action_space.sample(), False
    while len(pictures) < recording.frames and not done:
        if rng.random() < 1 / recording.hold:
            action = environment.action_space.sample()
        _, reward, terminated, truncated, _ = environment.step(action)
        pictures.append(_picture(environment))
        actions.append(as_row(action))
        rewards.append(float(reward))
        done = terminated or truncated
    frames = resize_and_crop(torch.from_numpy(np.stack(pictures)), recording.size).numpy()
    told = np.stack([np.zeros_like(actions[0]), *actions])
    return Episode(
        f"{recording.env}-{index}",
        frames,
        told,
        rewards=np.array([0.0, *rewards], dtype=np.float32),
    )


def as_row(action: Any) -> Float32[np.ndarray, " A"]:
    """Write an action as numbers: a choice among n as its index, anything else flat."""
    return np.asarray(action, dtype=np.float32).reshape(-1)


def _picture(environment: Any) -> np.ndarray:
    picture = np.asarray(environment.render())
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
        raise ValueError(
            f"the environment renders {picture.dtype} {picture.shape}, not pictures; choose one "
            "that renders as rgb_array"
        )
    return picture


def make(name: str) -> Any:
    """Make an environment that renders pictures.

    Raises:
        ValueError: There is none of that name, or its package is not installed.
    """
    try:
        if name in KNOWN:
            return KNOWN[name]()
        return gymnasium.make(name, render_mode="rgb_array")
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(
            f"{name!r} cannot be made ({error}); use {', '.join(KNOWN)} or an id that gymnasium "
            "knows, and install its package: pip install 'reelm[env]'"
        ) from error


def _minigrid() -> Any:
    import_module("minigrid")  # it registers its environments
    return gymnasium.make("MiniGrid-FourRooms-v0", render_mode="rgb_array", tile_size=8)


class Crafter:
    """Crafter (Hafner 2021, arXiv 2109.06780), which is older than gymnasium, in its manner."""

    def __init__(self) -> None:
        self.make = import_module("crafter").Env
        self.environment = self.make()
        self.action_space = gymnasium.spaces.Discrete(self.environment.action_space.n)

    def reset(self, *, seed: int) -> None:
        """Begin a world that is a function of the seed."""
        self.environment = self.make(seed=seed)
        self.environment.reset()

    def step(self, action: np.integer) -> tuple[None, float, bool, bool, dict[str, Any]]:
        """Act once."""
        _, reward, done, info = self.environment.step(int(action))
        return None, float(reward), bool(done), False, info

    def render(self) -> np.ndarray:
        """Return what the player sees."""
        return self.environment.render()

    def close(self) -> None:
        """Nothing is held open."""


KNOWN: dict[str, Callable[[], Any]] = {"minigrid": _minigrid, "crafter": Crafter}


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="data.record", description=__doc__, formatter_class=raw)
    parser.add_argument("env", help=f"{', '.join(KNOWN)}, or an id that gymnasium knows")
    parser.add_argument("out", type=Path, help="folder of shards to write; run again to go on")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--frames", type=int, default=64, help="of the longest episode")
    parser.add_argument("--size", type=int, default=64, help="side of the square frames")
    parser.add_argument("--hold", type=float, default=2.0, help="mean steps an action is kept")
    parser.add_argument("--fps", type=float, default=8.0, help="at which the clips are shown")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    recording = Recording(args.env, args.frames, args.size, args.hold, args.seed)
    played = lambda first, last: episodes(recording, first, last)
    kind = " ".join(f"{name}={value}" for name, value in asdict(recording).items())
    manifest = write_episodes(
        args.out, played, args.episodes, fps=args.fps, kind=kind, shard_episodes=32
    )
    print(f"{args.episodes} episodes in {len(manifest.records)} shards")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"data.record: {error}")
