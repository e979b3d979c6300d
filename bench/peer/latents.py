"""Writes the pipelines of latents that `crates/models/tests` reads, made by diffusers, and their images.

    python bench/peer/latents.py DIR      writes DIR/ldm and DIR/dit
"""

import sys
from pathlib import Path

# Next to this file is one that is called like the library.
sys.path.pop(0)

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel, LDMPipeline, UNet2DModel, VQModel
from safetensors.torch import save_file


def filled(net, seed):
    """The network with random values in every parameter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        is_norm = parameter.ndim == 1 and "norm" in name and name.endswith("weight")
        value = torch.randn(parameter.shape, generator=generator) * (0.15 if parameter.ndim > 1 else 0.1)
        parameter.data.copy_(value + float(is_norm))
    return net


def levels(width):
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "block_out_channels": [width] * 2,
        "layers_per_block": 1,
        "sample_size": 16,
        "norm_num_groups": 2,
    }


def written(pipeline, folder, latents, calls):
    """Saves a pipeline, reads it again, and writes its images from these latents for each call, in -1..1."""
    pipeline.save_pretrained(folder)
    pipeline = type(pipeline).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    # The pipelines draw their latents themselves.
    sys.modules[type(pipeline).__module__].randn_tensor = lambda shape, **_: latents.clone()
    tensors = {"latents": latents}
    for name, options in calls.items():
        images = pipeline(num_inference_steps=10, output_type="np", **options).images
        tensors[name] = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous() * 2 - 1
    save_file(tensors, folder / "expected.safetensors")


def ldm(folder):
    vq = VQModel(latent_channels=3, num_vq_embeddings=16, scaling_factor=0.7, **levels(4))
    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        down_block_types=["DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D"],
        block_out_channels=[4, 8],
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=4,
    )
    scheduler = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False)
    latents = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    pipeline = LDMPipeline(vqvae=filled(vq, 1), unet=filled(unet, 2), scheduler=scheduler)
    written(pipeline, folder, latents, {"images": {"batch_size": 2}})


def dit(folder):
    kl = AutoencoderKL(latent_channels=4, scaling_factor=0.3, **levels(4))
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=1000,
    )
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(6))
    pipeline = DiTPipeline(transformer=filled(transformer, 4), vae=filled(kl, 3), scheduler=DDIMScheduler(clip_sample=False))
    classes = {"class_labels": [3, 7]}
    written(pipeline, folder, latents, {"images": {**classes, "guidance_scale": 1.0}, "guided": {**classes, "guidance_scale": 1.5}})


if __name__ == "__main__":
    ldm(Path(sys.argv[1]) / "ldm")
    dit(Path(sys.argv[1]) / "dit")
