"""Scorers and captioners of one's own: tiny real models, built here, say what they say alone."""

import json
import sys

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from data import curate
from data.captioner import Captioner
from data.episodes import Episode, write_episodes
from data.plugin import find, make
from data.shard_folder import ShardFolder
from data.shards import ShardError
from data.text_area import polygon_area
from data.workers import Event

SCORER = """
class Redness:
    names = ("red", "first_word")
    calls = 0

    def __init__(self, offset):
        self.offset = float(offset)

    def __call__(self, clip, captions):
        type(self).calls += 1
        word = captions[0].split()[0] if captions else ""
        return {"red": self.offset + clip[..., 0].float().mean().item(), "first_word": word}
"""


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Four clips of growing redness in two shards; scorers run in this process."""

    def serially(work, tasks, num_processes):
        while tasks:
            task = tasks.popleft()
            yield Event("done", task, work(task, lambda name: None))

    def episodes(first, last):
        for k in range(first, last):
            frames = np.full((5, 32, 32, 3), 20, np.uint8)
            frames[..., 0] = 40 * k
            frames[:, k] += 10  # or all would be one and the same
            yield Episode(f"clip{k}", frames, captions=(f"word{k} said",) if k else ())

    monkeypatch.setattr(curate, "run", serially)
    write_episodes(tmp_path / "out", episodes, 4, fps=8.0, kind="test", shard_episodes=2)
    (tmp_path / "redness.py").write_text(SCORER)
    monkeypatch.delitem(sys.modules, "redness", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "out"


def scores(shards):
    lines = [p.read_text().splitlines() for p in sorted(shards.glob("*.scores.jsonl"))]
    return [json.loads(line) for shard in lines for line in shard]


def test_a_scorer_named_by_its_path_adds_to_what_is_known(shards):
    curate.main([str(shards)])
    basic = scores(shards)
    curate.main([str(shards), "--scorer=redness.Redness:1000"])
    rows = scores(shards)
    assert [row["red"] for row in rows] == pytest.approx([1000 + 40 * k for k in range(4)], abs=1)
    assert [row["first_word"] for row in rows] == ["", "word1", "word2", "word3"]
    assert [{k: row[k] for k in before} for row, before in zip(rows, basic, strict=True)] == basic
    assert len(ShardFolder(str(shards), min_frames=1, keep="red > 1060")) == 2
    scorer = find("redness.Redness")
    assert scorer.calls == 4
    curate.main([str(shards), "--scorer=redness.Redness:1000"])  # nothing is left to be said
    assert scorer.calls == 4


def test_words_of_a_scorer_can_be_the_captions(shards):
    with pytest.raises(ShardError, match=r"cannot be read"):
        ShardFolder(str(shards), min_frames=1, caption="first_word")
    curate.main([str(shards)])
    with pytest.raises(ShardError, match=r"without 'first_word', but with brightness"):
        ShardFolder(str(shards), min_frames=1, caption="first_word")
    curate.main([str(shards), "--scorer=redness.Redness:0"])
    source = ShardFolder(str(shards), min_frames=1, caption="first_word")
    assert source.captions == ["word1", "word2", "word3"]
    assert source.read(2, 3).caption == "word2"
    assert ShardFolder(str(shards), min_frames=1).read(2, 3).caption == "word2 said"


def test_the_page_shows_the_numbers_of_scorers(shards, tmp_path):
    curate.main([str(shards), "--scorer=redness.Redness:0", f"--page={tmp_path}/page.html"])
    text = (tmp_path / "page.html").read_text()
    assert "<h2>red</h2>" in text
    assert "first_word" not in text


def test_what_is_no_scorer_is_refused_before_a_clip_is_read(shards):
    for spec in ("nowhere.Thing", "redness.Missing", "Redness", "data.scores.score"):
        with pytest.raises(ValueError, match=r"names no scorer|has no `names`"):
            curate.main([str(shards), f"--scorer={spec}"])
    assert not list(shards.glob("*.scores.jsonl"))
    (shards / "shard-000000.scores.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"shard-000000\.scores\.jsonl is broken .*delete it"):
        curate.main([str(shards)])


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    """A captioner without a chat, tiny and random."""
    folder = tmp_path_factory.mktemp("blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "circle", "moving", "left"]
    (folder / "vocab.txt").write_text("\n".join(words))
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2, "projection_dim": 8}
    text = small | {"vocab_size": 10, "encoder_hidden_size": 16, "max_position_embeddings": 80}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = transformers.BlipConfig(
        text_config=text, vision_config=small | {"image_size": 32, "patch_size": 8}
    )
    torch.manual_seed(0)
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    pictures = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    pieces = transformers.BertTokenizer(str(folder / "vocab.txt"))
    transformers.BlipProcessor(pictures, pieces).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A model that is asked in a chat, tiny and random."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("llava")
    words = ["<pad>", "<unk>", "<s>", "</s>", "<image>", "USER", "ASSISTANT", "Describe", "red"]
    known = {word: number for number, word in enumerate(words)}
    plain = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    pieces = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, additional_special_tokens=["<image>"], **special
    )
    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    vision = small | {"num_hidden_layers": 2, "image_size": 32, "patch_size": 16}
    text = small | {"num_hidden_layers": 1, "vocab_size": len(words)}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**vision),
        text_config=transformers.LlamaConfig(**text),
        image_token_id=4,
    )
    torch.manual_seed(0)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    side = {"height": 32, "width": 32}
    transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=side),
        pieces,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=(
            "{% for m in messages %}USER {% for c in m['content'] %}{% if c['type'] == 'image' %}"
            "<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %} ASSISTANT{% endfor %}"
        ),
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def clip():
    return torch.randint(256, (5, 40, 40, 3), generator=torch.Generator().manual_seed(1)).byte()


@pytest.mark.filterwarnings("ignore")  # of transformers' own
def test_a_caption_is_the_models_own_of_the_middle_frame(blip, clip):
    said = Captioner(str(blip))(clip, [])
    model = transformers.BlipForConditionalGeneration.from_pretrained(blip).eval()
    processor = transformers.BlipProcessor.from_pretrained(blip)
    pixels = processor(images=Image.fromarray(clip[2].numpy()), return_tensors="pt")
    pieces = model.generate(**pixels, max_new_tokens=64, do_sample=False)
    (expected,) = processor.batch_decode(pieces, skip_special_tokens=True)
    assert said == {"caption": expected}
    assert expected


@pytest.mark.filterwarnings("ignore")
def test_a_chat_is_asked_and_only_its_answer_kept(llava, clip, monkeypatch):
    captioner = Captioner(str(llava))
    asked = captioner._ask(Image.fromarray(clip[2].numpy()))
    words = captioner.processor.batch_decode(asked["input_ids"])[0].split()
    assert words[0] == "USER"
    assert words.count("<image>") == 4  # one for each of 2 x 2 patches
    assert "Describe" in words
    answer = torch.cat([asked["input_ids"], torch.tensor([[8, 8, 3]])], dim=1)
    monkeypatch.setattr(captioner.model, "generate", lambda **given: answer)
    assert captioner(clip, []) == {"caption": "red red"}
    monkeypatch.undo()
    assert "USER" not in captioner(clip, [])["caption"]


@pytest.mark.filterwarnings("ignore")
def test_captions_are_written_beside_the_shards_and_read_in_training(blip, shards):
    curate.main([str(shards), f"--scorer=data.captioner.Captioner:{blip}"])
    source = ShardFolder(str(shards), min_frames=1, caption="caption")
    alone = Captioner(str(blip))
    for index in range(4):
        sample = source.read(index, 5)
        assert sample.caption == alone(sample.frames, [])["caption"]


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="is no folder of a model; give the local path"):
        make(f"data.captioner.Captioner:{tmp_path}")


def test_areas_of_polygons_are_exact():
    assert polygon_area(np.array([[0, 0], [4, 0], [4, 3], [0, 3]], dtype=float)) == 12
    assert polygon_area(np.array([[0, 0], [0, 3], [4, 0]], dtype=float)) == 6


def test_writing_covers_what_its_box_covers():
    pytest.importorskip("rapidocr")
    from PIL import ImageDraw, ImageFont

    picture = Image.new("RGB", (480, 270), (30, 60, 90))
    font = ImageFont.load_default(60)
    draw = ImageDraw.Draw(picture)
    draw.text((40, 90), "HELLO WORLD", (250, 250, 250), font)
    left, top, right, bottom = draw.textbbox((40, 90), "HELLO WORLD", font)
    written = torch.from_numpy(np.array(picture))
    plain = torch.from_numpy(np.array(Image.new("RGB", (480, 270), (30, 60, 90))))
    scorer = make("data.text_area.TextArea")
    share = (right - left) * (bottom - top) / (480 * 270)
    assert scorer(written[None], [])["text_area"] == pytest.approx(share, rel=0.4)
    assert scorer(plain[None], [])["text_area"] == 0
    mixed = torch.stack([plain, plain, written])
    assert scorer(mixed, []) == scorer(written[None], [])
