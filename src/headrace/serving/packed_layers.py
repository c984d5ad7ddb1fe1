"""The linear layers of a model's torch modules, with weights laid out once as the processor wants them.

Beside `worker_child` and like it without any dependency on headrace; loaded where a `python_function` model uses torch.
"""

from __future__ import annotations

import gc
import math
import time
from typing import Any

#: A forward below this is not worth another way of doing it.
WORTH_MS = 2.0
#: How often the two ways are compared, or for how long: cheap forwards more often, and those of seconds once.
ROUNDS, SHORTEST_S, LONGEST_S = 3, 0.2, 1.0
#: Packed weights are kept beside the model's own, so not more of them than this.
PACKED_BYTES = 512 << 20
#: How many products oneDNN keeps the code of; each number of rows and each shape of weights takes one.
KEPT_PRODUCTS = 1000
#: Up to so many tokens attention is quicker as plain products than in torch's fused kernel.
SHORT_TOKENS = 64


class Packed:
    """Layers that were found in this process, and the quicker way of computing them.

    PyTorch keeps weights as they were trained and lays them out anew for each product. Only exact types are taken,
    found in the process after loading: what a class of the user's own does is not known here. A layer does as it always
    did when it is given anything but plain numbers, or its weights have changed.

    Attributes:
        layers: those in use; none where packing did not pay.
    """

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.layers: list[Any] = []
        self.forwards: list[Any] = []
        #: Numbers of rows whose products are known, and how many such numbers there may be.
        self.sizes: set[int] = set()
        self.most_sizes = 0
        if torch.backends.mkldnn.is_available():
            kinds = (torch.nn.Linear, torch.nn.TransformerEncoderLayer)
            # Now: what is frozen later is out of the collector's sight.
            self.layers = [one for one in gc.get_objects() if type(one) in kinds and not one.training]

    def choose(self, predict: Any, same_answers: Any) -> None:
        """Keep the layers' packed forwards if `predict`, which returns answers, gives the same ones for less CPU.

        Args:
            same_answers: tells of two results of `predict` whether they are the same.
        """
        before = after = math.inf
        try:
            if not self.layers or min(_cpu_ms(predict) for _ in range(2)) < WORTH_MS:
                self.layers = []
                return
            plain = predict()
            self._pack()
            if not self.layers:
                return
            self._use(packed=True)
            same = same_answers(predict(), plain)
            # The best of each, in turn: others on the machine make single times longer, never shorter.
            done, begun, passed = 0, time.perf_counter(), 0.0
            while same and (not done or passed < (SHORTEST_S if done >= ROUNDS else LONGEST_S)):
                after = min(after, _cpu_ms(predict))
                self._use(packed=False)
                before = min(before, _cpu_ms(predict))
                self._use(packed=True)
                done, passed = done + 1, time.perf_counter() - begun
        except Exception:  # noqa: BLE001 - any failure of the quick way means the plain one, which tells of its own
            same = False
        found = f"{after:.1f} ms of CPU with packed weights in {len(self.layers)} layers, {before:.1f} ms without"
        if same and after < before:
            print(f"{found}.")
            return
        print(f"{found}{'' if same else '; other answers'}: they stay as they are.")
        self._use(packed=False)
        self.layers, self.forwards = [], []

    def _use(self, *, packed: bool) -> None:
        for layer, forward in zip(self.layers, self.forwards, strict=False):
            if packed:
                layer.forward = forward
            else:
                layer.__dict__.pop("forward", None)

    def _pack(self) -> None:
        encoders = [one for one in self.layers if hasattr(one, "self_attn") and self._is_known(one)]
        inside = {id(part) for one in encoders for part in one.modules()}
        linears = [one for one in self.layers if not hasattr(one, "self_attn") and id(one) not in inside]
        size = 0
        for layer in [*encoders, *linears]:
            weights = self._weights(layer)
            size += sum(weight.nbytes for weight in weights)
            if size > PACKED_BYTES or not all(
                weight.dtype is self.torch.float32 and weight.device.type == "cpu" and not weight.is_inference()
                for weight in weights
            ):
                self.layers = []
                return
        self.layers = [*encoders, *linears]
        shapes = {weight.shape for layer in self.layers for weight in self._weights(layer)}
        self.most_sizes = KEPT_PRODUCTS // max(len(shapes), 1)
        with self.torch.no_grad():
            self.forwards = [self._encoder(one) for one in encoders] + [self._linear(one) for one in linears]

    def _is_known(self, layer: Any) -> bool:
        nn, attention = self.torch.nn, layer.self_attn
        return (
            attention.batch_first
            and attention._qkv_same_embed_dim
            and attention.in_proj_bias is not None
            and attention.bias_k is None
            and not attention.add_zero_attn
            and layer.activation_relu_or_gelu in (1, 2)
            and not any(part._forward_hooks or part._forward_pre_hooks for part in layer.modules())
            and [type(part) for part in (layer.norm1, layer.norm2, layer.linear1, layer.linear2)]
            == [nn.LayerNorm, nn.LayerNorm, nn.Linear, nn.Linear]
        )

    @staticmethod
    def _weights(layer: Any) -> list[Any]:
        if not hasattr(layer, "self_attn"):
            return [layer.weight]
        attention = layer.self_attn
        return [attention.in_proj_weight, attention.out_proj.weight, layer.linear1.weight, layer.linear2.weight]

    def _product(self, weight: Any) -> tuple[Any, Any]:
        """Return a product with packed weights, and whether they still are what the model would use for a tensor."""
        torch, version = self.torch, weight._version
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        multiply = torch.ops.mkldnn._linear_pointwise.default

        def product(given: Any, bias: Any, then: str = "none") -> Any:
            return multiply(given, packed, bias, then, [], "none" if then == "gelu" else "")

        def is_current(now: Any) -> bool:
            return now is weight and weight._version == version

        return product, is_current

    def _is_plain(self, given: Any) -> bool:
        torch = self.torch
        return (
            type(given) is torch.Tensor
            and given.dtype is torch.float32
            and given.device.type == "cpu"
            and given.layout is torch.strided
            and not given.is_nested
            and given.dim() > 1
            and given.numel() > 0
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and self._is_kept(given.numel() // given.shape[-1])
        )

    def _is_kept(self, rows: int) -> bool:
        """Tell whether products of so many rows are packed: code for each is made once, in half a millisecond."""
        if rows not in self.sizes:
            if len(self.sizes) >= self.most_sizes:
                return False
            self.sizes.add(rows)
        return True

    def _linear(self, layer: Any) -> Any:
        own = layer.forward
        product, is_current = self._product(layer.weight)

        def forward(given: Any) -> Any:
            if is_current(layer.weight) and self._is_plain(given):
                return product(given, layer.bias)
            return own(given)

        return forward

    def _encoder(self, layer: Any) -> Any:
        torch, own, attention = self.torch, layer.forward, layer.self_attn
        products, checks = zip(*(self._product(weight) for weight in self._weights(layer)), strict=True)
        into, out, wide, narrow = products
        then = "relu" if layer.activation_relu_or_gelu == 1 else "gelu"

        def is_plain(given: Any) -> bool:
            known = zip(checks, self._weights(layer), strict=True)
            return self._is_plain(given) and given.dim() == 3 and all(check(weight) for check, weight in known)

        def attend(given: Any, mask: Any) -> Any:
            rows, tokens, width = given.shape
            parts = into(given, attention.in_proj_bias).view(rows, tokens, 3, attention.num_heads, -1)
            seen = self._attention(parts.permute(2, 0, 3, 1, 4), mask)
            return out(seen.transpose(1, 2).reshape(rows, tokens, width), attention.out_proj.bias)

        def feed(given: Any) -> Any:
            return narrow(wide(given, layer.linear1.bias, then), layer.linear2.bias)

        def forward(src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False) -> Any:
            mask = src_key_padding_mask
            is_ours = src_mask is None and not is_causal and not layer.training and is_plain(src)
            if is_ours and mask is not None:
                mask = src.new_zeros(mask.shape).masked_fill_(mask, -math.inf) if mask.dtype is torch.bool else mask
                # What is padding alone has no answer of its own; the layer's is kept.
                is_ours = mask.dtype is src.dtype and bool(mask.amax(-1).min() > -math.inf)
            if not is_ours:
                return own(src, src_mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=is_causal)
            if layer.norm_first:
                given = attend(layer.norm1(src), mask).add_(src)
                return feed(layer.norm2(given)).add_(given)
            given = layer.norm1(attend(src, mask).add_(src))
            return layer.norm2(feed(given).add_(given))

        return forward

    def _attention(self, parts: Any, mask: Any) -> Any:
        """Return (rows, heads, tokens, width) of queries, keys and values; `mask` is added to each row's tokens."""
        torch = self.torch
        _, rows, heads, tokens, width = parts.shape
        if tokens > SHORT_TOKENS:
            mask = None if mask is None else mask[:, None, None, :].expand(rows, heads, tokens, tokens)
            return torch.nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask)
        query, key, value = parts.contiguous().view(3, rows * heads, tokens, width)
        score = torch.baddbmm(query.new_zeros(1, 1, 1), query, key.mT, beta=0, alpha=width**-0.5)
        if mask is not None:
            score.view(rows, heads, tokens, tokens).add_(mask[:, None, None, :])
        return torch.bmm(score.softmax(-1), value).view(rows, heads, tokens, width)


def _cpu_ms(function: Any) -> float:
    """Return what a call costs; of the time that passes others have their part."""
    start = time.process_time()
    function()
    return (time.process_time() - start) * 1000
