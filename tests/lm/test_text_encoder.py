"""Prompts as states of a tiny random T5, made here and read from its folder."""

import pytest
import torch
from torch.utils.data import DataLoader

from data.token_datamodule import TokenBatch
from lm import (
    AutoregressivePrior,
    Condition,
    Inputs,
    MaskGITPrior,
    PriorModule,
    T5TextEncoder,
    Transformer,
)
from pipeline import VideoPipeline
from tests.conftest import quiet_trainer
from training.module import Recipe

transformers = pytest.importorskip("transformers")

PROMPTS = ["a red circle", "a blue square moving up"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = str(tmp_path_factory.mktemp("t5"))
    words = " ".join(PROMPTS).split()
    table = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *dict.fromkeys(words)])}
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=pieces, **special).save_pretrained(path)
    sizes = {"d_model": 12, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 3}
    config = transformers.T5Config(vocab_size=len(table), **sizes)
    transformers.T5EncoderModel(config).save_pretrained(path)
    return path


def new_prior(kind=AutoregressivePrior):
    torch.manual_seed(0)
    network = Transformer(width=32, depth=2, num_heads=2)
    inputs = Inputs(state_size=12, state_window=8)
    prior = kind(network, 200, [5, 4, 4], text_window=0, inputs=inputs)
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return prior.eval()


def test_states_are_those_of_the_model(folder):
    states = T5TextEncoder(folder, window=8).encode([*PROMPTS, ""])
    assert states.shape == (3, 8, 12)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.T5EncoderModel.from_pretrained(folder).eval()
    for prompt, state in zip(PROMPTS, states, strict=False):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        with torch.no_grad():
            expected = model(ids).last_hidden_state[0]
        torch.testing.assert_close(state[: ids.shape[1]], expected, atol=1e-5, rtol=1e-5)
        assert not state[ids.shape[1] :].any()
    assert not states[2].any()


def test_what_cannot_be_read_is_said(folder, tmp_path):
    with pytest.raises(ValueError, match="6 text pieces, but this model reads 5"):
        T5TextEncoder(folder, window=5).encode(["a blue square moving up"])
    with pytest.raises(ValueError, match="no T5 model"):
        T5TextEncoder(str(tmp_path)).encode(["a"])
    with pytest.raises(ValueError, match="reads 8 of 12"):
        new_prior().prefix(Condition([[]], states=torch.zeros(1, 8, 11)))


@pytest.mark.parametrize("kind", [AutoregressivePrior, MaskGITPrior])
def test_prompts_steer_and_are_dropped_whole(folder, kind):
    prior, states = new_prior(kind), T5TextEncoder(folder, window=8).encode(PROMPTS)
    tokens = torch.randint(200, (2, 5, 4, 4), generator=torch.Generator().manual_seed(0))

    def loss(condition, drop=None):
        return prior.loss(tokens, condition, drop, torch.Generator().manual_seed(0)).item()

    told, bare = Condition([[], []], states=states), Condition([[], []])
    assert loss(told) != loss(bare)
    assert loss(told) != loss(Condition([[], []], states=states.flip(0)))
    assert loss(told, torch.tensor([True, True])) == loss(bare)
    sides = told.with_bare()
    assert len(sides) == 4
    assert torch.equal(sides.states, torch.cat([states, torch.zeros_like(states)]))


# Without the command line, Lightning warns that networks are saved as hyperparameters too.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [AutoregressivePrior, MaskGITPrior])
def test_a_trained_prior_makes_what_its_prompts_say(folder, tmp_path, tiny_tokenizer, kind):
    """Each prompt has a clip of one token over and over; the text encoder stays as it is."""
    VideoPipeline(tiny_tokenizer, 32, 8.0).save_pretrained(tmp_path)
    torch.manual_seed(0)
    inputs = Inputs(state_size=12, state_window=8)
    network = Transformer(width=32, depth=2, num_heads=2)
    prior = kind(network, 200, [5, 4, 4], text_window=0, inputs=inputs)
    encoder = T5TextEncoder(folder, window=8)
    recipe = Recipe(learning_rate=0.01, warmup_steps=5)
    module = PriorModule(prior, str(tmp_path), 80, 0.0, recipe, text_encoder=encoder)
    before = encoder.encode(PROMPTS)
    tokens = torch.tensor([3, 150])[:, None, None, None].expand(2, 5, 4, 4)
    loader = DataLoader([TokenBatch(tokens, PROMPTS, ())] * 80, batch_size=None)  # type: ignore[arg-type]
    trainer = quiet_trainer(tmp_path)
    trainer.fit(module, loader)
    assert torch.equal(encoder.encode(PROMPTS), before)
    condition = Condition([[], []], states=encoder.encode(PROMPTS[::-1]))
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    made = prior.eval().sample(condition, generators)
    assert (made == tokens.flip(0)).float().mean() > 0.95


def test_a_model_folder_names_its_text_encoder(folder, tmp_path, tiny_tokenizer):
    encoder = T5TextEncoder(folder, window=8)
    made = VideoPipeline(tiny_tokenizer, 32, 8.0, new_prior(), text_encoder=encoder)
    made.save_pretrained(tmp_path / "model")
    loaded = VideoPipeline.from_pretrained(tmp_path / "model")
    videos = made.generate(PROMPTS)
    assert torch.equal(loaded.generate(PROMPTS), videos)
    assert not torch.equal(loaded.generate(PROMPTS[::-1]), videos)
    assert loaded.generate().shape == (1, 17, 32, 32, 3)
