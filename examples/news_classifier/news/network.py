"""The classifier: a vocabulary of n-gram hashes, one vector for each, their weighted sum, one linear layer."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from news.hashing import KINDS, bags

WEIGHTS, FACTS = "weights.safetensors", "classifier.json"


@dataclass(frozen=True)
class Encoded:
    """A batch of texts as positions in the vocabulary; n-grams outside of it are left out.

    Attributes:
        ids: shape (n-grams,), int64.
        offsets, counts: shape (texts,), int64.
        unknown: shape (texts,), the share of a text's n-grams that the vocabulary lacks; 0 for an empty text.
    """

    ids: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray
    unknown: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets)

    def take(self, rows: np.ndarray) -> "Encoded":
        """Return some of the texts, in the given order."""
        counts = self.counts[rows]
        offsets = np.cumsum(counts) - counts
        places = np.repeat(self.offsets[rows] - offsets, counts) + np.arange(counts.sum())
        return Encoded(self.ids[places], offsets, counts, self.unknown[rows])


@dataclass(frozen=True)
class Vocabulary:
    """The n-grams that at least two training texts have.

    Attributes:
        hashes: shape (n-grams,), uint64, sorted.
        rarity: shape (n-grams,), float32: inverse document frequency.
    """

    hashes: np.ndarray
    rarity: np.ndarray

    def encode(self, texts: Sequence[str]) -> Encoded:
        found = bags(texts)
        places = np.searchsorted(self.hashes, found.hashes)
        places[places == len(self.hashes)] = 0
        is_known = self.hashes[places] == found.hashes if len(self.hashes) else np.zeros(len(places), dtype=bool)
        rows = np.repeat(np.arange(len(texts)), found.counts)[is_known]
        counts = np.bincount(rows, minlength=len(texts)).astype(np.int64)
        unknown = 1 - counts / np.maximum(found.counts, 1)
        unknown[found.counts == 0] = 0
        return Encoded(places[is_known].astype(np.int64), np.cumsum(counts) - counts, counts, unknown)


def learn_vocabulary(texts: Sequence[str], *, fewest_texts: int = 2, kinds: Sequence[str] = KINDS) -> Vocabulary:
    """Return the n-grams of some kinds that stand in at least `fewest_texts` of the texts, with their rarity.

    What the vocabulary lacks is left out of every text, so `kinds` need not be told again.
    """
    found = bags(texts, kinds)
    rows = np.repeat(np.arange(len(texts), dtype=np.uint64), found.counts)
    order = np.lexsort((rows, found.hashes))
    hashes, rows = found.hashes[order], rows[order]
    is_first = np.ones(len(hashes), dtype=bool)
    is_first[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
    kept, texts_with = np.unique(hashes[is_first], return_counts=True)
    is_common = texts_with >= fewest_texts
    rarity = np.log((1 + len(texts)) / (1 + texts_with[is_common])) + 1
    return Vocabulary(kept[is_common], rarity.astype(np.float32))


class NewsNetwork(nn.Module):
    """From encoded texts to one logit for each class."""

    def __init__(self, vocabulary: int, classes: int, *, dim: int = 32) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag(max(vocabulary, 1), dim, mode="sum")
        nn.init.normal_(self.vectors.weight, std=0.05)
        self.answer = nn.Linear(dim, classes)
        self.register_buffer("rarity", torch.ones(max(vocabulary, 1)))

    def forward(self, ids: torch.Tensor, offsets: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Return logits.

        Args:
            ids: shape (n-grams,).
            offsets, counts: shape (texts,).

        Returns:
            Shape (texts, classes); a text without known n-grams gets the bias alone.
        """
        weights = self.rarity[ids]
        rows = torch.repeat_interleave(torch.arange(len(offsets), device=ids.device), counts)
        squares = torch.zeros(len(offsets), device=ids.device).index_add_(0, rows, weights * weights)
        weights = weights * torch.rsqrt(squares.clamp(min=1e-6))[rows]
        return self.answer(self.vectors(ids, offsets, per_sample_weights=weights))


@dataclass(frozen=True)
class Facts:
    """What is needed to build the network again, beside its weights."""

    classes: tuple[str, ...]
    dim: int


class NewsClassifier:
    """Vocabulary, network and class names together: texts in, probabilities out."""

    def __init__(self, vocabulary: Vocabulary, network: NewsNetwork, facts: Facts) -> None:
        self.vocabulary, self.network, self.facts = vocabulary, network.eval(), facts
        self.classes = facts.classes

    def probabilities(self, texts: Sequence[str], *, batch: int = 1024) -> np.ndarray:
        """Return probabilities, shape (texts, classes)."""
        answers = np.zeros((len(texts), len(self.classes)), dtype=np.float32)
        for start in range(0, len(texts), batch):
            found = self.vocabulary.encode(texts[start : start + batch])
            with torch.inference_mode():
                logits = self.network(*(torch.from_numpy(part) for part in (found.ids, found.offsets, found.counts)))
                answers[start : start + batch] = torch.softmax(logits, dim=1).numpy()
        return answers

    def save(self, folder: Path) -> None:
        """Write `weights.safetensors` and `classifier.json`; nothing in them is code."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        # safetensors has no unsigned 64-bit numbers in torch; the bits are kept.
        tensors["vocabulary"] = torch.from_numpy(self.vocabulary.hashes.view(np.int64).copy())
        save_file(tensors, folder / WEIGHTS)
        (folder / FACTS).write_text(json.dumps(asdict(self.facts)))


def load_classifier(folder: Path) -> NewsClassifier:
    """Return a classifier from the two files that `NewsClassifier.save` wrote."""
    found = json.loads((folder / FACTS).read_text())
    tensors = load_file(folder / WEIGHTS)
    hashes = tensors.pop("vocabulary").numpy().view(np.uint64)
    network = NewsNetwork(len(hashes), len(found["classes"]), dim=found["dim"])
    network.load_state_dict(tensors)
    vocabulary = Vocabulary(hashes, tensors["rarity"].numpy())
    return NewsClassifier(vocabulary, network, Facts(tuple(found["classes"]), found["dim"]))
