//! Tables, weights and indices compared with the reference implementations.

use std::{collections::BTreeMap, fs, path::PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sdft_schedule::{BetaSchedule, Respacing, Schedule, Weighting};
use serde_json::Value;

struct Case {
    name: String,
    config: Value,
    atol: f64,
    rtol: f64,
    expected: BTreeMap<String, Vec<f64>>,
}

impl Case {
    /// All cases of one kind, sorted by folder name.
    fn all(kind: &str) -> Vec<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity/schedule");
        let mut folders: Vec<PathBuf> = fs::read_dir(&root)
            .unwrap_or_else(|e| panic!("{}: {e}", root.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        folders.sort();
        let cases: Vec<Self> = folders
            .iter()
            .filter_map(|folder| Self::load(folder, kind))
            .collect();
        assert!(!cases.is_empty(), "no case of kind {kind}");
        cases
    }

    fn load(folder: &std::path::Path, kind: &str) -> Option<Self> {
        let case: Value =
            serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap();
        if case["kind"] != kind {
            return None;
        }
        let bytes = fs::read(folder.join("tensors.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes)
            .unwrap()
            .tensors()
            .iter()
            .map(|(name, tensor)| (name.clone(), numbers(tensor)))
            .collect();
        Some(Self {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            config: case["config"].clone(),
            atol: case["tolerance"]["atol"].as_f64().unwrap(),
            rtol: case["tolerance"]["rtol"].as_f64().unwrap(),
            expected,
        })
    }

    fn schedule(&self) -> Schedule {
        let kind: BetaSchedule = self.config["noise_schedule"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let n = self.config["diffusion_steps"].as_u64().unwrap() as usize;
        let respacing = self.config["timestep_respacing"].as_str().unwrap_or("");
        let respacing: Respacing = respacing.parse().unwrap();
        Schedule::new(kind, n)
            .unwrap()
            .respaced(&respacing)
            .unwrap()
    }

    fn check(&self, tensor: &str, got: &[f64]) {
        let expected = &self.expected[tensor];
        let what = format!("{}/{tensor}", self.name);
        assert_eq!(got.len(), expected.len(), "{what}");
        let scale = expected.iter().fold(0.0_f64, |max, v| max.max(v.abs()));
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            let close = (got - expected).abs() <= self.atol + self.rtol * scale;
            assert!(close, "{what}[{i}]: {got} instead of {expected}");
        }
    }
}

fn numbers(tensor: &TensorView<'_>) -> Vec<f64> {
    let words = tensor
        .data()
        .chunks_exact(8)
        .map(|word| <[u8; 8]>::try_from(word).unwrap());
    match tensor.dtype() {
        Dtype::F64 => words.map(f64::from_le_bytes).collect(),
        Dtype::I64 => words.map(|word| i64::from_le_bytes(word) as f64).collect(),
        other => panic!("unexpected dtype {other:?}"),
    }
}

fn indices(values: &[usize]) -> Vec<f64> {
    values.iter().map(|&i| i as f64).collect()
}

#[test]
fn tables_equal_those_of_guided_diffusion() {
    for case in Case::all("schedule.table") {
        let s = case.schedule();
        let tables = [
            ("alphas_cumprod", s.alpha_bar()),
            ("alphas_cumprod_next", s.alpha_bar_next()),
            ("alphas_cumprod_prev", s.alpha_bar_prev()),
            ("betas", s.betas()),
            ("log_one_minus_alphas_cumprod", s.log_one_minus_alpha_bar()),
            (
                "posterior_log_variance_clipped",
                s.posterior_log_variance_clipped(),
            ),
            ("posterior_mean_coef1", s.posterior_mean_coef1()),
            ("posterior_mean_coef2", s.posterior_mean_coef2()),
            ("posterior_variance", s.posterior_variance()),
            ("snr", s.snr()),
            ("sqrt_alphas_cumprod", s.sqrt_alpha_bar()),
            (
                "sqrt_one_minus_alphas_cumprod",
                s.sqrt_one_minus_alpha_bar(),
            ),
            ("sqrt_recip_alphas_cumprod", s.sqrt_recip_alpha_bar()),
            ("sqrt_recipm1_alphas_cumprod", s.sqrt_recipm1_alpha_bar()),
        ];
        assert_eq!(tables.len() + 1, case.expected.len(), "{}", case.name);
        for (name, table) in tables {
            case.check(name, table);
        }
        case.check("timestep_map", &indices(s.timestep_map()));
    }
}

#[test]
fn weights_equal_those_of_p2_and_the_closed_forms() {
    for case in Case::all("schedule.weights") {
        let schedule = case.schedule();
        let k = case.config["p2_k"].as_f64().unwrap();
        let cap = case.config["min_snr_gamma"].as_f64().unwrap();
        let gammas = |key: &str| case.config[key].as_array().unwrap().clone();
        let mut checked = 1;
        case.check("snr", schedule.snr());
        let mut check = |name: &str, weighting: Weighting| {
            case.check(name, &weighting.weights(&schedule));
            checked += 1;
        };
        for gamma in gammas("p2_gammas") {
            let weighting = Weighting::P2 {
                k,
                gamma: gamma.as_f64().unwrap(),
            };
            check(&format!("p2_gamma{gamma}"), weighting);
        }
        for gamma in gammas("distill_gammas") {
            let weighting = Weighting::Snr {
                k: 1.0,
                gamma: gamma.as_f64().unwrap(),
            };
            check(&format!("distill_gamma{gamma}"), weighting);
        }
        check("min_snr_clamp", Weighting::MinSnr { cap });
        check("min_snr_eps", Weighting::MinSnrEps { cap });
        assert_eq!(checked, case.expected.len(), "{}", case.name);
    }
}

#[test]
fn respacing_keeps_the_same_steps_as_guided_diffusion() {
    for case in Case::all("schedule.respacing") {
        let n = case.config["num_timesteps"].as_u64().unwrap() as usize;
        for text in case.config["section_counts"].as_array().unwrap() {
            let text = text.as_str().unwrap();
            let kept = text.parse::<Respacing>().unwrap().indices(n).unwrap();
            case.check(&format!("idx.{text}"), &indices(&kept));
        }
    }
}
