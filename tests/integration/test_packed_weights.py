"""Layers with packed weights answer as PyTorch's own do, in the environment that serves them."""

import subprocess
from pathlib import Path

from headrace.serving.worker import CHILD

SCRIPT = """
import importlib.util, math, sys
import torch
from torch import nn

spec = importlib.util.spec_from_file_location("packed_layers", sys.argv[1])
packed_layers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(packed_layers)
torch.manual_seed(0)

def packed(module):
    found = packed_layers.Packed(torch)
    known = {id(part) for part in module.modules()}
    found.layers = [one for one in found.layers if id(one) in known]
    found._pack()
    return found

def same(found, call):
    found._use(packed=False)
    expected = call()
    found._use(packed=True)
    return torch.allclose(call(), expected, 1e-5, 1e-5, equal_nan=True)

def padded(tokens):
    mask = torch.zeros(3, tokens, dtype=torch.bool)
    mask[1, tokens // 2 :] = True
    return mask

for options in ({"activation": "gelu"}, {"activation": "relu", "norm_first": True}):
    module = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, **options), 2,
                                   enable_nested_tensor=False).eval()
    found = packed(module)
    assert len(found.layers) == 2, found.layers
    with torch.inference_mode():
        for tokens in (7, 80):
            given, mask = torch.randn(3, tokens, 64), padded(tokens)
            assert same(found, lambda: module(given)), (options, tokens)
            assert same(found, lambda: module(given, src_key_padding_mask=mask)), (options, tokens, "padded")
            assert same(found, lambda: module.layers[0](given, src_key_padding_mask=mask)), (options, tokens, "bool")
            causal = nn.Transformer.generate_square_subsequent_mask(tokens)
            assert same(found, lambda: module(given, mask=causal, is_causal=True)), (options, tokens, "causal")
            mask[2] = True
            assert same(found, lambda: module(given, src_key_padding_mask=mask)), (options, tokens, "padding alone")
        module.layers[0].linear1.weight.mul_(2)
        assert same(found, lambda: module(given)), "weights that changed"
    module(torch.randn(2, 7, 64, requires_grad=True)).sum().backward()

module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8, bias=False)).eval()
found = packed(module)
assert len(found.layers) == 2
with torch.inference_mode():
    for given in (torch.randn(5, 64), torch.randn(2, 3, 64), torch.randn(64), torch.randn(0, 64),
                  torch.randn(64, 5).t()):
        assert same(found, lambda: module(given)), given.shape
    found.most_sizes = len(found.sizes)
    assert same(found, lambda: module(torch.ones(11, 64))), "one size too many"
    assert 11 not in found.sizes
    module[0].weight = nn.Parameter(torch.randn(64, 64))
    assert same(found, lambda: module(torch.ones(2, 64))), "weights that were replaced"
with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
    assert module(torch.ones(2, 64)).dtype is torch.bfloat16

class Own(nn.Linear):
    pass

assert not packed(nn.Sequential(Own(4, 4)).eval()).layers
assert not packed(nn.Linear(4, 4).train()).layers
assert not packed(nn.Linear(4, 4).double().eval()).layers
print("as PyTorch")
"""


def test_packed_layers_answer_as_pytorch_does(component_python: Path) -> None:
    done = subprocess.run(
        [component_python, "-c", SCRIPT, CHILD.with_name("packed_layers.py")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.strip() == "as PyTorch", done.stderr[-3000:]
