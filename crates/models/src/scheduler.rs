//! diffusers' `scheduler_config.json` as a process.

use crate::Process;
use crate::beside::Settings;
use crate::error::ModelError;
use serde_json::{Value, json};

/// Schedulers of discrete steps that keep the variance, by how their names begin.
const KNOWN: [&str; 9] = [
    "DDPM",
    "DDIM",
    "PNDM",
    "DPMSolver",
    "UniPC",
    "DEIS",
    "LMSDiscrete",
    "Euler",
    "Heun",
];

/// The process that a network was trained on; what only concerns sampling is left to the command.
///
/// Source: diffusers 0.42 `DDPMScheduler`.
///
/// # Errors
/// All fields that make it another process than those known here, with what was expected.
pub(crate) fn process(settings: &Settings, learns_variance: bool) -> Result<Process, ModelError> {
    let get = |field: &str, default: Value| settings.fields.get(field).cloned().unwrap_or(default);
    let mut problems = Vec::new();
    let mut wrong = |field: &str, expected: &str, found: &Value| {
        problems.push(format!("  {field}: expected {expected}, found {found}"));
    };
    let class = get("_class_name", json!("DDPMScheduler"));
    if !class
        .as_str()
        .is_some_and(|name| KNOWN.iter().any(|known| name.starts_with(known)))
    {
        wrong(
            "_class_name",
            "a scheduler of discrete steps such as DDPMScheduler",
            &class,
        );
    }
    let prediction = get("prediction_type", json!("epsilon"));
    if prediction != "epsilon" {
        wrong("prediction_type", "\"epsilon\", the noise", &prediction);
    }
    let trained = get("trained_betas", Value::Null);
    if !trained.is_null() {
        wrong("trained_betas", "null", &json!("a list"));
    }
    let rescaled = get("rescale_betas_zero_snr", json!(false));
    if rescaled != false {
        wrong("rescale_betas_zero_snr", "false", &rescaled);
    }
    let steps = get("num_train_timesteps", json!(1000));
    let n_steps = steps
        .as_u64()
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(0);
    if n_steps == 0 {
        wrong("num_train_timesteps", "a whole number above 0", &steps);
    }
    let kind = get("beta_schedule", json!("linear"));
    let name = match kind.as_str() {
        Some("squaredcos_cap_v2") => "cosine",
        Some("linear") => {
            // ADM's linear schedule depends on the number of steps.
            let scale = 1000.0 / n_steps.max(1) as f64;
            for (field, expected) in [("beta_start", 1e-4 * scale), ("beta_end", 0.02 * scale)] {
                let default = if field == "beta_start" { 1e-4 } else { 0.02 };
                let found = get(field, json!(default));
                let close = |x: f64| (x - expected).abs() <= 1e-9 * expected;
                if !found.as_f64().is_some_and(close) {
                    wrong(field, &expected.to_string(), &found);
                }
            }
            "linear"
        }
        _ => {
            wrong(
                "beta_schedule",
                "\"linear\" or \"squaredcos_cap_v2\"",
                &kind,
            );
            "linear"
        }
    };
    let variance = get("variance_type", json!("fixed_small"));
    let fixed = variance.as_str().unwrap_or_default();
    let known = match learns_variance {
        true => ["learned_range", "", "", ""],
        false => [
            "fixed_small",
            "fixed_small_log",
            "fixed_large",
            "fixed_large_log",
        ],
    };
    if settings.fields.contains_key("variance_type") && !known.contains(&fixed) {
        let network = match learns_variance {
            true => "\"learned_range\", as the network puts out variances",
            false => "\"fixed_small\" or \"fixed_large\", as the network puts out none",
        };
        wrong("variance_type", network, &variance);
    }
    if !problems.is_empty() {
        return Err(ModelError::Problem {
            path: settings.path.clone(),
            problem: format!(
                "this process is not one of those known here\n{}",
                problems.join("\n")
            ),
        });
    }
    Ok(Process {
        noise_schedule: name.to_owned(),
        diffusion_steps: n_steps,
        sigma_small: fixed.starts_with("fixed_small"),
        rescale_timesteps: false,
    })
}
