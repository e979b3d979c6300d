"""Metrics, exact resizing, checkpoints and sampling of diffusion models, computed in Rust on NumPy arrays."""

import os
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__version__: str

class Kid(NamedTuple):
    """Mean and standard deviation over the subsets of ``kid``."""

    mean: float
    std: float

class PrecisionRecall(NamedTuple):
    """The result of ``precision_recall``."""

    precision: float
    recall: float
    density: float
    coverage: float

def fid(real: ArrayLike, fake: ArrayLike) -> float: ...
def kid(
    real: ArrayLike,
    fake: ArrayLike,
    *,
    subsets: int | None = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> Kid: ...
def precision_recall(real: ArrayLike, fake: ArrayLike, *, k: int = 3) -> PrecisionRecall: ...
def psnr(a: ArrayLike, b: ArrayLike, *, data_range: float | None = None) -> float: ...
def ssim(
    a: ArrayLike,
    b: ArrayLike,
    *,
    data_range: float | None = None,
    window: Literal["gaussian", "uniform"] = "gaussian",
) -> float: ...
def resize(
    image: ArrayLike,
    width: int,
    height: int,
    filter: Literal["box", "bilinear", "bicubic", "lanczos"] = "bicubic",
) -> NDArray[Any]: ...
def read_checkpoint(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    prefer: Literal["ema", "raw"] = "ema",
    allow_non_finite: bool = False,
) -> dict[str, NDArray[Any]]: ...
def sample(
    model: str | os.PathLike[str],
    n: int,
    *,
    steps: int | str | None = None,
    seed: int = 0,
    sampler: Literal["ddim", "ddpm", "heun", "dpm", "euler"] | None = None,
    class_: int | str | None = None,
    guidance: float | None = None,
    batch: int = 16,
) -> NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]: ...
