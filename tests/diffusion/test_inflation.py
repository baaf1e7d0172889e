"""From which decoder another may start."""

import pytest
import torch

from diffusion import (
    DiffusionDecoder,
    DiffusionDecoderModule,
    DiffusionObjective,
    LogLinearSchedule,
    UNet3D,
    inflate,
)
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
    "enlarge": {"enlarge": [1, 2]},
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


def test_training_refuses_to_start_from_a_decoder_of_other_settings(pipe, tmp_path):
    VideoPipeline(pipe.tokenizer, 32, 8.0, decoder=build()).save_pretrained(tmp_path)
    module = DiffusionDecoderModule(build(use="read"), "", 10, start_from=str(tmp_path))
    with pytest.raises(ValueError, match="trained with 'refine'"):
        module.on_fit_start()


def test_what_only_adds_or_changes_training_is_no_other_setting():
    require_alike(build(), build(window=2, noise_correlation=0.5, control="edges", dropout=0.5))
    require_alike(build(), build(objective=DiffusionObjective(), enlarge=[1, 1]))
    require_alike(build(temporal=False), build(causal=True))


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
