//! Names of files for people.

use std::path::Path;

/// Files and folders with these names are in every run or model, so that they say nothing alone.
const COMMON: [&str; 9] = [
    "best.safetensors",
    "checkpoints",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "ema.safetensors",
    "final.safetensors",
    "transformer",
    "unet",
    "vae",
];

/// The last part of a path, with as many folders as name the run or the model: `metfaces-sdft/final.safetensors`. A published file should
/// not show the other folders of its author's disk.
pub fn short_name(path: &str) -> String {
    let whole = Path::new(path);
    let mut parts = Vec::new();
    for part in whole.ancestors() {
        let Some(name) = part.file_name() else { break };
        let name = name.to_string_lossy();
        let is_common = COMMON.contains(&&*name) || name.starts_with("step-");
        parts.insert(0, name);
        if !is_common {
            break;
        }
    }
    match parts.is_empty() {
        true => path.to_owned(),
        false => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_run_or_a_model_is_named_with_it() {
        for (path, name) in [
            ("/data/models/ffhq.pt", "ffhq.pt"),
            ("emoji-source", "emoji-source"),
            ("runs/faces/final.safetensors", "faces/final.safetensors"),
            ("final.safetensors", "final.safetensors"),
            (
                "runs/faces/checkpoints/step-000004/ema.safetensors",
                "faces/checkpoints/step-000004/ema.safetensors",
            ),
            (
                "/m/ddpm-church/unet/diffusion_pytorch_model.bin",
                "ddpm-church/unet/diffusion_pytorch_model.bin",
            ),
            ("a/..", "a/.."),
        ] {
            assert_eq!(short_name(path), name);
        }
    }
}
