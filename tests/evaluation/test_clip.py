"""CLIP from a folder, tiny and random: the same numbers as the library's own forward."""

import pytest
import torch
import transformers

from evaluation.clip import Alignment, CLIPFeatures, TextSimilarity, text_similarity
from evaluation.perception import consistency

WORDS = ["red", "circle", "blue", "square"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2, "projection_dim": 8}
    text = small | {"vocab_size": 8, "bos_token_id": 5, "eos_token_id": 6, "pad_token_id": 7}
    config = transformers.CLIPConfig(
        text_config=text,
        vision_config=small | {"image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    path = tmp_path_factory.mktemp("clip") / "tiny"
    transformers.CLIPModel(config).eval().save_pretrained(path)
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = {word: i for i, word in enumerate([*WORDS, "<unk>", "<s>", "</s>", "<pad>"])}
    words = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 5), ("</s>", 6)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", bos_token="<s>"
    ).save_pretrained(path)
    return path


@pytest.fixture
def clip():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, 32, 32, 3), generator=generator).byte()


def test_similarity_is_the_librarys_logits(folder, clip):
    encoder, captions = CLIPFeatures(folder), ["red circle", "blue square red"]
    frames, texts = encoder.frames(clip), encoder.texts(captions)
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    pixels = (clip.flatten(0, 1).permute(0, 3, 1, 2) / 255 - mean) / std
    pieces = encoder.tokenizer(captions, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = encoder.model(pixel_values=pixels, **pieces)
    cosines = out.logits_per_image / encoder.model.logit_scale.exp()
    expected = 100 * torch.stack([cosines[:3, 0], cosines[3:, 1]]).double()
    torch.testing.assert_close(text_similarity(frames, texts), expected, rtol=1e-4, atol=1e-4)
    metric = TextSimilarity(encoder)
    metric.update(clip[:1], captions[:1])
    metric.update(clip[1:], captions[1:])
    assert metric.compute().item() == pytest.approx(expected.mean().item(), abs=1e-4)


MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def test_frames_of_any_shape_are_resized_and_a_still_clip_is_consistent(folder):
    wide = torch.full((1, 2, 48, 80, 3), 99, dtype=torch.uint8)
    features = CLIPFeatures(folder).frames(wide)
    assert features.shape == (1, 2, 8)
    assert consistency(features).item() == pytest.approx(1)


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"model\.safetensors is no file; give the local path"):
        CLIPFeatures(tmp_path)


def test_a_scorer_says_how_well_the_best_caption_fits(folder, clip):
    scorer, encoder = Alignment(str(folder)), CLIPFeatures(folder)
    captions = ["red circle", "", "blue square red"]
    expected = [encoder.similarity(clip[:1], [words]).mean().item() for words in captions[::2]]
    found = scorer(clip[0], captions)
    assert scorer.names == (*found,)
    assert found["alignment"] == pytest.approx(max(expected), abs=1e-4)
    assert scorer(clip[0], [""]) == {"alignment": 0.0}
