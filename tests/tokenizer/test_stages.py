"""A second stage starts from a trained tokenizer and leaves alone what it must not change."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader

from data.datamodule import Batch
from pipeline import VideoPipeline
from tests.conftest import quiet_trainer
from tokenizer import FSQ, KL, LFQ, VQ, Adversary, PatchDiscriminator, Tokenizer, TokenizerModule
from tokenizer.inflation import image_counterpart, spatial_parameters
from tokenizer.stages import start

pytestmark = pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")


def tokenizer(quantizer=None, channels=(16, 32), **arguments):
    torch.manual_seed(0)
    return Tokenizer(
        VQ(32, dim=4) if quantizer is None else quantizer,
        channels=list(channels),
        encoder_depths=[1, 1],
        decoder_depths=[1, 1],
        **arguments,
    )


def saved(one, folder):
    with torch.no_grad():
        for p in one.parameters():
            p.add_(0.05 * torch.randn_like(p))
    clip = torch.rand(4, 3, 1, 32, 32) * 2 - 1
    one.calibrate(clip)
    one.train()(clip)  # draws the codebook
    VideoPipeline(one, size=32, fps=8.0).save_pretrained(folder)
    return one


def second_stage(folder, trained="decoder", quantizer=None, **arguments):
    judges = [PatchDiscriminator(width=8, depth=2)]
    return TokenizerModule(
        tokenizer(quantizer),
        6,
        adversary=Adversary(judges, start_step=2, ramp_steps=2),
        start_from=str(folder),
        trained=trained,
        **arguments,
    )


def fit(module, root, **arguments):
    clips = torch.rand(12, 3, 5, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    loader = DataLoader([Batch(clip[None], [""]) for clip in clips], batch_size=None)  # type: ignore[arg-type]
    trainer = quiet_trainer(root, val_check_interval=2, num_sanity_val_steps=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, loader, **arguments)
    return trainer


def test_a_second_stage_moves_the_decoder_and_no_token(tmp_path):
    first = saved(tokenizer(), tmp_path / "first")
    module = second_stage(tmp_path / "first")
    fit(module, tmp_path)
    second = module.tokenizer
    assert module.step == 6
    assert second.fingerprint() == first.fingerprint()
    assert isinstance(second.quantizer, VQ)
    assert isinstance(first.quantizer, VQ)
    assert second.quantizer.updates == 1
    assert torch.equal(second.quantizer.codebook, first.quantizer.codebook)
    with module.ema.applied(second):
        assert second.fingerprint() == first.fingerprint()
        assert not torch.equal(second.decoder.conv_in.weight, first.decoder.conv_in.weight)
    clip = torch.rand(1, 3, 5, 64, 64) * 2 - 1
    assert torch.equal(second.eval().encode(clip), first.eval().encode(clip))
    assert not torch.equal(second.decoder.conv_in.weight, first.decoder.conv_in.weight)
    assert not [name for name in module.ema.names if not name.startswith("decoder")]


def test_a_second_stage_of_other_tokens_is_refused(tmp_path):
    saved(tokenizer(), tmp_path / "first")
    other = tokenizer(wavelet=False)
    start(other, tmp_path / "first")
    with pytest.raises(ValueError, match="makes other tokens"):
        start(other, tmp_path / "first", "decoder")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (FSQ([5, 5], entropy_weight=0.2), FSQ([5, 5], diversity=2.0, temperature=1.0)),
        (LFQ(4), LFQ(4, entropy_weight=0.0, commitment_weight=1.0)),
        (VQ(32, dim=4), VQ(32, dim=4, decay=0.9, restart_share=0.05, commitment_weight=1.0)),
        (KL(3), KL(3, weight=0.1)),
    ],
    ids=["FSQ", "LFQ", "VQ", "KL"],
)
def test_losses_of_the_quantizer_make_no_other_tokens(before, after, tmp_path):
    first = saved(tokenizer(quantizer=before), tmp_path)
    second = tokenizer(quantizer=after, patch=[2, 4])
    start(second, tmp_path, "decoder")
    clip = torch.rand(1, 3, 5, 64, 64) * 2 - 1
    ours, theirs = (one.eval().encode_latents(clip).latents for one in (second, first))
    assert torch.equal(ours, theirs)
    assert second.fingerprint() == first.fingerprint()
    second.save_pretrained(tmp_path / "second")
    assert Tokenizer.from_pretrained(tmp_path / "second").fingerprint() == first.fingerprint()


@pytest.mark.parametrize(
    "other", [{"quantizer": FSQ([3, 5])}, {"quantizer": FSQ([5, 3]), "wavelet": False}]
)
def test_levels_or_a_stem_of_another_order_make_other_tokens(other, tmp_path):
    saved(tokenizer(quantizer=FSQ([5, 3])), tmp_path)
    with pytest.raises(ValueError, match="makes other tokens"):
        start(tokenizer(**other), tmp_path, "decoder")


def test_a_stage_starts_from_a_tokenizer_alone(tmp_path):
    first = saved(tokenizer(), tmp_path / "first")
    first.save_pretrained(tmp_path / "alone")
    other = tokenizer()
    start(other, tmp_path / "alone", "decoder")
    assert other.fingerprint() == first.fingerprint()


def test_the_encoder_stays_in_eval_mode_when_all_else_trains(tmp_path):
    module = second_stage(saved(tokenizer(), tmp_path) and tmp_path).train()
    frozen = (module.tokenizer.encoder, module.tokenizer.quantizer)
    assert not any(part.training for half in frozen for part in half.modules())
    assert all(part.training for part in module.tokenizer.decoder.modules())


def test_the_averages_start_from_the_loaded_weights(tmp_path):
    first = saved(tokenizer(), tmp_path)
    module = second_stage(tmp_path)
    module.on_fit_start()
    with module.ema.applied(module.tokenizer):
        for name, p in first.named_parameters():
            assert torch.equal(module.tokenizer.get_parameter(name), p), name


def test_without_a_second_stage_the_codebook_moves(tmp_path):
    first = saved(tokenizer(), tmp_path / "first")
    module = second_stage(tmp_path / "first", trained="all")
    fit(module, tmp_path)
    assert module.tokenizer.fingerprint() != first.fingerprint()
    assert module.tokenizer.quantizer.get_buffer("updates") == 1 + 6


def test_a_resumed_stage_needs_its_start_no_more(tmp_path):
    first = saved(tokenizer(), tmp_path / "first")
    module = second_stage(tmp_path / "first")
    fit(module, tmp_path).save_checkpoint(tmp_path / "last.ckpt")
    again = second_stage(tmp_path / "gone")
    again.max_steps = 7
    fit(again, tmp_path, ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert again.step == 7
    assert again.tokenizer.fingerprint() == first.fingerprint()


def test_a_resumed_stage_keeps_the_fingerprint_whatever_its_quantizer_trains_with(tmp_path):
    first = saved(tokenizer(), tmp_path / "first")
    stages = [second_stage(tmp_path / "first", quantizer=VQ(32, 4, decay=0.9)) for _ in range(2)]
    fit(stages[0], tmp_path).save_checkpoint(tmp_path / "last.ckpt")
    stages[1].max_steps = 7
    fit(stages[1], tmp_path, ckpt_path=tmp_path / "last.ckpt", weights_only=False)
    assert [stage.step for stage in stages] == [6, 7]
    assert {stage.tokenizer.fingerprint() for stage in stages} == {first.fingerprint()}


def test_an_image_tokenizer_is_inflated_and_only_its_time_may_learn(tmp_path):
    image = saved(image_counterpart(tokenizer()), tmp_path / "image")
    module = second_stage(tmp_path / "image", trained="temporal")
    fit(module, tmp_path)
    video, names = module.tokenizer, spatial_parameters(module.tokenizer)
    for name, p in image.named_parameters():
        if name in names:
            assert torch.equal(p, video.get_parameter(name)), name
    past = [p for p in video.parameters() if p.ndim == 5 and p.shape[2] > 1]
    assert all(bool(kernel[:, :, 0].any()) for kernel in past)


def test_an_image_tokenizer_is_inflated_where_attention_alone_sees_time(tmp_path):
    shape = {"patch": [1, 4], "strides": [[1, 2]], "channels": [16, 64], "temporal_window": 3}
    image = saved(image_counterpart(tokenizer(**shape)), tmp_path)
    video = tokenizer(**shape)
    start(video, tmp_path, "temporal")
    clip = torch.rand(1, 3, 1, 32, 32) * 2 - 1
    torch.testing.assert_close(video.encoder(clip), image.encoder(clip))
    again = tokenizer(**shape)
    VideoPipeline(video, size=32, fps=8.0).save_pretrained(tmp_path / "video")
    start(again, tmp_path / "video")
    assert again.fingerprint() == video.fingerprint()


def test_a_stage_says_what_it_lacks(tmp_path):
    with pytest.raises(ValueError, match="set start_from"):
        TokenizerModule(tokenizer(), 6, trained="decoder")
    with pytest.raises(ValueError, match="no model folder"):
        fit(second_stage(tmp_path), tmp_path)
    VideoPipeline(tokenizer(), size=32, fps=8.0).save_pretrained(tmp_path / "fresh")
    with pytest.raises(ValueError, match="never trained"):
        fit(second_stage(tmp_path / "fresh"), tmp_path)
    saved(tokenizer(factorized=False), tmp_path / "other")
    with pytest.raises(ValueError, match="does not fit"):
        fit(second_stage(tmp_path / "other"), tmp_path)
