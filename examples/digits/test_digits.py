"""Quick checks of the model and the split; they run before every training."""

import torch

from prepare import split
from train import DigitNet, fit


def test_no_image_is_used_twice():
    ids = [one for table in split().values() for one in table["id"].to_pylist()]
    assert len(ids) == len(set(ids)) == 1797


def test_answers_are_probabilities_for_any_number_of_rows():
    model = DigitNet().eval()
    for rows in (1, 5):
        answer = model(torch.rand(rows, 64) * 16)
        assert answer.shape == (rows, 10)
        assert torch.allclose(answer.sum(dim=1), torch.ones(rows))


def test_training_learns_and_repeats_exactly():
    pixels, labels = torch.rand(40, 64) * 16, torch.arange(40) % 2
    pixels[labels == 1, :32] = 0
    losses = []
    models = [
        fit(
            pixels, labels, torch.ones(40), epochs=6, learning_rate=0.01, seed=1,
            log=lambda metrics, step: losses.append(metrics["train_loss"]),
        )
        for _ in range(2)
    ]  # fmt: skip
    assert losses[5] < losses[0] / 2
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
