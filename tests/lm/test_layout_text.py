"""Layouts are text: where a caption says that a box is, there the prior puts it."""

import torch

from lm import AutoregressivePrior, Condition, Sampling, TextTokenizer, Transformer

SIDE = 3
PLACES = [(row, column) for row in range(SIDE) for column in range(SIDE)]
LAYOUTS = [f"circle, row {row}, column {column}" for row, column in PLACES]


def test_a_layout_in_words_puts_the_object_where_it_says():
    torch.manual_seed(0)
    text = TextTokenizer.train(LAYOUTS, 300)
    texts = [text.encode(layout) for layout in LAYOUTS]
    truth = torch.zeros(len(PLACES), 1, SIDE, SIDE, dtype=torch.long)
    for number, (row, column) in enumerate(PLACES):
        truth[number, 0, row, column] = 1
    prior = AutoregressivePrior(
        Transformer(width=32, depth=2, num_heads=2), 2, [1, SIDE, SIDE], text_size=300
    )
    optimizer = torch.optim.Adam(prior.parameters(), 0.003)
    for _ in range(400):
        optimizer.zero_grad()
        prior.loss(truth, Condition(texts)).backward()
        torch.nn.utils.clip_grad_norm_(prior.parameters(), 0.5)
        optimizer.step()
    generators = [torch.Generator().manual_seed(i) for i in range(len(PLACES))]
    made = prior.eval().sample(Condition(texts), generators, sampling=Sampling(temperature=0.0))
    assert torch.equal(made, truth)
