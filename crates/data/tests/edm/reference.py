"""Writes cases.json and results.f32: images that EDM's augmentation transforms with given parameters, computed in f64 by PyTorch.

    python crates/data/tests/edm/reference.py

The order of the transformations, the wavelet and the grids follow Karras et al. 2022 (appendix F.2) and its public implementation.
"""

import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

# The low-pass filter of sym6.
H = torch.tensor(
    [0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466, 0.787641141030194,
     0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148],
    dtype=torch.float64,
)


def noise(shape, seed):
    """Numbers in [-1, 1) that any language computes exactly."""
    n = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(seed * 100_003)
    bits = (n * np.uint64(2_654_435_761)) % np.uint64(2**32) >> np.uint64(16)
    return torch.from_numpy(bits.astype(np.float64) / 32768 - 1).reshape(shape)


def move(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def scale(x, y):
    return np.diag([x, y, 1.0])


def turn(angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def transform(image, t):
    c, h, w = image.shape
    if t["flip_x"]:
        image = image.flip(2)
    if t["flip_y"]:
        image = image.flip(1)
    enlarge, stretch = 2 ** (0.2 * t["scale"]), 2 ** (0.2 * t["stretch"])
    # The inverse of translate, then stretch in a rotated frame, then rotate, then scale.
    inverse = np.linalg.inv(scale(enlarge, enlarge))
    inverse = inverse @ np.linalg.inv(turn(-t["rotation"]))
    inverse = inverse @ np.linalg.inv(turn(t["stretch_angle"])) @ np.linalg.inv(scale(stretch, 1 / stretch)) @ turn(t["stretch_angle"])
    inverse = inverse @ np.linalg.inv(move(t["translation"][0] * w * 0.125, t["translation"][1] * h * 0.125))

    cx, cy = (w - 1) / 2, (h - 1) / 2
    corners = inverse @ np.array([[-cx, -cy, 1], [cx, -cy, 1], [cx, cy, 1], [-cx, cy, 1]]).T
    reach = [(-corners[0]).max() - cx + 6, corners[0].max() - cx + 6, (-corners[1]).max() - cy + 6, corners[1].max() - cy + 6]
    left, right, top, bottom = (math.ceil(min(max(r, 0), side - 1)) for r, side in zip(reach, [w, w, h, h]))
    x = F.pad(image[None], [left, right, top, bottom], mode="reflect")
    inverse = move((left - right) / 2, (top - bottom) / 2) @ inverse

    # A transposed convolution of stride 2 inserts zeros and mirrors the kernel.
    kernel = H.tile(c, 1, 1)
    up = lambda v, k, **strides: F.conv_transpose2d(v, k, groups=c, **strides)
    x = up(x, kernel[:, :, None, :], stride=(1, 2))[..., 5:-5]
    x = up(x, kernel[:, :, :, None], stride=(2, 1))[..., 5:-5, :]
    assert x.shape[2:] == (2 * (h + top + bottom), 2 * (w + left + right))
    inverse = move(-0.5, -0.5) @ scale(2, 2) @ inverse @ scale(0.5, 0.5) @ move(0.5, 0.5)

    fine_h, fine_w = 2 * (h + 6), 2 * (w + 6)
    inverse = scale(2 / x.shape[3], 2 / x.shape[2]) @ inverse @ scale(fine_w / 2, fine_h / 2)
    grid = F.affine_grid(torch.from_numpy(inverse[None, :2]), [1, c, fine_h, fine_w], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    x = F.conv2d(x, kernel[:, :, None, :], stride=(1, 2), padding=(0, 5), groups=c)[..., 3:-3]
    x = F.conv2d(x, kernel[:, :, :, None], stride=(2, 1), padding=(5, 0), groups=c)[..., 3:-3, :]
    return x[0]


def main():
    nothing = dict(flip_x=False, flip_y=False, scale=0.0, rotation=0.0, stretch=0.0, stretch_angle=0.0, translation=[0.0, 0.0])
    transforms = [
        dict(flip_x=True, scale=0.7),
        dict(rotation=0.6),
        dict(flip_y=True, stretch=-1.3, stretch_angle=2.1),
        dict(translation=[0.9, -1.4]),
        dict(flip_x=True, flip_y=True, scale=-1.1, rotation=-2.5, stretch=0.8, stretch_angle=0.3, translation=[-0.6, 0.5]),
        dict(scale=-4.0, translation=[5.0, 0.0]),
    ]
    folder = pathlib.Path(__file__).parent
    cases, results = [], []
    for n, (shape, chosen) in enumerate([((3, 16, 24), transforms), ((1, 32, 32), transforms[4:]), ((5, 8, 8), transforms[2:5]), ((1, 1, 5), transforms[1:2])]):
        for t in chosen:
            t = nothing | t
            cases.append(dict(shape=shape, seed=n, transform=t))
            results.append(transform(noise(shape, n), t).numpy().astype("<f4").tobytes())
    (folder / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    (folder / "results.f32").write_bytes(b"".join(results))


if __name__ == "__main__":
    main()
