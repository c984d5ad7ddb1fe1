"""What packed linear layers answer beside PyTorch's own; run in a component's environment, it prints one JSON line."""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

spec = importlib.util.spec_from_file_location("worker_child", sys.argv[1])
worker_child = importlib.util.module_from_spec(spec)
sys.modules["worker_child"] = worker_child
spec.loader.exec_module(worker_child)

found = {}
linears = worker_child.PackedLinears.here()
if linears is None:
    print(json.dumps({"skipped": "this PyTorch has no oneDNN"}))
    sys.exit()
torch.manual_seed(1)
plain_product = linears._product
products = []
linears._product = lambda *given: products.append(given[3]) or plain_product(*given)


def both(name, ask, expected_products):
    """Note how far the two answers are apart at most, and how many products were oneDNN's."""
    answers = []
    for linears.is_on in (False, True):
        products.clear()
        with torch.inference_mode():
            answers.append(ask())
    apart = (answers[0].float() - answers[1].float()).abs().max().item()
    is_same_kind = answers[0].shape == answers[1].shape and answers[0].dtype == answers[1].dtype
    found[name] = {
        "apart": apart,
        "same_kind": is_same_kind,
        "products": len(products),
        "expected": expected_products,
    }


def layers(**options):
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, **options)
    made = nn.TransformerEncoder(layer, 2, enable_nested_tensor=options.get("norm_first") is None)
    for parameter in made.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return made.eval()


linears.use()
tokens = torch.randn(3, 10, 64)
padding = torch.zeros(3, 10, dtype=torch.bool)
padding[1, 6:] = padding[2, 2:] = True
causal = torch.triu(torch.ones(10, 10, dtype=torch.bool), 1)
for name, options in (
    ("gelu, norm last", {"activation": "gelu"}),
    ("relu, norm first", {"norm_first": True}),
):
    encoder = layers(**options)
    both(f"{name}, no mask", lambda encoder=encoder: encoder(tokens), 8)
    both(f"{name}, attention mask", lambda encoder=encoder: encoder(tokens, mask=causal), 8)
    both(
        f"{name}, both masks",
        lambda encoder=encoder: encoder(tokens, mask=causal, src_key_padding_mask=padding)[~padding],
        8,
    )
both(
    "dense padding",
    lambda: encoder(tokens, src_key_padding_mask=padding)[~padding],
    8,
)
nested = layers()
both("nested tensors stay with PyTorch", lambda: nested(tokens, src_key_padding_mask=padding), 0)

network = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 8, bias=False)).eval()
both("two layers", lambda: network(tokens), 2)
both("one dimension", lambda: network(tokens[0, 0]), 0)
both("no rows", lambda: torch.cat([network(tokens[:0]), network(tokens[:1])]), 2)
both("a slice of another layout", lambda: network(tokens.transpose(0, 1)[2:5]), 2)
network[0].weight.data.mul_(2)
both("a weight that was changed, unseen by PyTorch", lambda: network(tokens), 1)
with torch.no_grad():
    network[2].weight[3, 1] += 5
both("one number of a weight that was changed", lambda: network(tokens), 0)
both("a computed weight", lambda: nn.functional.linear(tokens, network[0].weight * 2), 0)
doubled = nn.Linear(64, 8).double().eval()
both("doubles", lambda: doubled(tokens.double()), 0)


def in_bfloat16():
    with torch.autocast("cpu", torch.bfloat16):
        return network(tokens)


both("autocast", in_bfloat16, 0)
linears.is_on = True
products.clear()
found["gradients"] = {"requires_grad": network(tokens).requires_grad, "products": len(products)}
linears.leave()
found["left"] = nn.functional.linear.__name__ + " " + torch._transformer_encoder_layer_fwd.__name__

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.pt2"
    rows = torch.randn(4, 64)
    exported = torch.export.export(network, (rows,), dynamic_shapes=({0: torch.export.Dim("rows", min=1, max=64)},))
    torch.export.save(exported, path)
    model = worker_child.Model(worker_child.Pt2(str(path), 1))
    batch = worker_child.Batch(4, "array", [("", rows.numpy())], [], {})
    model.inner.prepare(batch)
    expected = model.predict(batch).named[0][1]
    graphs = []
    for given in (linears, None):
        products.clear()
        model.inner.use(given)
        apart = abs(model.predict(batch).named[0][1] - expected).max()
        graphs.append({"apart": float(apart), "products": len(products)})
    found["graph"] = graphs
print(json.dumps(found))
