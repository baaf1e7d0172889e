"""A trained decoder is finetuned on one clip by the command line, in each of the ways there are."""

import pytest
import torch

from diffusion import DiffusionDecoder, UNet3D
from pipeline import VideoPipeline

NETWORK = "{class_path: UNet3D, init_args: {channels: [32, 32], depths: [1, 1]%s}}"
SHRINKING = NETWORK % ", shrink_time: [true]"
WAYS = {
    "all weights": [],
    "adapters": ["--model.init_args.adapter_rank=2"],
    "correlated noise": ["--model.init_args.decoder.noise_correlation=0.5"],
    "fewer frames inside": [f"--model.init_args.decoder.network={SHRINKING}"],
}


@pytest.fixture
def trained(pipe, tmp_path):
    """Return a model whose decoder stands for a trained one."""
    torch.manual_seed(0)
    decoder = DiffusionDecoder(UNet3D([32, 32], [1, 1]), 200, [4, 8])
    for p in decoder.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    decoder.calibrated.fill_(True)
    model = VideoPipeline(pipe.tokenizer, 32, 8.0, pipe.prior, pipe.text, decoder=decoder)
    model.save_pretrained(tmp_path / "model")
    return model


@pytest.mark.parametrize("way", WAYS)
def test_a_decoder_is_finetuned_on_one_clip(fit, trained, tmp_path, way):
    folder, out = tmp_path / "model", tmp_path / "finetuned"
    options = {
        "model.init_args.max_steps": 2,
        "model.init_args.tokenizer_folder": folder,
        "model.init_args.start_from": folder,
        "model.init_args.adapter_rank": 0,
        "model.init_args.decoder.codebook_size": 200,
        "model.init_args.decoder.noise_correlation": 0,
        "model.init_args.decoder.network": NETWORK % "",
        "data.train.init_args.num_clips": 1,
        "data.stages": "[{num_frames: 17, batch_size: 1, share: 1.0}]",
        "trainer.default_root_dir": tmp_path,
        "export": out,
    }
    fit("finetuned_decoder", *(f"--{name}={told}" for name, told in options.items()), *WAYS[way])
    found = VideoPipeline.from_pretrained(out)
    before, after = trained.decoder.state_dict(), found.decoder.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    added = set(after) - set(before)
    assert (way == "fewer frames inside") == bool(added)
    assert all("skip" in name for name in added)
    # Adapters leave everything around the network alone, and are merged into what they adapt.
    assert {name.split(".")[0] for name in changed} >= {"network"}
    assert (way == "adapters") == all(name.startswith("network.") for name in changed)
    assert found.decoder.noise_correlation == (0.5 if way == "correlated noise" else 0)
    assert torch.equal(after["scale"], before["scale"])
    told = {"seed": 3, "decoder": "diffusion", "decoder_steps": 2}
    video = found.generate(["a red circle moving left"], **told)
    assert video.shape == (1, 17, 32, 32, 3)
    assert not torch.equal(video, trained.generate(["a red circle moving left"], **told))
