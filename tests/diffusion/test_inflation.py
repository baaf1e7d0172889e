"""From which decoder another may start."""

import pytest
import torch

from diffusion import (
    DiffusionDecoder,
    DiffusionDecoderModule,
    DiffusionObjective,
    DiT,
    LogLinearSchedule,
    UNet3D,
    inflate,
)
from diffusion.condition import Condition, fold
from diffusion.inflation import require_alike
from pipeline import VideoPipeline

pytestmark = pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")


def build(temporal=True, causal=False, **options):
    network = UNet3D([32], [1], temporal=temporal, causal=causal)
    return DiffusionDecoder(network, 200, [4, 8], **options)


OTHERS = {
    "use": {"use": "none"},
    "whiten": {"whiten": True},
    "patch": {"patch": 2},
    "prediction": {"objective": DiffusionObjective(prediction="x")},
    "schedule": {"objective": DiffusionObjective(LogLinearSchedule(zero_terminal_snr=True))},
    "causal": {"causal": True},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_decoder_of_other_settings_is_no_start_and_both_are_said(name):
    with pytest.raises(ValueError, match=rf"^{name} is .*was trained with .*; set it to that"):
        require_alike(build(), build(**OTHERS[name]))
    require_alike(build(**OTHERS[name]), build(**OTHERS[name]))


def test_what_is_said_is_ours_and_then_theirs():
    with pytest.raises(ValueError, match=r"use is 'none', but .* trained with 'refine'"):
        require_alike(build(), build(use="none"))


def test_a_cascade_starts_from_the_decoder_that_it_enlarges_alone():
    for enlarge in ([1, 2], [2, 1]):
        require_alike(build(), build(enlarge=enlarge, base_noise=0.1))
        with pytest.raises(ValueError, match=r"^enlarge is \[1, 1\], but"):
            require_alike(build(enlarge=enlarge), build())


def test_attention_over_other_windows_is_no_start():
    narrow, wide = (DiffusionDecoder(DiT(64, 1, 2, window), 200, [4, 8]) for window in (2, 4))
    with pytest.raises(ValueError, match=r"^network\.window is 4, but .* trained with 2"):
        require_alike(narrow, wide)
    require_alike(wide, wide)


@pytest.mark.parametrize("enlarge", [[1, 2], [2, 1], [2, 2]])
def test_a_cascade_begins_with_what_its_decoder_does_with_the_larger_clip(enlarge):
    faster, larger = enlarge
    source, cascade = build(), build(enlarge=enlarge, base_noise=0.1)
    for p in source.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    # Vectors of frames start anew in a cascade that has other ones.
    source.tokens.phases.vectors.data.zero_()
    inflate(source, cascade)
    tokens = torch.randint(200, (2, 3, 2, 2))
    dropped = torch.tensor([False, True])
    plain = source.tokens(tokens, dropped)
    found = cascade.tokens(tokens, dropped)
    repeated = plain.repeat_interleave(larger, 3).repeat_interleave(larger, 4)
    assert torch.equal(found[:, :, ::faster], repeated)
    # The rest of the network is told the same, and does the same.
    z = torch.randn(2, 3, 1 + 4 * faster * 2, 16 * larger, 16 * larger)
    angle = torch.full(z.shape[::2][:1] + z.shape[2:3], 0.7)
    level = torch.tensor([0.05, 0.1])
    condition = Condition(tokens, torch.zeros_like(z), dropped, [[], []], level)
    features = cascade.pixels(fold(z, 4)) + found + cascade.reads(fold(condition.base, 4))
    torch.testing.assert_close(
        cascade.network(features, angle, None), source.network(features, angle, None)
    )
    assert torch.equal(
        cascade.predict(z, angle, condition),
        cascade.predict(z, angle, condition._replace(base_noise=torch.zeros(2))),
    )


def test_a_decoder_of_other_codes_fits_no_cascade():
    other = DiffusionDecoder(UNet3D([32], [1]), 200, [4, 8], token_width=32, enlarge=[1, 2])
    with pytest.raises(ValueError, match=r"tokens\.spread\.weight.* of another shape"):
        inflate(build(), other)


def test_training_refuses_to_start_from_a_decoder_of_other_settings(pipe, tmp_path):
    VideoPipeline(pipe.tokenizer, 32, 8.0, decoder=build()).save_pretrained(tmp_path)
    module = DiffusionDecoderModule(build(use="read"), "", 10, start_from=str(tmp_path))
    with pytest.raises(ValueError, match="trained with 'refine'"):
        module.on_fit_start()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {"window": 2, "noise_correlation": 0.5, "control": "edges", "dropout": 0.5}),
        ({}, {"objective": DiffusionObjective(), "enlarge": [1, 1], "base_noise": 0.1}),
        ({"temporal": False}, {"causal": True}),
    ],
)
def test_what_only_adds_or_changes_training_is_a_start(theirs, ours):
    """It is not refused, and every weight of the old decoder is the new one's."""
    source, target = build(**theirs), build(**ours)
    for p in source.parameters():
        p.data.normal_()
    require_alike(source, target)
    inflate(source, target)
    found = target.state_dict()
    assert all(torch.equal(found[name], value) for name, value in source.state_dict().items())


@pytest.mark.parametrize("way", [{"trained": "temporal"}, {"adapter_rank": 2}])
def test_a_new_control_that_nothing_trains_is_refused(pipe, tmp_path, way):
    VideoPipeline(pipe.tokenizer, 32, 8.0, decoder=build()).save_pretrained(tmp_path)
    told = {"start_from": str(tmp_path), **way}
    module = DiffusionDecoderModule(build(control="edges"), "", 10, **told)
    with pytest.raises(ValueError, match=r"control is 'edges'.*first with trained: control"):
        module.on_fit_start()


def test_a_control_of_another_kind_is_no_start():
    edges, coarse = build(control="edges"), build(control="low resolution")
    with pytest.raises(ValueError, match=r"control is 'low resolution', but .* 'edges'"):
        require_alike(edges, coarse)
    with pytest.raises(ValueError, match=r"\['control.embed.weight'\] are missing"):
        inflate(edges, coarse)


def test_images_of_one_stride_start_videos_of_another():
    images = DiffusionDecoder(UNet3D([32], [1], temporal=False), 200, [1, 8])
    images.tokens.codes.weight.data.fill_(0.3)
    videos = build()
    inflate(images, videos)
    assert torch.equal(videos.tokens.codes.weight, images.tokens.codes.weight)
    assert not videos.tokens.phases.vectors.any()
