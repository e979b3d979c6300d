//! This project's side of `bench/peer/diffusers.py`: samples from noise in a file, conversion to diffusers, ADM networks to convert.

use candle_core::{Result, Tensor};
use sdft_adm::AdmConfig;
use sdft_checkpoint::{ReadOptions, write_safetensors};
use sdft_diffusion::Process;
use sdft_models::{
    Architecture, LoadOptions, NetworkFile, convert_to_diffusers, load_network, save_network,
};
use sdft_nn::Params;
use sdft_randn::NoiseSource;
use sdft_samplers::{Ancestral, Ddim, sample_ddim, sample_ddpm};
use std::collections::BTreeMap;
use std::path::Path;

/// Noise from a file, one tensor for each step.
struct Recorded(Tensor);

impl NoiseSource for Recorded {
    fn normal(&mut self, draw: usize, _: &Tensor) -> Result<Tensor> {
        self.0.get(draw)
    }
}

fn sample(model: &Path, sampler: &str, noise: &Path, out: &Path) -> anyhow::Result<()> {
    let model = load_network(model, &LoadOptions::default())?;
    let noise = sdft_checkpoint::read(noise, &ReadOptions::default())?.into_map();
    let (x, noises) = (&noise["x_T"], noise["noises"].clone());
    let diffusion = model.diffusion(&noises.dim(0)?.to_string().parse()?)?;
    let net = model.network()?;
    let mut noises = Recorded(noises);
    let images = match sampler {
        "ddim" => {
            let options = Ddim::default();
            sample_ddim(&diffusion, &*net, x, &options, &mut noises, &mut |_| Ok(()))?
        }
        _ => {
            let options = Ancestral::default();
            sample_ddpm(&diffusion, &*net, x, &options, &mut noises, &mut |_| Ok(()))?
        }
    };
    write_safetensors(out, [("sample", &images)], &BTreeMap::new(), None)?;
    Ok(())
}

/// ADM networks of every kind that has an equal `UNet2DModel`.
fn make_adm(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let heads = AdmConfig {
        image_size: 8,
        model_channels: 8,
        channel_mult: vec![1.0, 2.0],
        attention_resolutions: vec![2],
        num_head_channels: 4,
        norm_groups: 4,
        ..AdmConfig::default()
    };
    let new_order = AdmConfig {
        use_new_attention_order: true,
        attention_resolutions: vec![1, 2],
        ..heads.clone()
    };
    let plain = AdmConfig {
        out_channels: 3,
        resblock_updown: false,
        use_scale_shift_norm: false,
        num_res_blocks: 2,
        num_head_channels: 0,
        num_heads: 1,
        ..heads.clone()
    };
    let process = Process {
        // As diffusers samples, so that both sides take the same steps.
        sampling: Some(Default::default()),
        ..Process::default()
    };
    let cosine = Process {
        noise_schedule: "cosine".to_owned(),
        sigma_small: true,
        ..process.clone()
    };
    for (name, config, process) in [
        ("heads", heads, &process),
        ("new order", new_order, &process),
        ("plain", plain, &cosine),
    ] {
        let architecture = Architecture::Adm(config);
        let params = Params::init(&architecture.specs()?, 3, &candle_core::Device::Cpu)?;
        let shaken = params.iter().map(|(name, tensor)| {
            // No layer may be zero.
            let n = tensor.elem_count();
            let wave: Vec<f32> = (0..n).map(|i| 0.05 * (i as f32 * 0.7).sin()).collect();
            let wave = Tensor::from_vec(wave, tensor.dims(), tensor.device())?;
            Ok((name.to_owned(), (tensor + wave)?))
        });
        let params = Params::new(shaken.collect::<Result<_>>()?);
        let path = folder.join(format!("{name}.safetensors"));
        save_network(
            &path,
            &NetworkFile::new(&architecture, process),
            &params,
            None,
        )?;
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["sample", model, sampler, noise, out] => {
            sample(model.as_ref(), sampler, noise.as_ref(), out.as_ref())
        }
        ["convert", input, folder] => {
            convert_to_diffusers(
                input.as_ref(),
                folder.as_ref(),
                &LoadOptions::default(),
                None,
            )?;
            Ok(())
        }
        ["make-adm", folder] => make_adm(folder.as_ref()),
        _ => anyhow::bail!(
            "expected sample MODEL ddim|ddpm NOISE OUT, convert INPUT FOLDER or make-adm FOLDER"
        ),
    }
}
