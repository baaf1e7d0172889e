"""What a prior is told beside text: where it stands, what it changes, what is refused."""

import pytest
import torch

from lm import AutoregressivePrior, Condition, Guide, Inputs, MaskGITPrior, Sampling, Transformer
from lm.actions import NONE, by_latent_frame, to_bins
from lm.condition import class_numbers

GENERATOR = torch.Generator().manual_seed(0)
TOKENS = torch.randint(17, (2, 3, 2, 2), generator=GENERATOR)
GUIDE = Guide(torch.randint(17, (2, 1, 2, 2), generator=GENERATOR), start=2)
ACTIONS = torch.randint(4, (2, 3, 2, 2), generator=GENERATOR)
ACTIONS[:, 0] = NONE
FEATURES = torch.randn(2, 3, 5, generator=GENERATOR)
EVERYTHING = Condition([[3, 1, 4], [1]], "interpolate", [2, None], ACTIONS, GUIDE, FEATURES)
INPUTS = {
    "tasks": ["generate", "interpolate", "inpaint"],
    "num_classes": 3,
    "action_ranges": [[-1.0, 1.0], [0.0, 2.0]],
    "action_bins": 4,
    "feature_size": 5,
}


def new_prior(kind=AutoregressivePrior, inputs=INPUTS):
    torch.manual_seed(0)
    prior = kind(
        Transformer(width=32, depth=2, num_heads=2),
        codebook_size=17,
        grid=[3, 2, 2],
        text_size=9,
        text_window=4,
        inputs=Inputs(**inputs),
    )
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return prior.eval()


@pytest.fixture(params=[AutoregressivePrior, MaskGITPrior], ids=["autoregressive", "masked"])
def prior(request):
    return new_prior(request.param)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def loss(prior, condition, drop=None):
    return prior.loss(TOKENS, condition, drop, torch.Generator().manual_seed(0)).item()


def test_the_sequence_is_the_one_that_is_written_down():
    """Vectors and positions one by one, against the logits of the whole."""
    prior = new_prior()
    pad, bos, video, _, generate = range(5)
    interpolate, first_text = generate + 1, generate + 3
    first_class, first_action = first_text + 9, first_text + 9 + 3
    words, codes = prior.embedding.weight, prior.codes()
    head = [bos, interpolate, first_class + 2, *[first_text + piece for piece in (3, 1, 4)], pad]
    x = [words[number] for number in head]
    places = [(k, k, k) for k in range(7)]
    origin = 8
    for h in range(2):
        for w in range(2):
            x.append(codes[GUIDE.tokens[0, 0, h, w]] + prior.guide.mark)
            places.append((origin + 2, origin + h, origin + w))
    for k in range(3):
        x.append(prior.features.weight @ FEATURES[0, k])
        places.append((origin + k,) * 3)
    x.append(words[video])
    places.append((7, 7, 7))
    predicted = []
    for t in range(3):
        for s in range(2):
            for a in range(2):
                number = first_action + 4 * a + int(ACTIONS[0, t, s, a]) if t else pad
                x.append(words[number])
                places.append((origin + t, origin + s, origin + a))
        for h in range(2):
            for w in range(2):
                predicted.append(len(x) - 1)
                x.append(codes[TOKENS[0, t, h, w]])
                places.append((origin + t, origin + h, origin + w))
    table = prior.transformer.rotary_table(torch.tensor(places))
    states = prior.transformer(torch.stack(x)[None], table)[0, predicted]
    ours = prior.logits(TOKENS, EVERYTHING)[0]
    torch.testing.assert_close(ours, states @ prior.output_table().T)


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("known", [0, 1, 2])
def test_what_is_sampled_is_what_is_trained(known, scale):
    """The likeliest token at each place, given those before, is the greedy one."""
    prior, context = new_prior(), TOKENS[:, :known]
    sampling = Sampling(guidance_scale=scale, temperature=0.0)
    greedy = prior.sample(EVERYTHING, generators(1, 2), sampling=sampling, context=context)
    both = prior.logits(greedy.repeat(2, 1, 1, 1), EVERYTHING.with_bare())
    logits = both[2:] + scale * (both[:2] - both[2:])
    assert torch.equal(greedy[:, :known], context)
    expected = logits.argmax(-1).view_as(greedy)
    assert torch.equal(greedy[:, known:], expected[:, known:])


def test_an_action_changes_no_frame_before_the_one_it_leads_to():
    prior = new_prior()
    before = prior.logits(TOKENS, EVERYTHING)
    changed = ACTIONS.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 4
    after = prior.logits(TOKENS, Condition(**{**vars(EVERYTHING), "actions": changed}))
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.isclose(before[:, 8:], after[:, 8:]).all(-1).any()


@pytest.mark.parametrize("name", ["texts", "task", "classes", "actions", "guide", "features"])
def test_every_input_is_read(prior, name):
    other = {
        "texts": [[3, 1, 5], [2]],
        "task": "inpaint",
        "classes": [1, 0],
        "actions": ACTIONS.where(ACTIONS < 0, 3 - ACTIONS),
        "guide": Guide(GUIDE.tokens, start=1),
        "features": -FEATURES,
    }
    changed = Condition(**{**vars(EVERYTHING), name: other[name]})
    assert loss(prior, EVERYTHING) != loss(prior, changed)


def test_features_may_be_of_any_precision(prior):
    double = Condition(**{**vars(EVERYTHING), "features": FEATURES.double()})
    assert loss(prior, double) == loss(prior, EVERYTHING)
    assert prior.bfloat16().lead(double).dtype == torch.bfloat16


def test_a_class_is_meant_by_its_name_before_its_number():
    assert class_numbers(["10", "2", 1, "a", "7"], ["1", "10", "2", "a"]) == [1, 2, 1, 3, 7]
    assert class_numbers(None, ["a"]) is None
    with pytest.raises(ValueError, match="'b' is no class of this model; it knows a"):
        class_numbers(["b"], ["a"])


def test_under_a_hole_nothing_is_read(prior):
    hole = torch.zeros_like(GUIDE.tokens, dtype=torch.bool)
    hole[:, 0, 1, 1] = True
    for place, same in (((0, 1, 1), True), ((0, 0, 1), False)):
        tokens = GUIDE.tokens.clone()
        tokens[:, *place] = (tokens[:, *place] + 1) % 17
        losses = [
            loss(prior, Condition([[], []], "inpaint", guide=Guide(one, hole), features=FEATURES))
            for one in (tokens, GUIDE.tokens)
        ]
        assert (losses[0] == losses[1]) == same


def test_guidance_leaves_out_text_and_class_alone(prior):
    drop = torch.tensor([True, False])
    bare = Condition([[], [1]], "interpolate", [None, None], ACTIONS, GUIDE, FEATURES)
    assert loss(prior, EVERYTHING, drop) == loss(prior, bare) != loss(prior, EVERYTHING)


def test_a_sample_does_not_depend_on_its_batch(prior):
    batch = prior.sample(EVERYTHING, generators(5, 6), sampling=Sampling(2.0))
    guide = Guide(GUIDE.tokens[1:], start=2)
    second = Condition([[1]], "interpolate", [None], ACTIONS[1:], guide, FEATURES[1:])
    assert torch.equal(batch[1:], prior.sample(second, generators(6), sampling=Sampling(2.0)))


def test_a_guide_of_another_tokenizer_lies_on_its_own_coarser_grid():
    prior = new_prior(inputs=INPUTS | {"guide_codebook_size": 50})
    guide = Guide(torch.tensor([49, 3]).view(2, 1, 1, 1), step=2)
    assert loss(prior, Condition([[], []], "inpaint", guide=guide, features=FEATURES)) > 0
    coarse = Guide(torch.zeros(1, 1, 2, 2, dtype=torch.long), step=2)
    places = prior.lead_places(Condition([[]], "inpaint", guide=coarse))[7:-1]
    assert (places - 8).tolist() == [[0, 0, 0], [0, 0, 2], [0, 2, 0], [0, 2, 2]]


def test_every_parameter_gets_a_gradient(prior):
    hole = GUIDE.tokens > 8
    guide = Guide(GUIDE.tokens, hole, GUIDE.start)
    condition = Condition(**{**vars(EVERYTHING), "guide": guide})
    prior.loss(TOKENS, condition, generator=torch.Generator().manual_seed(0)).backward()
    missing = [n for n, p in prior.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def test_without_inputs_nothing_is_added_to_what_older_folders_hold():
    prior = new_prior(inputs={})
    assert len(prior.embedding.weight) == 5 + 9
    parts = {name.split(".")[0] for name in prior.state_dict()}
    assert parts == {"transformer", "embedding", "codes", "head"}


def test_bins_have_equal_width_and_hold_both_ends():
    actions = torch.tensor([[[-1.0, 0.0], [-0.51, 0.99], [0.0, 1.0], [1.0, 2.0]]])
    bins = to_bins(actions, INPUTS["action_ranges"], 4)
    assert bins.tolist() == [[[0, 0], [0, 1], [2, 2], [3, 3]]]


def test_whole_numbers_have_the_bins_they_have_as_floats():
    whole, ranges = torch.arange(-3, 4).view(1, 7, 1), [[-3.5, 3.5]]
    assert torch.equal(to_bins(whole, ranges, 14), to_bins(whole.double(), ranges, 14))


def test_actions_stand_at_the_latent_frame_they_lead_to():
    bins = torch.arange(9).view(1, 9, 1)  # row k leads to frame k
    grouped = by_latent_frame(bins, 4)
    assert grouped[0, :, :, 0].tolist() == [[NONE] * 4, [1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (torch.zeros(1, 2, 3), "3 dimensions"),
        (torch.tensor([[[0.0, 0.0], [0.0, 2.5]]]), "at frame 1 is 2.5 in dimension 1"),
        (torch.tensor([[[torch.nan, 0.0]]]), "at frame 0 is nan"),
    ],
)
def test_actions_out_of_range_are_refused(actions, words):
    with pytest.raises(ValueError, match=words):
        to_bins(actions, INPUTS["action_ranges"], 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "upscale"}, "trained for generate, interpolate, inpaint"),
        ({"guide": None}, "'interpolate' needs a guide"),
        ({"task": "generate"}, "'generate' has no guide"),
        ({"classes": [3, 0]}, "knows 3 classes"),
        ({"classes": [-1, 0]}, "class -1"),
        ({"classes": [1]}, "different numbers of clips"),
        ({"actions": ACTIONS + 1}, "bins from 0 to 4"),
        ({"actions": ACTIONS - 3}, "bins from -[34] to"),
        ({"actions": ACTIONS[..., :1]}, "1 dimensions"),
        ({"actions": ACTIONS[:, :2]}, "actions lead to 2"),
        ({"features": FEATURES[..., 1:]}, "4 numbers a row"),
        ({"features": FEATURES / 0}, "nan or infinite"),
        ({"features": None}, "reads features; give a row of 5 numbers for each latent frame"),
    ],
)
def test_a_condition_that_cannot_be_is_refused_before_anything_is_drawn(prior, changes, words):
    condition = Condition(**{**vars(EVERYTHING), **changes})
    with pytest.raises(ValueError, match=words):
        prior.sample(condition, generators(1, 2))


def test_a_prior_without_inputs_says_what_it_cannot_be_told():
    for condition, words in (
        (Condition([[]], classes=[0]), "knows 0 classes"),
        (Condition([[]], actions=ACTIONS[:1]), "without actions"),
        (Condition([[]], "caption", guide=Guide(TOKENS[:1])), "trained for generate;"),
        (Condition([[]], features=FEATURES[:1]), "trained with 0"),
    ):
        with pytest.raises(ValueError, match=words):
            new_prior(inputs={}).sample(condition, generators(1))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"tasks": []}, "name one or more"),
        ({"tasks": ["inpaint", "inpaint"]}, "each once"),
        ({"action_ranges": [[1.0, 1.0]]}, "least value first"),
        ({"action_bins": 1}, "needs 2 or more"),
    ],
)
def test_inputs_that_cannot_be_are_refused(inputs, words):
    with pytest.raises(ValueError, match=words):
        Inputs(**inputs)
