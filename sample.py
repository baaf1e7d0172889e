"""Sample videos: python sample.py runs/demo/model --prompt "a red circle moving left" --out out/.

Writes one mp4 and one gif a sample and a contact sheet of all of them. The other tasks use the
tokenizer as a codec, on videos of any size and length, which stream through:

    python sample.py MODEL --task reconstruct --context in.mp4 --out out/
    python sample.py MODEL --task encode --context in.mp4 --out in.tokens
    python sample.py MODEL --task decode --context in.tokens --out out/
"""

import argparse
import sys
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import track
from torch import Tensor

from data.video import (
    VideoWriter,
    iterate_frames,
    probe,
    to_model_range,
    to_uint8,
    write_video,
)
from evaluation.contact_sheet import Row, contact_sheet
from evaluation.pixel import FramePSNR, FrameSSIM
from pipeline import VideoPipeline
from tokenizer import TiledTokenizer, Tokenizer
from tokenizer.codec import decode_file, encode_file, reconstruct_video
from tokenizer.token_file import TokenReader


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Sample videos from a model folder.")
    parser.add_argument("model", help="model folder or hub id")
    parser.add_argument("--task", choices=TASKS, default="generate")
    parser.add_argument("--prompt", action="append", help="what to show; may be given repeatedly")
    parser.add_argument("--context", type=Path, help="video to continue, or input of a task")
    parser.add_argument("--context-frames", type=int, default=5, help="how many of its last frames")
    parser.add_argument("--frames", type=int, default=17, help="length of the videos, 1 + s k")
    parser.add_argument("--num", type=int, default=1, help="samples of each prompt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="1 is off")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy")
    parser.add_argument("--top-k", type=int, default=0, help="0 keeps all tokens")
    parser.add_argument("--top-p", type=float, default=1.0, help="1 keeps all tokens")
    parser.add_argument("--side-by-side", action="store_true", help="truth at the left")
    parser.add_argument("--tile", type=int, help="largest side of a tile, for large frames")
    parser.add_argument("--overlap", type=int, help="of tiles, where they can only approximate")
    parser.add_argument("--min-p", type=float, default=0.0, help="0 keeps all tokens")
    parser.add_argument("--steps", type=int, help="calls of a masked prior's network a window")
    parser.add_argument("--decoder", choices=["cnn", "diffusion"], default="cnn")
    parser.add_argument("--strength", type=float, default=0.5, help="of an edit, in (0, 1]")
    parser.add_argument("--decoder-steps", type=int, default=20, help="of the diffusion decoder")
    parser.add_argument("--quantize", choices=["int8"], help="weights of one byte: faster")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write into")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    args = parser().parse_args(arguments)
    TASKS[args.task](args)


def generate(args: argparse.Namespace) -> None:
    """Sample from the prior."""
    pipe = VideoPipeline.from_pretrained(args.model)
    prompts = [prompt for prompt in args.prompt or [] for _ in range(args.num)]
    count = len(prompts) or args.num
    videos = pipe.generate(
        prompts=prompts or None,
        num_frames=args.frames,
        seed=[args.seed + i for i in range(count)],
        context=read_context(args.context, args.context_frames, count, pipe),
        guidance_scale=args.guidance_scale,
        temperature=args.temperature,
        top_k=args.top_k or None,
        top_p=args.top_p,
        min_p=args.min_p,
        steps=args.steps,
        quantize=args.quantize,
        decoder=args.decoder,
        decoder_steps=args.decoder_steps,
    )
    faster = pipe.decoder.enlarge[0] if args.decoder == "diffusion" and pipe.decoder else 1
    write_samples(videos, prompts or ["(no prompt)"] * count, args.out, faster * pipe.fps)


def edit(args: argparse.Namespace) -> None:
    """Change a video as a prompt says."""
    if args.context is None or not args.prompt:
        raise ValueError("--task edit needs --context, the video, and --prompt, what to make of it")
    pipe = VideoPipeline.from_pretrained(args.model)
    frames = [*islice(iterate_frames(args.context, pipe.size, fps=pipe.fps), args.frames)]
    stride = pipe.tokenizer.temporal_stride
    source = torch.from_numpy(np.stack(frames[: 1 + (len(frames) - 1) // stride * stride]))
    prompts = [prompt for prompt in args.prompt for _ in range(args.num)]
    if pipe.text is None:
        raise ValueError("this model was trained without captions; it cannot edit by a prompt")
    edited = pipe.require_decoder().edit(
        to_model_range(source).expand(len(prompts), -1, -1, -1, -1),
        [pipe.text.encode(prompt) for prompt in prompts],
        args.strength,
        args.seed,
        args.decoder_steps,
        args.guidance_scale,
    )
    write_samples(to_uint8(edited), prompts, args.out, pipe.fps)


def read_context(
    path: Path | None, frames: int, count: int, pipe: VideoPipeline
) -> UInt8[Tensor, "B T H W 3"] | None:
    """Return the last frames of a video, once for each sample."""
    if path is None:
        return None
    info = probe(path)
    # A faster video is brought to the rate that the model knows.
    last = deque(iterate_frames(path, pipe.size, fps=pipe.fps), maxlen=frames)
    if len(last) < frames:
        raise ValueError(
            f"{path} has {len(last)} frames at {pipe.fps:g} a second, but --context-frames is "
            f"{frames}; ask for fewer"
        )
    if (info.height, info.width) != (pipe.size, pipe.size):
        print(f"{path}: {info.height} x {info.width} resized and cropped to {pipe.size}")
    return torch.from_numpy(np.stack(last)).expand(count, -1, -1, -1, -1)


def write_samples(
    videos: UInt8[Tensor, "B T H W 3"], labels: list[str], out: Path, fps: float
) -> None:
    """Write each video as mp4 and gif, and a contact sheet."""
    out.mkdir(parents=True, exist_ok=True)
    for i, video in enumerate(videos):
        write_video(out / f"{i:03d}.mp4", video, fps)
        write_video(out / f"{i:03d}.gif", video, fps)
    rows = [Row(label, {"": video}) for label, video in zip(labels, videos, strict=True)]
    contact_sheet(rows, out / "samples.png")
    print(f"{len(videos)} videos written to {out}")


def reconstruct(args: argparse.Namespace) -> None:
    """Send a video through the tokenizer and back; print how much of it survived."""
    path, tokenizer = _codec(args)
    out = args.out / f"{path.stem}_reconstruction.mp4"
    psnr, ssim = FramePSNR(), FrameSSIM()
    with VideoWriter(out, probe(path).fps) as writer:
        for truth, clip in reconstruct_video(tokenizer, _frames(path)):
            for metric in (psnr, ssim):  # a clip of one frame each: the mean over frames
                metric.update(clip[:, None], truth[:, None])
            pair = rearrange([truth, clip], "two t h w c -> t h (two w) c")
            writer.write(pair if args.side_by_side else clip)
    print(f"{out}: PSNR {psnr.compute():.2f} dB, SSIM {ssim.compute():.4f}")


def encode(args: argparse.Namespace) -> None:
    """Write the tokens of a video as one file."""
    path, tokenizer = _codec(args)
    out = args.out if args.out.suffix == ".tokens" else args.out / f"{path.stem}.tokens"
    info = encode_file(tokenizer, _frames(path), probe(path).fps, out)
    num_frames, size = TokenReader(out).num_frames, out.stat().st_size
    rate = 8 * size / (num_frames * info.height * info.width)
    print(f"{out}: {num_frames} frames in {size} bytes, {rate:.4f} bits a pixel")


def decode(args: argparse.Namespace) -> None:
    """Write the video that a token file stands for."""
    path, tokenizer = _codec(args)
    file, out = TokenReader(path), args.out / f"{path.stem}_decoded.mp4"
    with VideoWriter(out, file.info.fps) as writer:
        frames = (frame for clip in decode_file(tokenizer, file) for frame in clip)
        for frame in _watched(frames, file.num_frames, path):
            writer.write(frame[None])
    print(f"{out}: {file.num_frames} frames")


def _codec(args: argparse.Namespace) -> tuple[Path, Tokenizer | TiledTokenizer]:
    if args.context is None:
        raise ValueError(f"--task {args.task} needs --context, the file to read")
    tokenizer = Tokenizer.from_pretrained(args.model)
    if args.tile is None:
        return args.context, tokenizer
    return args.context, TiledTokenizer(tokenizer, args.tile, args.overlap)


def _frames(path: Path) -> Iterator[np.ndarray]:
    return _watched(iterate_frames(path), probe(path).num_frames, path)


def _watched(frames: Iterator, total: int, path: Path) -> Iterator:
    """Show a progress bar while the frames go by."""
    return iter(track(frames, path.name, total, console=Console(stderr=True)))


TASKS = {
    "generate": generate,
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
