"""Compares a step of EGSDE with the same step in plain PyTorch, on the same weights.

    python bench/peer/translate.py --sdft target/release/sdft --model MODEL.safetensors --classifier CLASSIFIER.safetensors --input IMAGE

A step is a forward pass of the U-Net, the classifier's features of the noised source, and a forward and backward pass through its
trunk, and the low-pass energy. The program's time is the difference between runs of many and of few steps, so starting
and loading do not count. Both sides alternate on one thread. Needs PyTorch.
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

from network import UNet
from peer import read_safetensors


def config_of(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(json.loads(file.read(length))["__metadata__"]["sdft.model"])


def load(path, trunk_only):
    """The network of a file; of a classifier, the encoder alone, which has the U-Net's names."""
    net = UNet(config_of(path))
    if trunk_only:
        net.output_blocks, net.out = torch.nn.ModuleList(), torch.nn.Identity()
    tensors = {k: v for k, v in read_safetensors(path).items() if not (trunk_only and k.startswith("out."))}
    net.load_state_dict(tensors)
    return net.eval().requires_grad_(False)


def low_pass(x, factor):
    small = F.interpolate(x, scale_factor=1 / factor, mode="bilinear", antialias=True)
    return F.interpolate(small, scale_factor=factor, mode="bilinear")


def step(unet, trunk, y, xt, t, factor):
    """The predicted noise with the gradients of EGSDE's energies."""
    with torch.no_grad():
        eps = unet(y, t)[:, : y.shape[1]]
        of_source = F.normalize(trunk(xt, t).flatten(2), dim=1)
    y = y.detach().requires_grad_()
    of_y = F.normalize(trunk(y, t).flatten(2), dim=1)
    (specific,) = torch.autograd.grad((of_y * of_source).sum(1).mean(1).sum(), y)
    (shared,) = torch.autograd.grad(((low_pass(xt, factor) - low_pass(y, factor)) ** 2).sum(), y)
    return eps + 0.1 * (500 * specific + 2 * shared)


def ours(args, steps):
    """Seconds of the program for this many of ten steps."""
    with tempfile.TemporaryDirectory() as out:
        command = [args.sdft, "translate", "--threads", "1", "--method", "egsde", "--model", args.model]
        command += ["--classifier", args.classifier, "--input", args.input, "--out", f"{out}/o"]
        command += ["--steps", "ddim10", "--t0", str((steps - 1) / 10 + 0.001)]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser()
    for name in ["--sdft", "--model", "--classifier", "--input"]:
        parser.add_argument(name, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    unet, trunk = load(args.model, False), load(args.classifier, True)
    side = config_of(args.model)["image_size"]
    generator = torch.Generator().manual_seed(0)
    y, xt = (torch.randn(1, 3, side, side, generator=generator) for _ in range(2))
    layouts = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
    rows = {name: [] for name in ["ours", *layouts]}
    for _ in range(args.rounds):
        few, many = ours(args, 1), ours(args, 6)
        rows["ours"].append((many - few) / 5)
        for name, layout in layouts.items():
            nets = [net.to(memory_format=layout) for net in (unet, trunk)]
            images = [x.to(memory_format=layout) for x in (y, xt)]
            step(*nets, *images, torch.tensor([500.0]), side // 8)
            started = time.perf_counter()
            for _ in range(3):
                step(*nets, *images, torch.tensor([500.0]), side // 8)
            rows[name].append((time.perf_counter() - started) / 3)
    for name, seconds in rows.items():
        print(f"{name:14} {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")
    ratios = [a / min(b, c) for a, b, c in zip(*rows.values())]
    print(f"ours / PyTorch {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
