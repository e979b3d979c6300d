//! Brings the images of a folder into a model's domain with SDEdit. The same command makes only what is missing.

use sdft::candle::Device;
use sdft::gallery::Outcome;
use sdft::jobs::{Context, Result, TranslateOptions, translate_folder};
use sdft::train::Progress;
use std::path::Path;
use std::sync::atomic::AtomicBool;

struct Print;

impl Progress for Print {
    fn note(&mut self, text: &str) {
        println!("{text}");
    }
}

/// Noises each image up to the share `t0` of the process, and denoises it with the model.
pub fn sdedit(model: &str, input: &Path, out: &Path, t0: f64) -> Result<Outcome> {
    let (stop, mut progress) = (AtomicBool::new(false), Print);
    let mut context = Context::new(Device::Cpu, &stop, &mut progress);
    let options = TranslateOptions {
        model: model.to_owned(),
        input: input.to_owned(),
        out: out.to_owned(),
        t0,
        ..TranslateOptions::default()
    };
    translate_folder(&options, &mut context)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, input, out] = &args[..] else {
        return Err("usage: sdedit MODEL INPUT OUT".into());
    };
    if let Outcome::Done(filled) = sdedit(model, Path::new(input), Path::new(out), 0.5)? {
        filled.check()?; // lists the images that failed
    }
    Ok(())
}
