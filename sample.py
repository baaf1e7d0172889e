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
    python sample.py MODEL --task edit --context in.mp4 --prompt ... --strength 0.5 --side-by-side
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
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from rich.console import Console
from rich.progress import track
from torch import Tensor

from data.video import VideoWriter, iterate_frames, probe
from evaluation.pixel import SSIM_WINDOW, FramePSNR, FrameSSIM
from evaluation.samples import write_samples
from lm.key_frames import key_frames, shared_sampling
from lm.request import NEEDS, Request, parse_story
from lm.request_files import action_rows, box, bright, guide_frames, last_frames
from lm.sampling import Sampling
from pipeline import VideoPipeline
from sample_options import parser, refuse_unread
from tokenizer import TiledTokenizer, Tokenizer
from tokenizer.codec import decode_file, encode_file, reconstruct_video
from tokenizer.token_file import TokenReader


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = parser(__doc__)
    args = options.parse_args(arguments)
    refuse_unread(args, options)
    TASKS[args.task](args)


def generate(args: Namespace) -> None:
    """Sample from the prior."""
    pipe = VideoPipeline.from_pretrained(args.model, args.device)
    request = _request(args, pipe)
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
    if args.control is not None:
        control = _control(args.control, faster * pipe.fps, length, request.count)
        request = replace(request, control=control)
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
    source = guide_frames(args.context, args.task, pipe.size, pipe.fps, stride)
    frames = _first(args.frames, len(source))
    if not 1 <= frames <= len(source):
        raise ValueError(
            f"{frames} frames are asked for, but {args.context} has {len(source)} that can be "
            f"edited, 1 + {stride} k at {pipe.fps:g} a second; ask for 1 to {len(source)}"
        )
    prompts = [prompt for prompt in args.prompt for _ in range(args.num)]
    videos = source[:frames].expand(len(prompts), frames, *source.shape[1:])
    # One network edits, so steps and guidance are its own, the prior's or the decoder's.
    steps = _first(args.decoder_steps, args.steps)
    guidance = _first(args.decoder_guidance, args.guidance_scale)
    told = args.strength, args.seed, guidance, steps, args.decoder_solver
    control = args.control
    if control is not None:
        control = _control(control, pipe.fps, frames, len(prompts))
    edited = pipe.edit(videos, prompts, *told, control=control)
    if args.side_by_side:
        edited = torch.cat([videos, edited], dim=3)
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
        for told in (args.prompt, getattr(args, "class"))
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


def _control(path: Path, fps: float, length: int, count: int) -> Tensor:
    """Return what a decoder is to follow, of the length that it makes, once a sample."""
    frames = list(islice(iterate_frames(path, fps=fps), length))
    return torch.from_numpy(np.stack(frames)).expand(count, -1, -1, -1, -1)


def _first(*values: Any) -> Any:
    """Return the first value that was given, if any."""
    return next((value for value in values if value is not None), None)


def _through_key_frames(
    request: Request, sampling: Sampling, model: str, pipe: VideoPipeline, way: tuple
) -> tuple[Request, Sampling]:
    """Sample key frames, as far apart as a window is long, and ask for what lies between."""
    prior, key_pipe = pipe.require_prior(), VideoPipeline.from_pretrained(model, pipe.device)
    if key_pipe.tokenizer.temporal_stride > 1:
        raise ValueError(
            f"{model} makes whole clips, not key frames; train one with single_frames: true, as "
            "configs/demo_key_frames.yaml does"
        )
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
