"""Sample videos: python sample.py runs/demo/model --prompt "a red circle moving left" --out out/.

Writes one mp4 a sample, which grows as its frames are made; of short videos also a gif and a
contact sheet of all. What the model was trained for, it can also be asked for:

    python sample.py MODEL --context clip.mp4 --frames 1001 --out out/
    python sample.py MODEL --story "a red circle moving left:17; a red circle moving up:16"
    python sample.py MODEL --task interpolate --guide ends.mp4 --frames 17   (its first and last)
    python sample.py MODEL --task inpaint --guide in.mp4 --box 8 8 40 40     (or --mask mask.png)
    python sample.py MODEL --task outpaint --guide in.mp4 --box 8 8 56 56    (what is kept)
    python sample.py MODEL --task control --guide edges_of_this.mp4 --prompt ...
    python sample.py MODEL --task upscale --guide small.mp4
    python sample.py MODEL --decoder diffusion --control edges_of_this.mp4   (of the size made)
    python sample.py MODEL --task edit --context in.mp4 --prompt ... --strength 0.5
    python sample.py MODEL --task class --class 3
    python sample.py MODEL --task rollout --context clip.mp4 --actions actions.npy
    python sample.py MODEL --task caption --context clip.mp4
    python sample.py MODEL --key-frames KEY_FRAME_MODEL --prompt ... --frames 1009

A picture (bmp, jpeg, png, webp) is read as a video of one frame wherever a video is.
The tokenizer alone is a codec, for videos of any size and length, which stream through:

    python sample.py MODEL --task reconstruct --context in.mp4 --out out/
    python sample.py MODEL --task encode --context in.mp4 --out in.tokens
    python sample.py MODEL --task decode --context in.tokens --out out/
"""

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from einops import rearrange
from rich.console import Console
from rich.progress import track

from data.video import VideoWriter, iterate_frames, probe
from diffusion.sampler import Solver
from evaluation.pixel import SSIM_WINDOW, FramePSNR, FrameSSIM
from evaluation.samples import write_samples
from layers.processes import device, local_device
from lm.key_frames import key_frames, shared_sampling
from lm.request import NEEDS, Request, parse_story
from lm.request_files import action_rows, box, bright, guide_frames, last_frames
from lm.sampling import Sampling
from pipeline import VideoPipeline
from tokenizer import TiledTokenizer, Tokenizer
from tokenizer.codec import decode_file, encode_file, reconstruct_video
from tokenizer.token_file import TokenReader


def parser() -> ArgumentParser:
    """Return the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder or hub id")
    parser.add_argument("--task", choices=TASKS, default="generate")
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
    parser.add_argument("--class", dest="classes", action="append", help="name or number")
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
    parser.add_argument("--side-by-side", action="store_true", help="truth at the left")
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


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    TASKS[args.task](args)


def generate(args: Namespace) -> None:
    """Sample from the prior."""
    pipe = VideoPipeline.from_pretrained(args.model, args.device)
    request = _request(args, pipe)
    if args.control is not None:
        request = _with_control(request, args.control, pipe)
    sampling = Sampling(
        args.guidance_scale,
        1.0 if args.temperature is None else args.temperature,
        args.top_k,
        args.top_p,
        args.min_p,
        args.steps,
        args.choice_temperature,
        args.quantize,
    )
    labels = request.prompts or [args.story or args.task] * request.count
    faster = pipe.require_decoder().enlarge[0] if args.decoder == "diffusion" else 1
    length = 1 + faster * (request.length - 1)
    guidance = _first(args.decoder_guidance, 1.0)
    way = args.decoder, args.decoder_steps, guidance, args.decoder_solver
    if args.key_frames is not None:
        request, sampling = _through_key_frames(request, sampling, args.key_frames, pipe, way)
    pieces = pipe.stream(request, sampling, *way)
    write_samples(pieces, labels, length, args.out, faster * pipe.fps)


def edit(args: Namespace) -> None:
    """Change a video as a prompt says."""
    if args.context is None or not args.prompt:
        raise ValueError("--task edit needs --context, the video, and --prompt, what to make of it")
    pipe = VideoPipeline.from_pretrained(args.model, args.device)
    stride = pipe.tokenizer.temporal_stride
    source = guide_frames(args.context, args.task, pipe.size, pipe.fps, stride)[: args.frames]
    prompts = [prompt for prompt in args.prompt for _ in range(args.num)]
    videos = source.expand(len(prompts), *source.shape)
    # No prior is there, so what would be the prior's is the decoder's.
    steps = _first(args.decoder_steps, args.steps)
    guidance = _first(args.decoder_guidance, args.guidance_scale)
    told = args.strength, args.seed, guidance, steps, args.decoder_solver
    edited = pipe.edit(videos, prompts, *told)
    write_samples(iter([edited]), prompts, edited.shape[1], args.out, pipe.fps)


def caption(args: Namespace) -> None:
    """Print what a video shows."""
    pipe = VideoPipeline.from_pretrained(args.model, args.device)
    if args.context is None:
        raise ValueError("--task caption needs --context, the video to read")
    window = pipe.tokenizer.num_frames(pipe.require_prior().grid[0])
    clip = last_frames(args.context, args.frames or window, pipe.size, pipe.fps)
    print(pipe.caption(clip[None], args.seed, args.temperature or 0.0)[0])


def _request(args: Namespace, pipe: VideoPipeline) -> Request:
    """Return what the command line asks for, with the files that it names."""
    prompts, classes = (
        None if told is None else [one for one in told for _ in range(args.num)]
        for told in (args.prompt, args.classes)
    )
    count = len(prompts or classes or range(args.num))
    context = guide = mask = None
    if args.context is not None:
        frames = 1 if args.task == "image-to-video" else args.context_frames
        context = last_frames(args.context, frames, pipe.size, pipe.fps)
    stride = pipe.tokenizer.temporal_stride
    if args.guide is not None:
        guide = guide_frames(args.guide, args.task, pipe.size, pipe.fps, stride)
    if args.mask is not None:
        mask = bright(args.mask, args.guide, pipe.size, pipe.fps, stride)
    elif args.box is not None:
        mask = box(args.box, pipe.size, inside=args.task != "outpaint")
    actions = None if args.actions is None else action_rows(args.actions)
    context, guide, actions = (
        part if part is None else part.expand(count, *part.shape)
        for part in (context, guide, actions)
    )
    return Request(
        prompts,
        args.frames,
        [args.seed + i for i in range(count)],
        context,
        args.task,
        classes,
        actions,
        mask,
        None if args.story is None else parse_story(args.story),
        guide,
    )


def _with_control(request: Request, path: Path, pipe: VideoPipeline) -> Request:
    """Add what a decoder is to follow, of the length that it makes."""
    faster = pipe.require_decoder().enlarge[0]
    frames = islice(iterate_frames(path, fps=faster * pipe.fps), 1 + faster * (request.length - 1))
    clip = torch.from_numpy(np.stack(list(frames)))
    return replace(request, control=clip.expand(request.count, *clip.shape))


def _first(*values: Any) -> Any:
    """Return the first value that was given, if any."""
    return next((value for value in values if value is not None), None)


def _through_key_frames(
    request: Request, sampling: Sampling, model: str, pipe: VideoPipeline, way: tuple
) -> tuple[Request, Sampling]:
    """Sample key frames, as far apart as a window is long, and ask for what lies between."""
    prior, key_pipe = pipe.require_prior(), VideoPipeline.from_pretrained(model, pipe.device)
    keys, filling = key_frames(request, pipe.tokenizer.num_frames(prior.grid[0]) - 1, pipe.size)
    ours, rest = shared_sampling(sampling, key_pipe.require_prior(), prior)
    pipe.stream(filling, rest, *way)  # refuses what cannot be filled before key frames are made
    made = key_pipe.stream(keys, ours)
    return replace(filling, guide=torch.cat(list(made), dim=1)), rest


def reconstruct(args: Namespace) -> None:
    """Send a video through the tokenizer and back; print how much of it survived."""
    path, tokenizer = _codec(args)
    out = args.out / f"{path.stem}_reconstruction.mp4"
    psnr, ssim = FramePSNR(), FrameSSIM()
    with VideoWriter(out, probe(path).fps) as writer:
        for truth, clip in reconstruct_video(tokenizer, _frames(path)):
            psnr.update(clip[:, None], truth[:, None])  # a clip of one frame each: their mean
            if min(truth.shape[1:3]) >= SSIM_WINDOW:
                ssim.update(clip[:, None], truth[:, None])
            pair = rearrange([truth, clip], "two t h w c -> t h (two w) c")
            writer.write(pair if args.side_by_side else clip)
    missing = f"no SSIM, which needs {SSIM_WINDOW} pixels each way"
    similarity = f"SSIM {ssim.compute():.4f}" if ssim.num_clips else missing
    print(f"{out}: PSNR {psnr.compute():.2f} dB, {similarity}")


def encode(args: Namespace) -> None:
    """Write the tokens of a video as one file."""
    path, tokenizer = _codec(args)
    out = args.out if args.out.suffix == ".tokens" else args.out / f"{path.stem}.tokens"
    info = encode_file(tokenizer, _frames(path), probe(path).fps, out)
    num_frames, size = TokenReader(out).num_frames, out.stat().st_size
    rate = 8 * size / (num_frames * info.height * info.width)
    print(f"{out}: {num_frames} frames in {size} bytes, {rate:.4f} bits a pixel")


def decode(args: Namespace) -> None:
    """Write the video that a token file stands for."""
    path, tokenizer = _codec(args)
    file, out = TokenReader(path), args.out / f"{path.stem}_decoded.mp4"
    frames = (frame for clip in decode_file(tokenizer, file) for frame in clip)
    with VideoWriter(out, file.info.fps) as writer:
        for frame in _watched(frames, file.num_frames, path):
            writer.write(frame[None])
    print(f"{out}: {file.num_frames} frames")


def _codec(args: Namespace) -> tuple[Path, Tokenizer | TiledTokenizer]:
    if args.context is None:
        raise ValueError(f"--task {args.task} needs --context, the file to read")
    if args.decoder != "cnn":
        raise ValueError(
            f"--task {args.task} works with the tokenizer alone; leave --decoder out, or stream "
            "its tokens through pipe.require_decoder().stream_decode in Python"
        )
    tokenizer = Tokenizer.from_pretrained(args.model).to(args.device)
    if args.tile is None:
        return args.context, tokenizer
    return args.context, TiledTokenizer(tokenizer, args.tile, args.overlap)


def _frames(path: Path) -> Iterator[np.ndarray]:
    return _watched(iterate_frames(path), probe(path).num_frames, path)


def _watched(frames: Iterator, total: int, path: Path) -> Iterator:
    """Show a progress bar while the frames go by."""
    return iter(track(frames, path.name, total, console=Console(stderr=True)))


TASKS = {
    **dict.fromkeys(NEEDS, generate),
    "caption": caption,
    "edit": edit,
    "reconstruct": reconstruct,
    "encode": encode,
    "decode": decode,
}


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    try:
        main()
    except ValueError as error:
        sys.exit(f"sample.py: {error}")
