"""Five frames given, twelve predicted: python -m benchmarks.prediction_study.

On captioned shapes the demo's autoregressive and masked priors over FSQ, the first of them also
with the diffusion decoder, and the autoregressive one over LFQ and VQ; on moving digits the first
of these; all beside every built-in baseline. Writes
`results/prediction_study.md` and `.json`: each figure with the interval that holds 95 % of draws of
the clips. Goes on where it was stopped.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from rich.console import Console

from benchmarks.train_once import train_once
from evaluation import result

BOTTLENECKS: dict[str, dict[str, Any]] = {
    "FSQ": {"class_path": "FSQ", "init_args": {"levels": [5, 5, 5, 5]}},
    "LFQ": {"class_path": "LFQ", "init_args": {"bits": 9}},
    "VQ": {"class_path": "VQ", "init_args": {"codebook_size": 625}},
}
CODES = {
    "FSQ": {"codebook_size": 625, "levels": [5, 5, 5, 5]},
    "LFQ": {"codebook_size": 512, "levels": [2] * 9},
    "VQ": {"codebook_size": 625, "levels": None},
}
PRIORS = {"AR": "demo_prior", "MaskGIT": "demo_maskgit"}
PROTOCOLS = {"captioned shapes": "captioned-shapes", "moving digits": "moving-digits"}
SOURCES = {"captioned shapes": "Shapes", "moving digits": "Digits"}
# Bits are per token: comparable between priors on the tokens of one tokenizer.
FIGURES = ("psnr_frame", "ssim", "frechet_rand3d-seed0", "warping_error_block", "bits")
BITS = ("bits_per_token", "pseudo_bits_per_token")


class Row(NamedTuple):
    """One model of the table."""

    data: str
    bottleneck: str
    prior: str
    decoder: str = "CNN"

    @property
    def name(self) -> str:
        """Name of its folder."""
        return "-".join(self).replace(" ", "-")

    @property
    def system(self) -> str:
        """Name of its line."""
        parts = [self.bottleneck, self.prior]
        return ", ".join(parts if self.decoder == "CNN" else [*parts, self.decoder])


ROWS = (
    Row("captioned shapes", "FSQ", "AR"),
    Row("captioned shapes", "FSQ", "AR", "diffusion"),
    Row("captioned shapes", "FSQ", "MaskGIT"),
    Row("captioned shapes", "LFQ", "AR"),
    Row("captioned shapes", "VQ", "AR"),
    Row("moving digits", "FSQ", "AR"),
)


def tokenizer_config(data: str, bottleneck: str, steps: int) -> dict[str, Any]:
    """Return the demo's tokenizer on some data with some bottleneck."""
    config = _recipe("demo_tokenizer", data, steps)
    config["model"]["init_args"]["tokenizer"]["quantizer"] = BOTTLENECKS[bottleneck]
    return config


def prior_config(row: Row, tokenizer: Path, steps: int) -> dict[str, Any]:
    """Return one of the demo's priors on the tokens of a tokenizer."""
    config = _recipe(PRIORS[row.prior], row.data, steps)
    model = config["model"]["init_args"]
    model["tokenizer_folder"] = str(tokenizer)
    prior = model["prior"]
    prior.get("init_args", prior).update(CODES[row.bottleneck])
    return config


def decoder_config(row: Row, model: Path, steps: int) -> dict[str, Any]:
    """Return the demo's diffusion decoder for the tokens of a model."""
    config = _recipe("demo_decoder", row.data, steps)
    module = config["model"]["init_args"]
    module["tokenizer_folder"] = str(model)
    module["decoder"]["codebook_size"] = CODES[row.bottleneck]["codebook_size"]
    return config


def _recipe(name: str, data: str, steps: int) -> dict[str, Any]:
    config = yaml.safe_load(Path(f"configs/{name}.yaml").read_text())
    config["model"]["init_args"]["max_steps"] = steps
    for split in ("train", "val"):
        config["data"][split]["class_path"] = SOURCES[data]
    return config


def evaluate_once(row: Row, model: Path, out: Path, clips: int) -> dict[str, Any]:
    """Evaluate a model by the public command, unless that is done."""
    if not (out / "result.json").is_file():
        command = [sys.executable, "evaluate.py", PROTOCOLS[row.data], str(model)]
        command += ["--out", str(out), "--clips", str(clips), "--batch-size", "32"]
        command += ["--decoder", "diffusion"] if row.decoder == "diffusion" else []
        subprocess.run(command, check=True)
    return result.read(out)


class Line(NamedTuple):
    """One line of the table: a model or a baseline."""

    data: str
    system: str
    figures: dict[str, dict[str, Any]]


def lines(found: dict[Row, dict[str, Any]]) -> list[Line]:
    """Return the models of each data set, then its baselines, which all of them share."""
    table = []
    for data in PROTOCOLS:
        own = {row: answer for row, answer in found.items() if row.data == data}
        for row, answer in own.items():
            figures = answer["systems"]["model"]["figures"]
            table.append(Line(data, row.system, _chosen(figures)))
        for answer in [*own.values()][:1]:
            baselines = {k: s for k, s in answer["systems"].items() if k not in ("model", "real")}
            table += [Line(data, name, _chosen(s["figures"])) for name, s in baselines.items()]
    return table


def _chosen(figures: dict[str, Any]) -> dict[str, Any]:
    """Name bits by one name; a masked prior's are pseudo-bits and say so."""
    chosen = {name: figures[name] for name in FIGURES if name in figures}
    for name in BITS:
        if name in figures:
            chosen["bits"] = figures[name] | {"pseudo": name != "bits_per_token"}
    return chosen


def beaten(table: list[Line]) -> dict[str, dict[str, bool]]:
    """Say for each data set and figure whether FSQ with AR beats every baseline.

    It does where its interval lies wholly on the better side of all intervals of baselines.
    """
    told: dict[str, dict[str, bool]] = {}
    for data in dict.fromkeys(line.data for line in table):
        own = next(line for line in table if line.data == data and line.system == "FSQ, AR")
        others = [line for line in table if line.data == data and ", " not in line.system]
        told[data] = {
            name: all(_better(own.figures[name], line.figures[name]) for line in others)
            for name in own.figures
            if all(name in line.figures for line in others)
        }
    return told


def _better(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if one["higher_is_better"]:
        return one["low"] > other["high"]
    return one["high"] < other["low"]


def markdown(table: list[Line], facts: str) -> str:
    """Return the page of results."""
    head = ["data", "tokens and prior, or baseline", *FIGURES]
    page = [facts, "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for line in table:
        cells = [_cell(line.figures.get(name)) for name in FIGURES]
        page.append(f"| {' | '.join([line.data, line.system, *cells])} |")
    for data, told in beaten(table).items():
        won = [name for name, yes in told.items() if yes]
        lost = [name for name, yes in told.items() if not yes]
        page += ["", f"On {data} FSQ with AR beats every baseline, outside all intervals, in: "]
        page[-1] += f"{', '.join(won) or 'nothing'}; not in: {', '.join(lost) or 'nothing'}."
    return "\n".join(page) + "\n"


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return ""
    mark = " (pseudo)" if figure.get("pseudo") else ""
    return f"{figure['value']:.4g} ({figure['low']:.4g} to {figure['high']:.4g}){mark}"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("runs/prediction-study"))
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the page goes")
    parser.add_argument("--tokenizer-steps", type=int, default=300)
    parser.add_argument("--prior-steps", type=int, default=500)
    parser.add_argument("--decoder-steps", type=int, default=600, help="of the diffusion decoder")
    parser.add_argument("--clips", type=int, default=256)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    found, seconds = {}, dict[Path, float]()
    for row in ROWS:
        first = args.out / f"{row.data}-{row.bottleneck}-tokenizer".replace(" ", "-")
        config = tokenizer_config(row.data, row.bottleneck, args.tokenizer_steps)
        seconds[first] = train_once(config, first)
        prior = args.out / row._replace(decoder="CNN").name
        config = prior_config(row, first / "model", args.prior_steps)
        seconds[prior] = train_once(config, prior)
        root = args.out / row.name
        if row.decoder == "diffusion":
            config = decoder_config(row, prior / "model", args.decoder_steps)
            seconds[root] = train_once(config, root)
        found[row] = evaluate_once(row, root / "model", root / "evaluation", args.clips)
    write(args.results, found, sum(seconds.values()))


def write(folder: Path, found: dict[Row, dict[str, Any]], seconds: float) -> None:
    """Write the page and what it was made of."""
    table = lines(found)
    commits = sorted({answer["commit"] for answer in found.values()})
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    facts = (
        "5 frames given, 12 predicted, 64 x 64 pixels; figures of the predicted frames with 95 % "
        f"intervals over {next(iter(found.values()))['counts']['units']} held-out clips; commit "
        f"{', '.join(commits)}; {seconds / 60:.0f} minutes of training in all on {device} with "
        f"{os.cpu_count()} cores."
    )
    folder.mkdir(parents=True, exist_ok=True)
    page = markdown(table, facts)
    (folder / "prediction_study.md").write_text(page)
    record = {"facts": facts, "beaten": beaten(table), "table": [x._asdict() for x in table]}
    (folder / "prediction_study.json").write_text(json.dumps(record, indent=2) + "\n")
    Console().print(page)


if __name__ == "__main__":
    main()
