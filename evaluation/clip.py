"""CLIP from a local folder: how well frames agree with captions, and features of frames.

CLIP: Radford et al. 2021, arXiv 2103.00020. CLIPSIM: GODIVA, Wu et al. 2021, arXiv 2104.14806.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from transformers import AutoTokenizer, CLIPModel

from evaluation.extractors import device_of, file_hash

# What CLIP's training normalised pictures by.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class CLIPFeatures(nn.Module):
    """CLIP's view of frames and captions, as vectors of length 1.

    Args:
        folder: Local folder that `CLIPModel.save_pretrained` wrote, with its tokenizer.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        weights = Path(folder) / "model.safetensors"
        self.sha256 = file_hash(weights)
        self.extractor_id = f"{Path(folder).name}-{self.sha256[:8]}"
        self.model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self.model.eval().requires_grad_(False)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.side = int(self.model.config.vision_config.image_size)  # type: ignore[arg-type]

    @torch.no_grad()
    def frames(self, clip: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B T D"]:
        """Describe each frame: short side resized, centre cut out."""
        x = rearrange(clip.to(device_of(self)), "B T H W C -> (B T) C H W").float() / 255
        scale = self.side / min(x.shape[2:])
        size = [round(length * scale) for length in x.shape[2:]]
        x = F.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((length - self.side) // 2 for length in size)
        x = x[:, :, top : top + self.side, left : left + self.side]
        mean, std = (x.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
        states = self.model.vision_model(pixel_values=(x - mean) / std).pooler_output
        features = F.normalize(self.model.visual_projection(states), dim=-1).cpu()
        return rearrange(features, "(B T) D -> B T D", B=len(clip))

    @torch.no_grad()
    def texts(self, captions: list[str]) -> Float[Tensor, "B D"]:
        """Describe captions."""
        pieces = self.tokenizer(captions, padding=True, truncation=True, return_tensors="pt")
        states = self.model.text_model(**pieces.to(device_of(self))).pooler_output
        return F.normalize(self.model.text_projection(states), dim=-1).cpu()

    def similarity(
        self, clip: UInt8[Tensor, "B T H W 3"], captions: list[str]
    ) -> Float64[Tensor, "B T"]:
        """Return how well each frame agrees with the caption of its clip."""
        return text_similarity(self.frames(clip), self.texts(captions))


def text_similarity(
    frames: Float[Tensor, "B T D"], texts: Float[Tensor, "B D"]
) -> Float64[Tensor, "B T"]:
    """Return 100 times the cosine between each frame and the caption of its clip."""
    return 100 * torch.einsum("btd,bd->bt", frames.double(), texts.double())


class Alignment:
    """How well clips fit their captions, as a scorer of data.curate.

    The mean over the first, the middle and the last frame; of several captions the best; 0 without.

    Args:
        folder: Local folder of a CLIP model.
    """

    names = ("alignment",)

    def __init__(self, folder: str) -> None:
        self.clip = CLIPFeatures(folder)

    def __call__(self, clip: UInt8[Tensor, "T H W 3"], captions: Sequence[str]) -> dict[str, float]:
        said = [caption for caption in captions if caption.strip()]
        if not said:
            return {"alignment": 0.0}
        frames = self.clip.frames(clip[None, [0, len(clip) // 2, -1]])
        many = frames.expand(len(said), -1, -1)
        return {"alignment": text_similarity(many, self.clip.texts(said)).mean(1).max().item()}


class TextSimilarity(Metric):
    """CLIPSIM: 100 times the mean cosine of frames and captions.

    Args:
        clip: The encoder.
    """

    full_state_update = False
    higher_is_better = True
    total: Tensor
    count: Tensor

    def __init__(self, clip: CLIPFeatures) -> None:
        super().__init__()
        self.clip = clip
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, clip: UInt8[Tensor, "B T H W 3"], captions: list[str]) -> None:
        scores = self.clip.similarity(clip, captions)
        self.total += scores.mean(1).sum()
        self.count += len(clip)

    def compute(self) -> Float64[Tensor, ""]:
        return self.total / self.count
