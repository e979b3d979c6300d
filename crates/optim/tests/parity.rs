//! Updates of torch's optimisers and of guided-diffusion's training loop.

use std::{collections::HashMap, fs, path::PathBuf};

use candle_core::{Device, Tensor, Var};
use sdft_optim::{
    Accumulator, AdamW, Decay, Ema, EmaRamp, LearningRate, MicroBatches, Optimizer, Rule, Sgd,
    clip_coefficient, collect_gradients, global_norm,
};
use serde_json::Value;

struct Case {
    name: String,
    config: Value,
    atol: f64,
    rtol: f64,
    tensors: HashMap<String, Tensor>,
}

impl Case {
    /// Every case of one kind.
    fn all(kind: &str) -> Vec<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/optim");
        let folders = fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        let mut cases = Vec::new();
        for folder in folders {
            let folder = folder.unwrap().path();
            let case: Value =
                serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap();
            if case["kind"] == kind {
                let tensors = folder.join("tensors.safetensors");
                cases.push(Self {
                    name: folder.file_name().unwrap().to_string_lossy().into_owned(),
                    config: case["config"].clone(),
                    atol: case["tolerance"]["atol"].as_f64().unwrap(),
                    rtol: case["tolerance"]["rtol"].as_f64().unwrap(),
                    tensors: candle_core::safetensors::load(tensors, &Device::Cpu).unwrap(),
                });
            }
        }
        assert!(!cases.is_empty(), "no case of kind {kind}");
        cases
    }

    fn number(&self, key: &str) -> f64 {
        self.config[key].as_f64().unwrap()
    }

    fn tensor(&self, name: &str) -> &Tensor {
        &self.tensors[name]
    }

    fn var(&self, name: &str) -> (String, Var) {
        (
            name.to_owned(),
            Var::from_tensor(self.tensor(name)).unwrap(),
        )
    }

    /// Compares with row `row` of an expected tensor, or with all of it.
    fn check(&self, name: &str, row: Option<usize>, got: &Tensor) {
        let whole = self.tensor(name);
        let scale = flat(whole).iter().fold(0.0_f64, |max, v| max.max(v.abs()));
        let expected = row.map_or(whole.clone(), |row| whole.get(row).unwrap());
        let what = format!("{}/{name} {row:?}", self.name);
        assert_eq!(got.shape(), expected.shape(), "{what}");
        for (got, expected) in flat(got).into_iter().zip(flat(&expected)) {
            let close = (got - expected).abs() <= self.atol + self.rtol * scale;
            assert!(close, "{what}: {got} instead of {expected}");
        }
    }
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f64::from).collect()
}

#[test]
fn updates_equal_those_of_torch() {
    for case in Case::all("optim.adamw") {
        let weight_decay = case.number("weight_decay");
        let rule = if case.config["optimizer"] == "SGD" {
            let momentum = 0.0;
            Rule::Sgd(Sgd {
                momentum,
                weight_decay,
            })
        } else {
            let beta = |i: usize| case.config["betas"][i].as_f64().unwrap();
            Rule::AdamW(AdamW {
                betas: (beta(0), beta(1)),
                eps: case.number("eps"),
                weight_decay,
            })
        };
        let anneal_steps = case.config["anneal_steps"].as_u64().unwrap();
        let rate = LearningRate {
            base: case.number("lr"),
            warmup_steps: 0,
            decay: match anneal_steps {
                0 => Decay::Constant,
                steps => Decay::Linear { steps },
            },
        };
        let params = vec![case.var("p0"), case.var("p1")];
        let starts = [case.tensor("p0"), case.tensor("p1")];
        let mut optimizer = Optimizer::new(rule, &params).unwrap();
        for step in 0..case.config["steps"].as_u64().unwrap() as usize {
            let grads = ["g0", "g1"].map(|name| Some(case.tensor(name).get(step).unwrap()));
            optimizer.step(&grads, rate.at(step as u64), 1.0).unwrap();
            for ((name, var), start) in params.iter().zip(starts) {
                let expected = format!("{name}_steps");
                case.check(&expected, Some(step), var);
                // The way made, relative to its own length: weights move by little more than the tolerance of the weights.
                let target = case.tensor(&expected).get(step).unwrap();
                let (made, wanted) = (
                    (var.as_tensor() - start).unwrap(),
                    (target - start).unwrap(),
                );
                let longest = flat(&wanted)
                    .iter()
                    .fold(0.0_f64, |max, v| max.max(v.abs()));
                for (made, wanted) in flat(&made).into_iter().zip(flat(&wanted)) {
                    let close = (made - wanted).abs() <= 5e-3 * longest + 3e-7;
                    assert!(
                        close,
                        "{} step {step}: moved {made} instead of {wanted}",
                        case.name
                    );
                }
            }
        }
        for (name, tensor) in optimizer.state().unwrap() {
            if let Some((kind, "p0")) = name.split_once('.')
                && kind != "step"
            {
                case.check(&format!("{kind}_p0"), None, &tensor);
            }
        }
    }
}

#[test]
fn clipped_gradients_equal_those_of_torch() {
    for case in Case::all("optim.clip_grad_norm") {
        let grads = ["g0", "g1"].map(|name| Some(case.tensor(name).clone()));
        let norm = global_norm(&grads).unwrap();
        let expected = f64::from(case.tensor("total_norm").to_scalar::<f32>().unwrap());
        assert!(
            (norm - expected).abs() <= case.atol + case.rtol * expected,
            "{norm} {expected}"
        );
        let coefficient = clip_coefficient(norm, case.number("max_norm"));
        for (i, grad) in grads.iter().flatten().enumerate() {
            let clipped = grad.affine(coefficient, 0.0).unwrap();
            case.check(&format!("clipped{i}"), None, &clipped);
        }
    }
}

#[test]
fn averages_equal_those_of_guided_diffusion() {
    for case in Case::all("optim.ema") {
        let params = vec![case.var("ema0")];
        let mut ema = Ema::new(case.number("rate"), EmaRamp::None, &params).unwrap();
        let rows = case.tensor("params");
        for step in 0..rows.dim(0).unwrap() {
            params[0].1.set(&rows.get(step).unwrap()).unwrap();
            ema.update().unwrap();
            case.check("ema_steps", Some(step), &ema.state().unwrap()[0].1);
        }
    }
}

#[test]
fn summed_micro_batches_equal_those_of_guided_diffusion() {
    for case in Case::all("optim.microbatch") {
        let size = case.config["microbatch"].as_u64().unwrap() as usize;
        let params = vec![case.var("w")];
        let (x, y) = (case.tensor("x"), case.tensor("y"));
        let n = x.dim(0).unwrap();
        let mut sum = Accumulator::new(MicroBatches::Summed, 1, n);
        for start in (0..n).step_by(size) {
            let len = size.min(n - start);
            let [x, y] = [x, y].map(|t| t.narrow(0, start, len).unwrap());
            let prediction = x.matmul(&params[0].1.t().unwrap()).unwrap();
            let loss = (prediction - y).unwrap().sqr().unwrap();
            let per_sample = loss.mean(1).unwrap();
            let store = per_sample.mean(0).unwrap().backward().unwrap();
            sum.add(&collect_gradients(&params, &store), len).unwrap();
        }
        let grads = sum.finish().unwrap();
        case.check("grad.w", None, grads[0].as_ref().unwrap());
    }
}
