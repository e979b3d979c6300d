"""A DiT in plain PyTorch, with one projection to queries, keys and values as in the official code."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def positions(width, side):
    """Sines and cosines of the column, then of the row, [N, width]."""
    rates = 1.0 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    place = torch.arange(side, dtype=torch.float64)[:, None] * rates
    along = torch.cat([place.sin(), place.cos()], 1)
    columns = along[None, :, :].expand(side, side, -1)
    rows = along[:, None, :].expand(side, side, -1)
    return torch.cat([columns, rows], 2).reshape(side * side, width).float()


def modulated(x, shift, scale, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    def __init__(self, width, heads, eps):
        super().__init__()
        self.heads, self.eps = heads, eps
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x, c):
        parts = self.modulation(F.silu(c)).chunk(6, 1)
        batch, n, width = x.shape
        qkv = self.qkv(modulated(x, parts[0], parts[1]))
        q, k, v = qkv.reshape(batch, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, n, width)
        x = x + parts[2][:, None] * self.out(h)
        h = self.fc2(F.gelu(self.fc1(modulated(x, parts[3], parts[4], self.eps)), approximate="tanh"))
        return x + parts[5][:, None] * h


class DiT(nn.Module):
    """For configurations with one embedder and without classes."""

    def __init__(self, config):
        super().__init__()
        assert config["shared_embedder"] and config["num_embeds_ada_norm"] == 0 and not config["dropout"]
        heads, self.patch = config["num_attention_heads"], config["patch_size"]
        width = heads * config["attention_head_dim"]
        self.side = config["sample_size"] // self.patch
        self.shift = config.get("freq_shift", 1)
        self.patches = nn.Conv2d(config["in_channels"], width, self.patch, stride=self.patch)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.table = nn.Embedding(1, width)
        blocks = [Block(width, heads, config["norm_eps"]) for _ in range(config["num_layers"])]
        self.blocks = nn.ModuleList(blocks)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, self.patch**2 * config["out_channels"])
        self.grid = None

    def named(self, weights):
        """The weights under the names here, which have the shapes of their own layers."""
        own = {
            "patches": "pos_embed.proj",
            "time.0": "emb.timestep_embedder.linear_1",
            "time.2": "emb.timestep_embedder.linear_2",
            "table": "emb.class_embedder.embedding_table",
            "modulation": "proj_out_1",
            "out": "proj_out_2",
        }
        for i in range(len(self.blocks)):
            block = f"transformer_blocks.{i}"
            own[f"blocks.{i}.modulation"] = f"{block}.norm1.linear"
            own[f"blocks.{i}.out"] = f"{block}.attn1.to_out.0"
            own[f"blocks.{i}.fc1"] = f"{block}.ff.net.0.proj"
            own[f"blocks.{i}.fc2"] = f"{block}.ff.net.2"
        out = {}
        for ours, theirs in own.items():
            for leaf in ("weight", "bias"):
                if f"{theirs}.{leaf}" in weights:
                    out[f"{ours}.{leaf}"] = weights[f"{theirs}.{leaf}"]
        for i in range(len(self.blocks)):
            for leaf in ("weight", "bias"):
                parts = [weights[f"transformer_blocks.{i}.attn1.to_{part}.{leaf}"] for part in "qkv"]
                out[f"blocks.{i}.qkv.{leaf}"] = torch.cat(parts)
        return out

    def forward(self, x, t):
        rates = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32, device=t.device) / (128 - self.shift))
        angles = t[:, None].float() * rates
        dtype = self.table.weight.dtype
        c = self.time(torch.cat([angles.cos(), angles.sin()], 1).to(dtype)) + self.table.weight
        x = self.patches(x.to(dtype)).flatten(2).transpose(1, 2)
        if self.grid is None:
            self.grid = positions(x.shape[2], self.side).to(device=x.device)
        x = x + self.grid.to(x.dtype)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.modulation(F.silu(c)).chunk(2, 1)
        x = self.out(modulated(x, shift, scale))
        pixels = x.reshape(x.shape[0], self.side, self.side, self.patch, self.patch, -1)
        return pixels.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], -1, self.side * self.patch, self.side * self.patch)
