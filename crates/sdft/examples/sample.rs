//! Draws images from a model: a file, a run folder, or the name of the embedded model of digits.

use sdft::candle::Device;
use sdft::imaging::{ImageSpec, Rgb8, write_png};
use sdft::jobs::{DIGITS_SOURCE, ModelFile, load_model};
use sdft::models::LoadOptions;
use sdft::randn::SeededNoise;
use sdft::samplers::{Ddim, sample_ddim};
use sdft::train::{contact_sheet, to_screens};
use std::error::Error;
use std::path::Path;

/// `n` images by 40 steps of DDIM. Image `i` depends on the seed and on `i` only.
pub fn sample(name: &str, n: usize, seed: u64) -> Result<Vec<Rgb8>, Box<dyn Error>> {
    let file = ModelFile::find(name)?;
    let model = load_model(&file.path, &LoadOptions::default())?;
    let (network, diffusion) = (model.network()?, model.diffusion(&"ddim40".parse()?)?);
    let side = model.architecture.image_size();
    let mut noise = SeededNoise::new(seed, 0);
    let start = noise.start(&[n, 3, side, side], &Device::Cpu)?;
    let options = Ddim::default();
    let images = sample_ddim(
        &diffusion,
        &*network,
        &start,
        &options,
        &mut noise,
        &mut |step| {
            println!("step {} of {}", step.done, step.total);
            Ok(())
        },
    )?;
    Ok(to_screens(&images, &ImageSpec::rgb8(side, side))?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1);
    let images = sample(model.as_deref().unwrap_or(DIGITS_SOURCE), 16, 0)?;
    write_png(Path::new("samples.png"), &contact_sheet(&images, "seed 0"))?;
    Ok(())
}
