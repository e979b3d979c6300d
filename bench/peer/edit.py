"""Compares a training step of an edit direction with the same step in plain PyTorch, on the same weights.

    pip install torch transformers
    python bench/peer/edit.py --sdft target/release/sdft --model MODEL.safetensors --clip CLIP_FOLDER --tokenizer tokenizer.json --input FOLDER

A step is a forward pass of the U-Net, a second pass of its upper half with changed features, a pass on the unchanged trajectory, CLIP
ViT-B/16 on the predicted image, and the backward pass to the block on the deepest features. The program's time is the difference
between runs of many and of few steps, so starting and loading do not count. Both sides alternate on one thread.
"""

import argparse
import json
import statistics
import struct
import subprocess
import tempfile
import time

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPModel

from network import GroupNorm, ResBlock, UNet
from peer import read_safetensors

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[None, :, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[None, :, None, None]


class Direction(nn.Module):
    def __init__(self, channels, emb):
        super().__init__()
        self.into = nn.Sequential(GroupNorm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 1))
        self.time = nn.Linear(emb, channels)
        self.out = nn.Sequential(GroupNorm(channels), nn.SiLU(), nn.Conv2d(channels, channels, 1))

    def forward(self, h, emb):
        return self.out(self.into(h) + self.time(F.silu(emb))[:, :, None, None])


def config_of(path):
    """The configuration in the file, or that of the public 256x256 models with one residual block at each level."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        said = json.loads(file.read(length)).get("__metadata__", {}).get("sdft.model")
    usual = dict(in_channels=3, out_channels=6, model_channels=128, channel_mult=[1, 1, 2, 2, 4, 4], num_res_blocks=1,
                 attention_resolutions=[16], num_head_channels=64, norm_groups=32, dropout=0.0, resblock_updown=True,
                 use_scale_shift_norm=True)
    return json.loads(said) if said else usual


def encode(net, x, t):
    half = net.base // 2
    rates = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(half, dtype=torch.float32) / half)
    angles = t[:, None].float() * rates
    emb = net.time_embed(torch.cat([angles.cos(), angles.sin()], 1))
    kept = []
    for block in net.input_blocks:
        x = block(x, emb)
        kept.append(x)
    return net.middle_block(x, emb), kept, emb


def decode(net, h, kept, emb):
    for block, skip in zip(net.output_blocks, reversed(kept)):
        h = block(torch.cat([h, skip], 1), emb)
    return net.out(h)[:, :3]


def step(net, block, clip, optimizer, x, x_origin, real, direction, t, ab, ab_next):
    with torch.no_grad():
        h, kept, emb = encode(net, x, t)
        eps = decode(net, h, kept, emb)
        h_origin, kept_origin, _ = encode(net, x_origin, t)
        eps_origin = decode(net, h_origin, kept_origin, emb)
        origin = (x_origin - (1 - ab) ** 0.5 * eps_origin) / ab**0.5
    changed = decode(net, h + block(h, emb), kept, emb)
    x0 = (x - (1 - ab) ** 0.5 * changed) / ab**0.5
    seen = (F.interpolate(x0 / 2 + 0.5, size=224, mode="bicubic") - MEAN) / STD
    edited = F.normalize(clip(seen))
    d = edited - real
    cosine = (d / (d.norm(dim=-1, keepdim=True) + 1e-7) * direction).sum(-1)
    loss = -torch.log((1 + cosine) / 2).mean() + 3 * 0.9 * (x0 - origin).abs().mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        x = ab_next**0.5 * x0 + (1 - ab_next) ** 0.5 * eps
        x_origin = ab_next**0.5 * origin + (1 - ab_next) ** 0.5 * eps_origin
    return x, x_origin


def ours(args, steps):
    """Seconds of a run with this many training steps in a single trajectory."""
    with tempfile.TemporaryDirectory() as out:
        command = [args.sdft, "--threads", "1", "edit", "train", "--from", "face", "--to", "smiling face", "--model", args.model,
                   "--data", args.input, "--images", "1", "--epochs", "1", "--no-cache", "--out", out, "--t-edit", "0",
                   f"--weights=clip-b16={args.clip}/model.safetensors", f"--weights=clip-b16={args.tokenizer}",
                   "--set", "walk.inversion=2", "--set", f"walk.steps={steps}", "--set", "output.samples=0"]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser()
    for name in ("sdft", "model", "clip", "tokenizer", "input"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = config_of(args.model)
    net = UNet(config)
    net.load_state_dict(read_safetensors(args.model))
    net.eval().requires_grad_(False)
    towers = CLIPModel.from_pretrained(args.clip).eval().requires_grad_(False)

    def clip(x):
        return towers.visual_projection(towers.vision_model(pixel_values=x).pooler_output)

    width = int(config["model_channels"] * config["channel_mult"][-1])
    block = Direction(width, 4 * config["model_channels"])
    optimizer = torch.optim.SGD(block.parameters(), lr=0.5)
    x = torch.randn(1, 3, 256, 256)
    real, direction = F.normalize(torch.randn(1, 512)), F.normalize(torch.randn(1, 512))

    def theirs(layout):
        net.to(memory_format=layout)
        state = (x.to(memory_format=layout), x.to(memory_format=layout))
        state = step(net, block, clip, optimizer, *state, real, direction, torch.tensor([600.0]), 0.05, 0.1)
        started = time.perf_counter()
        for _ in range(args.steps):
            state = step(net, block, clip, optimizer, *state, real, direction, torch.tensor([600.0]), 0.05, 0.1)
        return (time.perf_counter() - started) / args.steps

    ratios, rows = [], []
    for _ in range(args.rounds):
        mine = (ours(args, 2 + args.steps) - ours(args, 2)) / args.steps
        other = min(theirs(torch.contiguous_format), theirs(torch.channels_last))
        ratios.append(mine / other)
        rows.append((mine, other))
        print(f"ours {mine:.2f} s, PyTorch {other:.2f} s, ratio {ratios[-1]:.2f}", flush=True)
    mine, other = (statistics.median(column) for column in zip(*rows))
    print(f"a step: ours {mine:.2f} s, PyTorch {other:.2f} s, ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


main()
