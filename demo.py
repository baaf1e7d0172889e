"""The newcomer's command: train a tokenizer and a prior, sample, measure, report (make demo).

Everything runs through the public commands and names: train.py, then VideoPipeline. A run that was
stopped goes on where its last checkpoint stands.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

import train
from data.container import VideoError
from data.video import write_video
from evaluation.contact_sheet import animated_grid, contact_sheet
from evaluation.measure import Measured, measure_shapes, measure_videos
from evaluation.report import write_report
from layers.storage import write_json
from pipeline import VideoPipeline

LIMIT_MINUTES = 19  # of the whole run, where the user sets no MINUTES
OTHER_SECONDS = 100  # probes, starting up, sampling, judging
PROBE_STEPS = (4, 24)
SHARES = {"tokenizer": 0.35, "prior": 0.65}
TARGETS = {
    "tokenizer.psnr": 27,
    "tokenizer.psnr_object": 18,
    "tokenizer.code_usage": 0.1,
    "prompts.color": 0.95,
    "prompts.shape": 0.8,
    "prompts.direction": 0.85,
    "prompts.all": 0.7,
    "prompts.held_out_all": 0.4,
    "prompts.shuffled_all": 0.05,
    "prompts.ceiling_all": 0.99,
    "prompts.ceiling_reconstructed": 0.95,
    "prompts.with_context": 0.7,
    "prompts.start_spread": 0.5,
    "continuation.better_than_copy_last": 3,
    "continuation.better_than_erase": 1,
    "continuation.position_error": 5,
}
VIDEO_TARGETS = {"tokenizer.psnr": 22, "tokenizer.code_usage": 0.1}
LOWER_IS_BETTER = ["prompts.shuffled_all", "continuation.position_error"]
console = Console()


class Demo:
    """One run of the whole job in a folder.

    Args:
        out: Folder of the run.
        minutes: How long to train, sample and report; None for the steps of the YAML files, fewer
            where the machine is slow.
        videos: Folder of videos to learn instead of captioned shapes.
    """

    def __init__(self, out: Path, minutes: float | None, videos: Path | None) -> None:
        self.out, self.minutes, self.videos = out, minutes, videos
        self.plan_path = out / "plan.json"
        asked = {"minutes": minutes, "videos": str(videos) if videos else None}
        self.plan = json.loads(self.plan_path.read_text()) if self.plan_path.is_file() else asked
        if {name: self.plan.get(name) for name in asked} != asked:
            kept = out.with_name(f"{out.name}-{time.strftime('%Y%m%d-%H%M%S')}")
            console.print(f"{out} holds a run with another plan; it is kept as {kept}")
            out.rename(kept)
            self.plan = asked
        self.store({})

    def store(self, facts: dict[str, Any]) -> None:
        """Keep what has been decided or measured, so that a second call goes on from it."""
        self.plan.update(facts)
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(self.plan_path, self.plan)

    def config(self, part: str) -> Path:
        """Return the YAML of the tokenizer or the prior."""
        kind = "videos" if self.videos else "demo"
        return Path(__file__).parent / "configs" / f"{kind}_{part}.yaml"

    def arguments(self, part: str) -> list[str]:
        """Return the command line of train.py for the tokenizer or the prior."""
        tokenizer = self.out / "tokenizer" / "model"
        arguments = [
            f"--config={self.config(part)}",
            f"--trainer.default_root_dir={self.out / part}",
            f"--export={tokenizer if part == 'tokenizer' else self.out / 'model'}",
        ]
        if part == "prior":
            arguments.append(f"--model.init_args.tokenizer_folder={tokenizer}")
        if self.videos:
            arguments += [
                f"--data.{split}.init_args.path={self.videos}" for split in ("train", "val")
            ]
        return arguments

    def decide_steps(self, part: str) -> int:
        """Turn minutes into steps, once: from what a few steps take on this machine."""
        name = f"{part}_steps"
        if name not in self.plan:
            seconds = probe(self.arguments(part))
            budget = (self.minutes or LIMIT_MINUTES) * 60 - OTHER_SECONDS
            steps = max(PROBE_STEPS[1], int(SHARES[part] * budget / seconds))
            if self.minutes is None:
                config = yaml.safe_load(self.config(part).read_text())
                steps = min(steps, config["model"]["init_args"]["max_steps"])
            duration = f"{steps * seconds / 60:.1f} minutes"
            console.print(f"{part}: {steps} steps of {seconds:.2f} s, {duration}", style="bold")
            self.store({name: steps})
        return int(self.plan[name])

    def train(self, part: str) -> None:
        """Run train.py, from the last checkpoint if there is one."""
        if self.plan.get(f"{part}_done"):
            console.print(f"{part}: trained already, in {self.out / part}")
            return
        earlier, started = self.plan.get(f"{part}_seconds", 0), time.monotonic()
        steps = self.decide_steps(part)
        command = [sys.executable, str(Path(train.__file__)), "fit", *self.arguments(part)]
        command.append(f"--model.init_args.max_steps={steps}")
        last = self.out / part / "checkpoints" / "last.ckpt"
        if self.plan.get(f"{part}_started") and last.is_file():  # else it is of another training
            command.append("--ckpt_path=last")
        self.store({f"{part}_started": True})
        console.rule(f"training the {part}")
        process = subprocess.Popen(command)
        try:
            process.wait()
        except KeyboardInterrupt:
            process.wait()  # it has heard the interrupt too and says what it leaves
        self.store(
            {
                f"{part}_seconds": earlier + time.monotonic() - started,
                f"{part}_done": process.returncode == 0,
            }
        )
        if process.returncode:
            sys.exit(f"the training of the {part} stopped; the same command goes on from there")


def probe(arguments: list[str]) -> float:
    """Return the seconds that a step takes here; what every training spends once is left out.

    The first training of a process also reads files and builds kernels, so that is not counted.
    """
    _, few, many = (_train_briefly(arguments, steps) for steps in (PROBE_STEPS[0], *PROBE_STEPS))
    return (many - few) / (PROBE_STEPS[1] - PROBE_STEPS[0])


def _train_briefly(arguments: list[str], steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        short = [
            *arguments,
            f"--trainer.default_root_dir={folder}",
            f"--model.init_args.max_steps={steps}",
            "--trainer.limit_val_batches=0",
            "--trainer.logger=false",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
        ]
        cli = train.main(short, run=False)
        started = time.monotonic()
        cli.trainer.fit(cli.model, cli.datamodule)
    return time.monotonic() - started


def write_pictures(out: Path, measured: Measured, fps: float) -> list[tuple[str, Path]]:
    """Write mp4s, the contact sheet and the animation; return what the page shows."""
    folder = out / "videos"
    folder.mkdir(exist_ok=True)
    for i, row in enumerate(measured.generated):
        write_video(folder / f"prompt_{i:02d}.mp4", row.clips[""], fps)
    for i, row in enumerate(measured.compared):
        for tag, clip in row.clips.items():
            write_video(folder / f"continuation_{i:02d}_{tag}.mp4", clip, fps)
    contact_sheet([*measured.generated, *measured.compared], out / "samples.png", every=2)
    moving = measured.generated or measured.compared
    clips = [[*row.clips.values()][-1] for row in moving]
    animated_grid(clips, [row.label for row in moving], out / "samples.gif", fps)
    return [
        ("Generated", out / "samples.gif"),
        (
            "A row a clip; truth above what its tokens keep and how the model goes on",
            out / "samples.png",
        ),
    ]


def add_figures(measured: Measured, plan: dict[str, Any]) -> dict[str, float]:
    """Return the figures with times and with the margins that continuations are held to."""
    figures = dict(measured.figures)
    for name in ("copy_last", "erase"):
        if f"continuation.{name}_psnr" in figures:
            other = figures[f"continuation.{name}_psnr"]
            figures[f"continuation.better_than_{name}"] = figures["continuation.psnr"] - other
    seconds = {name: plan[f"{name}_seconds"] for name in ("tokenizer", "prior", "sample")}
    seconds["total"] = sum(seconds.values())
    return figures | {f"seconds.{name}": value for name, value in seconds.items()}


def report(demo: Demo, measured: Measured, pictures: list[tuple[str, Path]]) -> None:
    """Write report.json and report.html; print the figures beside their targets."""
    figures = add_figures(measured, demo.plan)
    targets = VIDEO_TARGETS if demo.videos else TARGETS
    known = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    (demo.out / "report.json").write_text(json.dumps(known, indent=2) + "\n")
    notes = [
        "All figures are of held-out clips: 17 frames of 64 x 64 pixels at 8 frames a second, "
        "sampled at temperature 1 without guidance.",
        "PSNR and SSIM are means over frames, then over clips, on [0, 1].",
        f"Trained for {demo.plan['tokenizer_steps']} and {demo.plan['prior_steps']} steps.",
    ]
    title = "Reelm: videos" if demo.videos else "Reelm: captioned shapes"
    lower = [name for name in LOWER_IS_BETTER if name in targets]
    write_report(demo.out / "report.html", title, figures, targets, pictures, notes, lower)
    table = Table("figure", "value", "target")
    for name, value in figures.items():
        goal = targets.get(name)
        sign = "<=" if name in lower else ">="
        table.add_row(name, f"{value:.4g}", f"{sign} {goal:g}" if goal is not None else "")
    console.print(table)
    console.print(f"{demo.out / 'report.html'} shows all of it; the model is {demo.out / 'model'}")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Train, sample and report.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run")
    parser.add_argument("--minutes", type=float, help="how long the whole run may take")
    parser.add_argument("--videos", type=Path, help="folder of videos to learn")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    if args.minutes is not None and args.minutes * 60 <= OTHER_SECONDS:
        sys.exit(f"--minutes is {args.minutes:g}, but must be above {OTHER_SECONDS / 60:.1f}")
    if args.videos is not None and not args.videos.is_dir():
        sys.exit(f"--videos is {args.videos}, which is no folder; give one with videos in it")
    demo = Demo(args.out, args.minutes, args.videos)
    console.print(
        f"Trains a tokenizer, then a prior, samples and measures, in {args.out}: "
        f"about {args.minutes or 18:g} minutes on two cores. MINUTES=60 trains longer."
    )
    demo.train("tokenizer")
    demo.train("prior")
    console.rule("sampling and measuring")
    sampling = time.monotonic()
    pipe = VideoPipeline.from_pretrained(args.out / "model")
    measured = measure_videos(pipe, args.videos) if args.videos else measure_shapes(pipe)
    pictures = write_pictures(args.out, measured, pipe.fps)
    demo.store({"sample_seconds": time.monotonic() - sampling})
    report(demo, measured, pictures)


if __name__ == "__main__":
    try:
        main()
    except VideoError as error:
        sys.exit(f"demo.py: {error}")
