"""Training of a diffusion decoder: what a step reads, what it is held to, what comes out."""

import copy
from types import SimpleNamespace

import pytest
import torch

from data.datamodule import Batch
from data.video import to_uint8
from diffusion import DiffusionDecoder, DiffusionDecoderModule, UNet3D
from diffusion.control import edges, low_resolution
from lm import Condition
from pipeline import VideoPipeline

pytestmark = pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")

KINDS = {"edges": edges, "low resolution": low_resolution}
NETWORK = "{class_path: UNet3D, init_args: {channels: [32], depths: [1], temporal: %s}}"
TINY = [
    "--model.init_args.max_steps=2",
    "--model.init_args.decoder.codebook_size=200",
]


def module(tokenizer, **options):
    torch.manual_seed(0)
    decoder = DiffusionDecoder(UNet3D([32], [1]), 200, [4, 8], **options)
    for p in decoder.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    one = DiffusionDecoderModule(decoder, "", max_steps=10)
    object.__setattr__(one, "tokenizer", tokenizer)
    one._trainer = SimpleNamespace(world_size=1, global_rank=0, loggers=[])
    return one


@pytest.fixture
def batch(clip):
    return Batch(clip, [""])


def test_a_step_is_a_function_of_its_number(tiny_tokenizer, batch):
    one = module(tiny_tokenizer)
    losses = [one.objective(batch).loss for _ in range(2)]
    assert torch.equal(*losses)
    one.steps_done += 1
    assert not torch.equal(one.objective(batch).loss, losses[0])


def test_a_step_takes_a_window_of_the_whole_clip_s_reconstruction(tiny_tokenizer, batch, clip):
    one = module(tiny_tokenizer, corruption=0.0, window=2)
    tokens = tiny_tokenizer.encode(clip)
    with torch.no_grad():
        whole = tiny_tokenizer.decode(tokens)
    starts = set()
    for seed in range(20):
        window = one._window(batch, seed)
        (first,) = [j for j in range(4) if torch.equal(window.tokens, tokens[:, j : j + 2])]
        frames = slice(4 * first, 4 * first + 5)
        assert torch.equal(window.clip, clip[:, :, frames])
        torch.testing.assert_close(window.base, whole[:, :, frames])
        starts.add(first)
    assert starts == {0, 1, 2, 3}


def test_the_first_step_fits_the_scale_to_what_the_cnn_lacks(tiny_tokenizer, batch, clip):
    one = module(tiny_tokenizer, corruption=0.0, window=5)
    one.objective(batch)
    missing = clip - tiny_tokenizer.decode(tiny_tokenizer.encode(clip))
    torch.testing.assert_close(one.decoder.scale, missing.detach().square().mean().sqrt())


@pytest.mark.parametrize(("kind", "pictures"), [*KINDS.items()])
def test_a_control_is_trained_on_what_is_seen_of_the_clip(tiny_tokenizer, batch, kind, pictures):
    one = module(tiny_tokenizer, control=kind, window=2)
    window = one._window(batch, 0)
    assert torch.equal(window.control, pictures(window.clip))
    one.objective(batch).loss.backward()
    assert all(p.grad.any() for p in one.decoder.control.parameters())


def test_both_decoders_are_compared_where_a_control_steers_one(tiny_tokenizer, clip):
    one = module(tiny_tokenizer, control="edges")
    one.decoder.attach(tiny_tokenizer)
    with torch.no_grad():
        one._compare(clip, None)
    assert 0 < one.val_psnr_cnn.compute() < 40
    assert one.val_psnr.compute() != one.val_psnr_cnn.compute()


def test_a_decoder_that_reads_text_is_validated_with_it(tiny_tokenizer, clip, monkeypatch):
    one = module(tiny_tokenizer)
    one.decoder.text = SimpleNamespace(text_window=2)
    one.text = SimpleNamespace(encode=lambda caption: [len(caption)] * 3)
    told = []
    monkeypatch.setattr(
        one.decoder, "decode", lambda *_, texts, **__: told.append(texts) or torch.zeros_like(clip)
    )
    monkeypatch.setattr(one, "loss_of", lambda window: torch.zeros(()))
    monkeypatch.setattr(one, "log", lambda *_, **__: None)
    one.validation_step(Batch(clip, ["red"]), 0)
    assert told == [[[3, 3]]]


def test_the_tokenizer_is_not_trained(tiny_tokenizer, batch):
    one = module(tiny_tokenizer)
    before = tiny_tokenizer.fingerprint()
    one.objective(batch).loss.backward()
    assert all(p.grad is None for p in tiny_tokenizer.parameters())
    assert tiny_tokenizer.fingerprint() == before
    assert not any(name.startswith("tokenizer") for name in one.state_dict())


def test_the_command_trains_inflates_exports_and_the_pipeline_samples(fit, pipe, tmp_path):
    model = tmp_path / "model"
    pipe.save_pretrained(model)
    options = [*TINY, f"--model.init_args.tokenizer_folder={model}", f"--export={model}"]
    options.append(f"--trainer.default_root_dir={tmp_path}")
    image = f"--model.init_args.decoder.network={NETWORK % 'false'}"
    frames = "--data.stages=[{num_frames: %d, batch_size: 2, share: 1.0}]"
    fit("demo_decoder", *options, image, frames % 1)
    video = f"--model.init_args.decoder.network={NETWORK % 'true'}"
    start = [f"--model.init_args.start_from={model}", "--model.init_args.trained=temporal"]
    images = VideoPipeline.from_pretrained(model).decoder.state_dict()
    fit("demo_decoder", *options, video, *start, frames % 17)
    again = VideoPipeline.from_pretrained(model)
    for name, value in images.items():  # space was frozen
        if not name.endswith("vectors"):
            assert torch.equal(value, again.decoder.state_dict()[name]), name
    prompts = ["a red circle moving left"]
    one = again.generate(prompts, seed=3, decoder="diffusion", decoder_steps=2)
    assert one.shape == (1, 17, 32, 32, 3)
    assert torch.equal(one, again.generate(prompts, seed=[3], decoder="diffusion", decoder_steps=2))
    longer = again.generate(prompts, 33, 3, decoder="diffusion", decoder_steps=2)
    assert torch.equal(longer[:, :17], one)


def test_a_decoder_is_not_exported_over_the_parts_of_another_model(fit, pipe, tmp_path):
    model, export = tmp_path / "model", tmp_path / "export"
    pipe.save_pretrained(model)
    options = [*TINY, f"--model.init_args.tokenizer_folder={model}", f"--export={export}"]
    options += [f"--model.init_args.decoder.network={NETWORK % 'true'}"]
    options += [f"--trainer.default_root_dir={tmp_path}", "--trainer.limit_val_batches=0"]
    fit("demo_decoder", *options)
    fit("demo_decoder", *options)  # of the same tokenizer and prior it is written again
    pipe.prior.embedding.weight.data.add_(1)
    pipe.save_pretrained(model)
    before = (export / "manifest.json").read_bytes()
    with pytest.raises(ValueError, match=r"another prior than .* export to another folder"):
        fit("demo_decoder", *options)
    VideoPipeline(pipe.tokenizer, 32, 8.0).save_pretrained(tmp_path / "alone")
    options += [f"--model.init_args.tokenizer_folder={tmp_path / 'alone'}"]
    with pytest.raises(ValueError, match="holds a prior, which this has not"):
        fit("demo_decoder", *options)
    assert (export / "manifest.json").read_bytes() == before


def test_a_pipeline_decodes_its_tokens_with_the_decoder(pipe):
    decoder = module(pipe.tokenizer).decoder
    both = VideoPipeline(pipe.tokenizer, 32, 8.0, pipe.prior, pipe.text, decoder=decoder)
    generator = torch.Generator().manual_seed(5)
    tokens = pipe.prior.sample(Condition([[]]), [generator], num_latent_frames=2)
    # The noise of the pixels leaves the prior's draws alone.
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(5)))
    expected = to_uint8(decoder.decode(tokens, [seed], steps=2))
    video = both.generate(num_frames=5, seed=5, decoder="diffusion", decoder_steps=2)
    assert torch.equal(video, expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"decoder": "diffusion"}, "no diffusion decoder"),
        ({"decoder": "gan"}, "cnn or diffusion"),
        ({"decoder_steps": 0}, "steps is 0, but must be 1 or more"),
    ],
)
def test_what_cannot_be_sampled_is_refused(pipe, arguments, words):
    with pytest.raises(ValueError, match=words):
        pipe.generate(num_frames=5, **arguments)


def test_a_pipeline_refuses_a_decoder_of_another_tokenizer(pipe):
    decoder = module(pipe.tokenizer).decoder
    decoder.attach(pipe.tokenizer)
    other = copy.deepcopy(pipe.tokenizer)
    other.encoder.project.weight.data.add_(1)
    with pytest.raises(ValueError, match="belongs to it"):
        VideoPipeline(other, 32, 8.0, decoder=decoder)


def test_layers_for_time_alone_need_something_to_start_from(tiny_tokenizer):
    decoder = module(tiny_tokenizer).decoder
    with pytest.raises(ValueError, match="set start_from"):
        DiffusionDecoderModule(decoder, "", 10, trained="temporal")
