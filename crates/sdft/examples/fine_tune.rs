//! Fine-tunes a network of candle-nn layers with SDFT. Ctrl-C saves, and the same command continues the run.

use sdft::candle::{self, DType, Device, Tensor, Var};
use sdft::candle_nn::{self as nn, Module, VarBuilder, VarMap};
use sdft::data::{Digits, DigitsSource, Style};
use sdft::diffusion::{Condition, Prediction, Trainable, named_vars};
use sdft::train::{Frozen, NoopProgress, Plan, Result, Setup, run};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

struct Net(VarMap, nn::Sequential);

impl Net {
    /// Two convolutions with the weights of a file. Random weights stand in for a missing file.
    fn open(file: &Path) -> candle::Result<Self> {
        let mut vars = VarMap::new();
        let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
        let (padding, default) = (1, nn::Conv2dConfig::default());
        let same = nn::Conv2dConfig { padding, ..default };
        let layers = nn::seq()
            .add(nn::conv2d(4, 32, 3, same, vb.pp("first"))?)
            .add(nn::Activation::Silu)
            .add(nn::conv2d(32, 3, 3, same, vb.pp("last"))?);
        if !file.exists() {
            vars.save(file)?;
        }
        vars.load(file)?;
        Ok(Self(vars, layers))
    }
}

impl Trainable for Net {
    fn vars(&self) -> Vec<(String, Var)> {
        named_vars(&self.0)
    }
    fn predict(&self, xt: &Tensor, t: &[f32], _: &Condition<'_>) -> candle::Result<Prediction> {
        let t = (Tensor::new(t, xt.device())?.reshape(((), 1, 1, 1))? * 1e-3)?;
        let t = t.broadcast_as(xt.narrow(1, 0, 1)?.shape())?; // a fourth channel
        Ok(self.1.forward(&Tensor::cat(&[xt, &t], 1)?)?.into()) // the predicted noise
    }
}

pub fn setup(folder: &Path) -> Result<Setup> {
    let open = || Net::open(&folder.join("source.safetensors"));
    let images = DigitsSource::new(Digits::embedded()?, Style::Ember, &[1, 4, 7], 30)?;
    let mut plan = Plan::sdft("source.safetensors", "digits"); // the paper's settings
    plan.steps.steps = 60;
    let setup = Setup::new(folder.join("run"), plan, open()?, images)?;
    Ok(setup.with_source(Frozen(open()?)))
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    static STOP: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| STOP.store(true, Relaxed))?;
    std::fs::create_dir_all("runs/own")?;
    let ending = run(setup(Path::new("runs/own"))?, &STOP, &mut NoopProgress)?;
    println!("{ending:?}");
    Ok(())
}
