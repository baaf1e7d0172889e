"""What a step of a tokenizer's training minimises: each loss once, none forgotten."""

import copy
import math
import warnings

import lightning
import pytest
import torch

from data import Shapes, Stage
from data.datamodule import Batch, VideoDataModule
from data.video import to_model_range
from tests.conftest import quiet_trainer
from tokenizer import FSQ, KL, Adversary, PatchDiscriminator, Tokenizer, TokenizerModule
from tokenizer.lightning_module import LPIPS
from tokenizer.losses import reconstruction_loss
from training.adversary import turn_of
from training.precision import autocast

pytestmark = pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")


class CostlyFSQ(FSQ):
    """FSQ with a loss of its own."""

    def apply_to(self, latents):
        return super().apply_to(latents)._replace(loss=latents.square().mean())


def module(**arguments):
    torch.manual_seed(0)
    tokenizer = Tokenizer(
        CostlyFSQ([8, 5, 5]), channels=[16, 32], encoder_depths=[1, 1], decoder_depths=[1, 1]
    )
    for p in tokenizer.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    return TokenizerModule(tokenizer, 100, square_weight=2.0, **arguments)


def adversary(**arguments):
    judges = [PatchDiscriminator(width=8, depth=2), PatchDiscriminator(True, width=8, depth=2)]
    return Adversary(judges, **{"start_step": 10, "ramp_steps": 4, **arguments})


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.rand(2, 3, 5, 16, 16, generator=generator) * 2 - 1, ["", ""])


def fit(one, batch, root):
    """Train to the end on copies of a batch; return what was logged."""
    trainer = quiet_trainer(root)
    loader = torch.utils.data.DataLoader([batch] * one.max_steps, batch_size=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(one, loader)
    return trainer.callback_metrics


def gradients(loss, network):
    return torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)


@pytest.mark.parametrize("perceptual", [False, True])
@pytest.mark.parametrize("step", [0, 9, 10, 11, 40])
def test_each_loss_counts_once_and_none_is_forgotten(step, perceptual, batch):
    one = module(adversary=adversary(), quantizer_anneal_steps=20)
    assert one.adversary is not None
    if perceptual:
        object.__setattr__(one, "lpips", LPIPS())
    one.tokenizer.calibrate(batch.clip)
    one.steps_done.fill_(step)
    result = one.tokenizer(batch.clip)
    near = reconstruction_loss(result.clip, batch.clip, 2.0)
    if one.lpips is not None:
        near = near + one.lpips(result.clip, batch.clip)
    quantizer = {0: 3.0, 9: 2.1, 10: 2.0, 11: 1.9, 40: 1.0}[step] * result.quantized.loss
    share = {0: 0.0, 9: 0.0, 10: 0.05, 11: 0.1, 40: 0.2}[step]
    fooled = one.adversary.generator_loss(result.clip)
    last = one.tokenizer.decoder.conv_out.weight
    pull, push = (torch.autograd.grad(x, last, retain_graph=True)[0] for x in (near, fooled))
    expected = near + share * pull.norm() / (push.norm() + 1e-4) * fooled + quantizer
    loss = one.objective(batch).loss
    torch.testing.assert_close(loss, expected)
    slow, fast = (gradients(x, one.tokenizer) for x in (expected, loss))
    for a, b in zip(slow, fast, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_a_run_that_begins_with_images_is_fitted_to_its_clips(tmp_path):
    """Single frames have no motion: their bands over time would be taken for nothing."""
    stages = [Stage(1, 4, 0.5), Stage(5, 4, 0.5)]
    data = VideoDataModule(Shapes(40), Shapes(4, "val"), stages, 2, val_clips=4)
    one = module()
    one.max_steps = 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet_trainer(tmp_path).fit(one, datamodule=data)
    clips = data.typical_clips()
    assert clips.shape == (4, 3, 5, 64, 64)
    expected = [Shapes(40).read(10 * k, 5, 0.5).frames for k in range(4)]
    assert torch.equal(clips, torch.stack([to_model_range(frames) for frames in expected]))
    scales = []
    for part in (clips, clips[:, :, :1]):
        other = module().tokenizer
        other.calibrate(part)
        scales.append(other.encoder.stem.scale)
    assert torch.equal(one.tokenizer.encoder.stem.scale, scales[0])
    assert (scales[0] / scales[1]).max() > 2


def test_the_adversary_is_not_even_asked_before_its_start(batch):
    one = module(adversary=adversary())
    calls = []
    assert one.adversary is not None
    for judge in one.adversary.discriminators:
        judge.register_forward_hook(lambda *_: calls.append(1))
    one.steps_done.fill_(9)
    objective = one.objective(batch)
    assert (calls, objective.reply) == ([], None)
    assert "adaptive_weight" not in objective.logs
    one.steps_done.fill_(10)
    objective = one.objective(batch)
    assert len(calls) == 2
    assert objective.reply is not None
    objective.reply()
    assert len(calls) == 4


def test_a_step_that_keeps_no_activations_is_the_same_and_runs_each_block_twice(batch, tmp_path):
    ends, counts = [], []
    for keep in (True, False):
        one, calls = module(keep_activations=keep), []
        one.max_steps = 1
        for block in one.tokenizer.decoder.blocks:
            block.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        fit(one, batch, tmp_path)
        ends.append(one.state_dict())
        counts.append(len(calls))
    assert counts[1] == 2 * counts[0] == 2 * len(one.tokenizer.decoder.blocks)
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name])


def norm_of(loss, network):
    parameters = [p for p in network.parameters() if p.requires_grad]
    parts = torch.autograd.grad(loss, parameters)
    return torch.cat([g.flatten() for g in parts]).norm()


@pytest.mark.filterwarnings("ignore")  # of Lightning's own
def test_a_step_logs_the_gradients_of_both_networks_and_the_codes_in_use(batch, tmp_path):
    one = module(adversary=adversary(start_step=0))
    one.max_steps = 1
    twin = copy.deepcopy(one)
    logged = fit(one, batch, tmp_path)
    with autocast(batch.clip.device):
        objective = twin.objective(batch)
        tokens = twin.tokenizer(batch.clip).quantized.tokens
        assert objective.reply is not None
        assert twin.adversary is not None
        with turn_of(twin.adversary):
            reply = objective.reply().loss
            norms = [norm_of(objective.loss, twin.tokenizer), norm_of(reply, twin.adversary)]
    near = {"rel": 1e-3}
    assert logged["train/gradient_norm"].item() == pytest.approx(norms[0].item(), **near)
    assert logged["train/adversary_gradient_norm"].item() == pytest.approx(norms[1].item(), **near)
    used = tokens.unique().numel() / 200
    assert logged["train/codes_used"].item() == pytest.approx(used)


def test_without_weights_the_perceptual_loss_is_off_and_says_so_once(caplog):
    one = module()
    with caplog.at_level("INFO"):
        one.on_fit_start()
    assert one.lpips is None
    assert caplog.text.count("perceptual loss is off") == 1


def test_the_perceptual_network_is_neither_saved_nor_trained(batch):
    one = module()
    object.__setattr__(one, "lpips", LPIPS())
    assert not any("lpips" in name for name in one.state_dict())
    one.objective(batch).loss.backward()
    assert one.lpips is not None
    assert all(p.grad is None for p in one.lpips.parameters())


@pytest.mark.filterwarnings("ignore")  # of Lightning's own
@pytest.mark.parametrize("bottleneck", [FSQ([5, 5]), KL(3)], ids=["FSQ", "KL"])
def test_a_validation_says_what_a_pixel_costs(bottleneck, batch, tmp_path):
    tokenizer = Tokenizer(
        bottleneck, channels=[16, 32], encoder_depths=[1, 1], decoder_depths=[1, 1]
    )
    trainer = lightning.Trainer(
        default_root_dir=tmp_path, logger=False, enable_progress_bar=False, accelerator="cpu"
    )
    loader = torch.utils.data.DataLoader([batch], batch_size=None)
    (figures,) = trainer.validate(TokenizerModule(tokenizer, 1), loader, verbose=False)
    frames, height, width = batch.clip.shape[2:]
    latents = (1 + (frames - 1) // 4) * (height // 8) * (width // 8)
    if isinstance(bottleneck, FSQ):
        bits = latents * math.log2(25) / (frames * height * width)
        assert figures["val/bits_per_pixel"] == pytest.approx(bits)
        assert 1 <= figures["val/perplexity"] <= 25
        tokens = tokenizer.encode(batch.clip)
        assert figures["val/code_usage"] == pytest.approx(tokens.unique().numel() / 25)
    else:
        assert figures["val/nats_per_pixel"] > 0
        assert 0 <= figures["val/active_dims"] <= 3
