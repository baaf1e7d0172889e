"""What sample.py can be told, and which task reads what."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import get_args

from diffusion.sampler import Solver
from layers.processes import device, local_device
from lm.request import NEEDS

EVERYWHERE = "model", "task", "device", "out"
UNSAMPLED = "tile", "overlap", "side_by_side", "strength"
READ = {
    "caption": "context frames seed temperature",
    "edit": "context prompt num frames seed steps guidance_scale strength control side_by_side "
    "decoder decoder_steps decoder_guidance decoder_solver",
    "reconstruct": "context tile overlap side_by_side",
    "encode": "context tile overlap",
    "decode": "context tile overlap",
}
"""Options of the tasks that no prior samples for; the others read all but UNSAMPLED."""


def parser(description: str | None = None) -> ArgumentParser:
    """Return the command line."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder or hub id")
    parser.add_argument("--task", choices=[*NEEDS, *READ], default="generate")
    parser.add_argument("--prompt", action="append", help="what to show; may be given repeatedly")
    parser.add_argument("--context", type=Path, help="file to continue, or input of a task")
    parser.add_argument("--context-frames", type=int, default=5, help="how many of its last frames")
    parser.add_argument("--guide", type=Path, help="video to fill, follow, enlarge, pass through")
    parser.add_argument("--control", type=Path, help="video that a decoder follows")
    hole = parser.add_mutually_exclusive_group()
    hole.add_argument("--mask", type=Path, help="picture or video, bright where to make anew")
    hole.add_argument(
        "--box", type=int, nargs=4, metavar=("TOP", "LEFT", "BOTTOM", "RIGHT"), help="as a mask"
    )
    parser.add_argument("--class", action="append", help="name or number")
    parser.add_argument("--actions", type=Path, help=".npy of T x A; row k leads to frame k")
    parser.add_argument("--story", help='"prompt A:17; prompt B:32"')
    parser.add_argument("--key-frames", help="model folder that makes sparse frames first")
    parser.add_argument("--frames", type=int, help="length of the videos, 1 + s k; 17 by default")
    parser.add_argument("--num", type=int, default=1, help="samples of each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="1 is off")
    parser.add_argument("--temperature", type=float, help="1 by default, 0 is greedy")
    parser.add_argument("--top-k", type=int, help="keep the k likeliest tokens")
    parser.add_argument("--top-p", type=float, help="keep the smallest set this likely")
    parser.add_argument("--side-by-side", action="store_true", help="with its input at the left")
    parser.add_argument("--tile", type=int, help="largest side of a tile, for large frames")
    parser.add_argument("--overlap", type=int, help="of tiles, where they can only approximate")
    parser.add_argument("--min-p", type=float, help="keep this share of the likeliest")
    parser.add_argument("--steps", type=int, help="of the prior, else of the decoder")
    parser.add_argument("--choice-temperature", type=float, default=4.5, help="of a masked prior")
    parser.add_argument("--decoder", choices=["cnn", "diffusion"], default="cnn")
    parser.add_argument("--decoder-steps", type=int, help="by default as trained for")
    parser.add_argument("--decoder-guidance", type=float, help="of the same; 1 is off")
    parser.add_argument("--decoder-solver", choices=get_args(Solver), default="ddim")
    parser.add_argument("--strength", type=float, default=0.5, help="of an edit, in (0, 1]")
    parser.add_argument("--quantize", choices=["int8"], help="weights of one byte: faster")
    parser.add_argument("--device", type=device, default=local_device())
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write into")
    return parser


def refuse_unread(args: Namespace, options: ArgumentParser) -> None:
    """Raise ValueError where an option is given that the task does not read."""
    read = READ.get(args.task)
    for name, value in vars(args).items():
        unread = name in UNSAMPLED if read is None else name not in (*EVERYWHERE, *read.split())
        if unread and value != options.get_default(name):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"--task {args.task} does not read {flag}; leave it out")
