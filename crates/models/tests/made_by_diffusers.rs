//! A folder that diffusers wrote itself (`bench/peer/diffusers.py --fixture`): the same images as its pipelines, before rounding.

use candle_core::{Result, Tensor};
use sdft_checkpoint::ReadOptions;
use sdft_models::{
    LoadOptions, LoadedModel, convert_file, convert_to_diffusers, inspect_file, load_network,
};
use sdft_randn::NoiseSource;
use sdft_samplers::{Ancestral, Ddim, sample_ddim, sample_ddpm};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ddpm")
}

fn load(path: &Path) -> LoadedModel {
    load_network(path, &LoadOptions::default()).unwrap()
}

/// Noise from a file, one tensor for each step.
struct Recorded<'a>(&'a Tensor);

impl NoiseSource for Recorded<'_> {
    fn normal(&mut self, draw: usize, _: &Tensor) -> Result<Tensor> {
        self.0.get(draw)
    }
}

/// Fails unless the model's images are those of diffusers' pipelines, in [0, 1] and to 1e-5.
fn assert_same_images(model: &LoadedModel) {
    let file = folder().join("expected.safetensors");
    let expected: BTreeMap<String, Tensor> = sdft_checkpoint::read(&file, &ReadOptions::default())
        .unwrap()
        .into_map();
    let (x, noises) = (&expected["x_T"], &expected["noises"]);
    let steps = noises.dim(0).unwrap().to_string().parse().unwrap();
    let diffusion = model.diffusion(&steps).unwrap();
    let net = model.network().unwrap();
    let images = |state: Tensor| {
        let images = ((state / 2.0).unwrap() + 0.5).unwrap();
        let images = images.clamp(0.0, 1.0).unwrap().flatten_all().unwrap();
        images.to_vec1::<f32>().unwrap()
    };
    let mut noise = Recorded(noises);
    let options = Ddim::default();
    let ddim = sample_ddim(&diffusion, &*net, x, &options, &mut noise, &mut |_| Ok(())).unwrap();
    let options = Ancestral::default();
    let ddpm = sample_ddpm(&diffusion, &*net, x, &options, &mut noise, &mut |_| Ok(())).unwrap();
    for (name, found) in [("ddim", ddim), ("ddpm", ddpm)] {
        let expected = expected[name]
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        for (a, b) in images(found).iter().zip(&expected) {
            assert!((a - b).abs() < 1e-5, "{name}: {a} instead of {b}");
        }
    }
}

#[test]
fn its_samples_are_those_of_the_pipelines() {
    let model = load(&folder());
    assert_same_images(&model);
    let notes = model.notes.join("; ");
    assert!(!notes.contains("assumed"), "{notes}");
    for part in ["unet", "unet/diffusion_pytorch_model.safetensors"] {
        assert_eq!(load(&folder().join(part)).sha256, model.sha256, "{part}");
    }
    let seen = inspect_file(&folder(), &LoadOptions::default()).unwrap();
    assert!(seen.misfit.is_none());
    assert_eq!(seen.resolved.unwrap().process, model.process);
}

#[test]
fn conversions_keep_its_samples() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("one.safetensors"), dir.path().join("out"));
    let options = LoadOptions::default();
    convert_file(&folder(), &file, &options, None).unwrap();
    assert_same_images(&load(&file));
    convert_to_diffusers(&file, &out, &options, None).unwrap();
    assert_same_images(&load(&out));
    assert_eq!(load(&out).process, load(&folder()).process);
}
