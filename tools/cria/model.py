"""The network of cria in PyTorch: a llama (RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied embeddings).

The arithmetic follows llama.cpp's `llama` architecture, so that a checkpoint can be exported as it is: rotary pairs are
neighbours (llama.cpp's NORM mode), projections have no bias, and the output matrix is the embedding matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. Every row length is a multiple of 32, the block of Q8_0."""

    vocabulary: int = 2048
    layers: int = 4
    width: int = 192
    heads: int = 6
    kv_heads: int = 2
    feed_forward: int = 384
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def head_size(self) -> int:
        return self.width // self.heads


class RMSNorm(nn.Module):
    """Scale to unit root mean square, then by a learned weight (Zhang and Sennrich, 2019)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


def rotary_table(shape: Shape, positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each [positions, head_size / 2], of the rotary embedding (Su et al., 2021)."""
    frequencies = shape.rope_base ** (-torch.arange(0, shape.head_size, 2, dtype=torch.float32) / shape.head_size)
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * frequencies[None, :]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate neighbouring pairs of the last axis; x is [batch, heads, time, head_size]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1).flatten(-2)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention to the past; all [batch, heads, time, head_size].

    Written out because the documents are short: two batched products beat the fused CPU kernel by a third here.
    """
    batch, heads, time, size = q.shape
    past = torch.full((time, time), float("-inf"), dtype=q.dtype).triu(1).expand(batch * heads, time, time)
    q, k, v = (x.reshape(batch * heads, time, size) for x in (q, k, v))
    weights = torch.softmax(torch.baddbmm(past, q * size**-0.5, k.transpose(-1, -2)), dim=-1)
    return torch.bmm(weights, v).view(batch, heads, time, size)


class Block(nn.Module):
    """One layer: attention, then the gated feed-forward, each on a normalised copy of the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, kv_width = shape.width, shape.kv_heads * shape.head_size
        self.shape = shape
        self.attn_norm = RMSNorm(width, shape.norm_epsilon)
        self.attn_q = nn.Linear(width, width, bias=False)
        self.attn_k = nn.Linear(width, kv_width, bias=False)
        self.attn_v = nn.Linear(width, kv_width, bias=False)
        self.attn_output = nn.Linear(width, width, bias=False)
        self.ffn_norm = RMSNorm(width, shape.norm_epsilon)
        self.ffn_gate = nn.Linear(width, shape.feed_forward, bias=False)
        self.ffn_up = nn.Linear(width, shape.feed_forward, bias=False)
        self.ffn_down = nn.Linear(shape.feed_forward, width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        batch, time, width = x.shape
        size = self.shape.head_size
        h = self.attn_norm(x)
        q = rotate(self.attn_q(h).view(batch, time, -1, size).transpose(1, 2), cosine, sine)
        k = rotate(self.attn_k(h).view(batch, time, -1, size).transpose(1, 2), cosine, sine)
        v = self.attn_v(h).view(batch, time, -1, size).transpose(1, 2)
        group = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        a = causal_attention(q, k, v)
        x = x + self.attn_output(a.transpose(1, 2).reshape(batch, time, width))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Cria(nn.Module):
    """Token ids [batch, time] to logits [batch, time, vocabulary]."""

    def __init__(self, shape: Shape, positions: int = 2048) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = RMSNorm(shape.width, shape.norm_epsilon)
        cosine, sine = rotary_table(shape, positions)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        depth_scale = (2 * self.shape.layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.ndim < 2:
                continue
            residual = name.endswith(("attn_output.weight", "ffn_down.weight"))
            nn.init.normal_(weight, std=0.02 * (depth_scale if residual else 1.0))

    def hidden(self, tokens: Tensor) -> Tensor:
        """Final normalised states [batch, time, width]."""
        time = tokens.shape[1]
        x = self.token_embd(tokens)
        cosine, sine = self.cosine[:time], self.sine[:time]  # type: ignore[index]
        for block in self.blk:
            x = block(x, cosine, sine)
        return self.output_norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.hidden(tokens), self.token_embd.weight)
