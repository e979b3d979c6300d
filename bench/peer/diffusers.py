"""Both ways between this project and the installed diffusers: equal samples from equal noise.

    cargo build --release -p sdft-models --example exchange
    python bench/peer/diffusers.py target/release/examples/exchange     compares; exits with 1 if anything differs
    python bench/peer/diffusers.py --fixture DIR                        writes the folder that the tests read

Needs PyTorch, diffusers and safetensors. It is not part of the tests.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# This file has the name of the library.
sys.path.pop(0)

import torch
from safetensors.torch import load_file, save_file

from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

# Largest difference of images in [0, 1], before rounding, from diffusers' in double precision; or three times diffusers' own in single
# precision, which is larger where DDIM divides an error of the first steps by sqrt(alpha_bar).
MOST = 1e-5
STEPS = 12

SMALL = dict(sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)
ATTENTION = dict(
    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")
)
# As google/ddpm-*.
GOOGLE = dict(
    SMALL, **ATTENTION, attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6
)
# As examples/unconditional_image_generation/train_unconditional.py.
TRAINED = dict(SMALL, **ATTENTION)
RESNET = dict(
    SMALL,
    down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    downsample_type="resnet",
    upsample_type="resnet",
    attn_norm_num_groups=4,
    resnet_time_scale_shift="scale_shift",
    attention_head_dim=4,
    out_channels=6,
)
MODELS = {
    "google": (GOOGLE, DDPMScheduler()),
    "google ddim": (GOOGLE, DDIMScheduler()),
    "train_unconditional": (TRAINED, DDPMScheduler()),
    "cosine, v": (TRAINED, DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")),
    "image, trailing": (
        dict(TRAINED, sample_size=(8, 12), mid_block_scale_factor=1.4, add_attention=False),
        DDIMScheduler(prediction_type="sample", timestep_spacing="trailing", rescale_betas_zero_snr=True),
    ),
    "learned variance": (RESNET, DDPMScheduler(variance_type="learned_range")),
    "scaled betas, offset": (
        TRAINED,
        DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            set_alpha_to_one=False,
            clip_sample=False,
        ),
    ),
}


def network(config, seed=0):
    """A network whose zero-initialised layers are not zero."""
    torch.manual_seed(seed)
    net = UNet2DModel(**config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        # At much noise an error of a prediction counts 60 times in the image. With full predictions of a random network the library's own
        # images would differ by 7e-5 between f32 and f64.
        net.conv_out.weight.mul_(0.05)
        net.conv_out.bias.mul_(0.05)
    return net


def noise_for(config, steps=STEPS, seed=1):
    size = config["sample_size"]
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    generator = torch.Generator().manual_seed(seed)
    shape = (2, config.get("in_channels", 3), height, width)
    return torch.randn(shape, generator=generator), torch.randn((steps, *shape), generator=generator)


def pipeline(folder):
    """The pipeline of a folder, as its model_index.json says."""
    index = json.loads((folder / "model_index.json").read_text())
    kind = DDIMPipeline if index["_class_name"] == "DDIMPipeline" else DDPMPipeline
    return kind.from_pretrained(folder)


def sampled(pipe, x, noises):
    """The pipeline's images in [0, 1] from this noise: x first, then one draw for each step that takes one."""
    import diffusers.pipelines.ddim.pipeline_ddim as ddim
    import diffusers.pipelines.ddpm.pipeline_ddpm as ddpm
    import diffusers.schedulers.scheduling_ddpm as scheduling

    pipe.set_progress_bar_config(disable=True)
    draws = iter([x, *noises])
    modules = (ddim, ddpm, scheduling)
    saved = [module.randn_tensor for module in modules]
    for module in modules:
        module.randn_tensor = lambda shape, **_: next(draws)
    try:
        images = pipe(batch_size=len(x), num_inference_steps=len(noises), output_type="np").images
    finally:
        for module, function in zip(modules, saved):
            module.randn_tensor = function
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def ours(exe, model, sampler, x, noises):
    """This project's images in [0, 1] from the same noise."""
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "noise.safetensors", Path(folder) / "out.safetensors"
        save_file({"x_T": x.contiguous(), "noises": noises.contiguous()}, given)
        # Direct sums, which round as PyTorch's do.
        environment = {**os.environ, "SDFT_CONV": "direct"}
        subprocess.run([exe, "sample", str(model), sampler, str(given), str(out)], check=True, env=environment)
        return (load_file(out)["sample"] / 2 + 0.5).clamp(0, 1)


def compare(exe, name, folder, model):
    """Largest difference between diffusers' images of `folder` and this project's of `model`."""
    pipe = pipeline(folder)
    x, noises = noise_for(pipe.unet.config)
    sampler = "ddim" if isinstance(pipe, DDIMPipeline) else "ddpm"
    with torch.no_grad():
        theirs = sampled(pipe, x, noises)
        pipe.unet.double()
        exact = sampled(pipe, x.double(), noises.double())
    own = (theirs - exact).abs().max().item()
    difference = (ours(exe, model, sampler, x, noises) - exact).abs().max().item()
    spread = exact.std().item()
    fine = difference < max(MOST, 3 * own) and spread > 0.005
    verdict = "" if fine else "  DIFFERENT"
    print(f"{name:46} {sampler}  here {difference:.1e}, PyTorch {own:.1e}, standard deviation {spread:.2f}{verdict}")
    return fine


def check(exe):
    fine = True
    with tempfile.TemporaryDirectory() as parent:
        for name, (config, scheduler) in MODELS.items():
            theirs, back = Path(parent) / f"{name} in", Path(parent) / f"{name} out"
            kind = DDIMPipeline if isinstance(scheduler, DDIMScheduler) else DDPMPipeline
            kind(unet=network(config), scheduler=scheduler).save_pretrained(theirs)
            fine &= compare(exe, f"made by diffusers: {name}", theirs, theirs)
            # DDIM's default folder comes back as a DDPM one, which is another sampler of the same process.
            subprocess.run([exe, "convert", str(theirs), str(back)], check=True)
            fine &= compare(exe, f"written here from it: {name}", back, theirs)
        made = Path(parent) / "adm"
        subprocess.run([exe, "make-adm", str(made)], check=True)
        for model in sorted(made.glob("*.safetensors")):
            folder = made / model.stem
            subprocess.run([exe, "convert", str(model), str(folder)], check=True)
            fine &= compare(exe, f"written here from ADM: {model.stem}", folder, folder)
            fine &= compare(exe, f"ADM itself: {model.stem}", folder, model)
    return fine


def fixture(folder):
    """The smallest model of the google/ddpm kind, and its samples. It keeps some of the image, so that few bits are lost."""
    net, scheduler = network(GOOGLE), DDPMScheduler(beta_end=0.01)
    DDPMPipeline(unet=net, scheduler=scheduler).save_pretrained(folder)
    x, noises = noise_for(GOOGLE, steps=10)
    expected = {"x_T": x, "noises": noises}
    net.double()
    x, noises = x.double(), noises.double()
    with torch.no_grad():
        expected["ddpm"] = sampled(DDPMPipeline(unet=net, scheduler=scheduler), x, noises)
        scheduler = DDIMScheduler.from_config(scheduler.config)
        expected["ddim"] = sampled(DDIMPipeline(unet=net, scheduler=scheduler), x, noises)
    save_file({name: tensor.float().contiguous() for name, tensor in expected.items()}, folder / "expected.safetensors")


if __name__ == "__main__":
    if sys.argv[1] == "--fixture":
        fixture(Path(sys.argv[2]))
    else:
        sys.exit(0 if check(sys.argv[1]) else 1)
