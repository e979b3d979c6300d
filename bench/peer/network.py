"""The ADM U-Net in plain PyTorch, with the key names of the public checkpoints."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class GroupNorm(nn.GroupNorm):
    def __init__(self, channels, groups=32):
        super().__init__(groups, channels)


class ResBlock(nn.Module):
    def __init__(self, c_in, c_out, emb, resample, groups=32):
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(GroupNorm(c_in, groups), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, 2 * c_out))
        self.out_layers = nn.Sequential(
            GroupNorm(c_out, groups), nn.SiLU(), nn.Identity(), nn.Conv2d(c_out, c_out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def resize(self, x):
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return x

    def forward(self, x, emb):
        norm, act, conv = self.in_layers
        h = conv(self.resize(act(norm(x))))
        x = self.resize(x)
        scale, shift = self.emb_layers(emb)[:, :, None, None].chunk(2, 1)
        norm, act, _, conv = self.out_layers
        h = conv(act(norm(h) * (1 + scale) + shift))
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    def __init__(self, channels, heads, groups=32):
        super().__init__()
        self.heads = heads
        self.norm = GroupNorm(channels, groups)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        batch, channels, *size = x.shape
        flat = x.reshape(batch, channels, -1)
        qkv = self.qkv(self.norm(flat))
        width = channels // self.heads
        # Head by head, query, key and value side by side.
        q, k, v = qkv.reshape(batch, self.heads, 3 * width, -1).transpose(2, 3).split(width, 3)
        out = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(batch, channels, -1)
        return (flat + self.proj_out(out)).reshape(x.shape)


class Block(nn.Sequential):
    def forward(self, x, emb):
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class UNet(nn.Module):
    """For configurations with scale-shift norms and resampling in residual blocks."""

    def __init__(self, config):
        super().__init__()
        assert config["use_scale_shift_norm"] and config["resblock_updown"] and not config["dropout"]
        base = config["model_channels"]
        emb, groups = 4 * base, config["norm_groups"]
        widths = [int(base * m) for m in config["channel_mult"]]
        per_level = config["num_res_blocks"]
        self.base = base

        def residual(c_in, c_out, resample="none"):
            return ResBlock(c_in, c_out, emb, resample, groups)

        def attention(channels):
            width = config["num_head_channels"]
            return AttentionBlock(channels, channels // width if width > 0 else config["num_heads"], groups)

        def attends(level):
            return 2**level in config["attention_resolutions"]

        self.time_embed = nn.Sequential(nn.Linear(base, emb), nn.SiLU(), nn.Linear(emb, emb))
        channels = widths[0]
        self.input_blocks = nn.ModuleList([Block(nn.Conv2d(config["in_channels"], channels, 3, padding=1))])
        skips = [channels]
        for level, width in enumerate(widths):
            for _ in range(per_level):
                layers = [residual(channels, width)] + ([attention(width)] if attends(level) else [])
                self.input_blocks.append(Block(*layers))
                channels = width
                skips.append(channels)
            if level + 1 < len(widths):
                self.input_blocks.append(Block(residual(channels, channels, "down")))
                skips.append(channels)
        self.middle_block = Block(residual(channels, channels), attention(channels), residual(channels, channels))
        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for i in range(per_level + 1):
                layers = [residual(channels + skips.pop(), width)] + ([attention(width)] if attends(level) else [])
                channels = width
                if level > 0 and i == per_level:
                    layers.append(residual(width, width, "up"))
                self.output_blocks.append(Block(*layers))
        self.out = nn.Sequential(
            GroupNorm(channels, groups), nn.SiLU(), nn.Conv2d(channels, config["out_channels"], 3, padding=1)
        )

    def forward(self, x, t):
        half = self.base // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
        angles = t[:, None].float() * rates
        dtype = self.time_embed[0].weight.dtype
        emb = self.time_embed(torch.cat([angles.cos(), angles.sin()], 1).to(dtype))
        x = x.to(dtype)
        kept = []
        for block in self.input_blocks:
            x = block(x, emb)
            kept.append(x)
        x = self.middle_block(x, emb)
        for block in self.output_blocks:
            x = block(torch.cat([x, kept.pop()], 1), emb)
        return self.out(x)
