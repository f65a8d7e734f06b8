from functools import partial

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from quadrant_lstm.model.classifier import Classifier


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4 * 4, 3)

    def forward(self, frames):
        return self.linear(frames.flatten(1))


def batches(frames, labels, size) -> DataLoader:
    pairs = list(zip(frames.split(size), labels.split(size), strict=True))
    return DataLoader(pairs, batch_size=None, collate_fn=tuple)


def trainer(**options) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def test_metrics_are_means_over_images_not_over_batches():
    torch.manual_seed(0)
    frames, labels = torch.randn(10, 4, 1, 2, 2), torch.randint(0, 3, (10,))
    classifier = Classifier(Flat(), partial(torch.optim.SGD, lr=0.1), (1, 2, 2), 3)
    trainer().test(classifier, batches(frames, labels, 7), verbose=False)
    with torch.no_grad():
        logits = classifier(frames)
    results = classifier.test_results()
    assert results["test/images"] == 10
    assert results["test/accuracy"] == (logits.argmax(1) == labels).sum().item() / 10
    assert abs(results["test/loss"] - cross_entropy(logits, labels).item()) < 1e-6
    for true in range(3):
        for said in range(3):
            assert classifier.test_confusion[true, said] == ((labels == true) & (logits.argmax(1) == said)).sum()


def test_a_training_step_is_that_of_a_bare_loop():
    torch.manual_seed(0)
    frames, labels = torch.randn(30, 4, 1, 2, 2), torch.randint(0, 3, (30,))
    classifier = Classifier(Flat(), partial(torch.optim.Adam, lr=0.1), (1, 2, 2), 3)
    bare = Flat()
    bare.load_state_dict(classifier.network.state_dict())
    optimizer = torch.optim.Adam(bare.parameters(), lr=0.1)
    for batch, target in zip(frames.split(8), labels.split(8), strict=True):
        optimizer.zero_grad()
        cross_entropy(bare(batch), target).backward()
        optimizer.step()
    trainer(max_epochs=1, log_every_n_steps=1).fit(classifier, batches(frames, labels, 8))
    torch.testing.assert_close(classifier.network.linear.weight, bare.linear.weight)
