//! diffusers' `scheduler_config.json` as a process.

use crate::error::{ModelError, brief};
use crate::siblings::Settings;
use sdft_diffusion::PredictionType;
use serde_json::{Map, Value, json};

/// Default ends of the linear schedule in most schedulers.
const ADM: [f64; 2] = [1e-4, 0.02];
/// The same for schedulers of latents.
const LATENT: [f64; 2] = [0.00085, 0.012];

/// Schedulers of discrete steps that keep the variance, with their defaults of `beta_start` and `beta_end`.
///
/// Whole names: `DDPMWuerstchenScheduler` has another process than `DDPMScheduler`.
const KNOWN: [(&str, [f64; 2]); 16] = [
    ("DDPMScheduler", ADM),
    ("DDPMParallelScheduler", ADM),
    ("DDIMScheduler", ADM),
    ("DDIMParallelScheduler", ADM),
    ("DDIMInverseScheduler", ADM),
    ("PNDMScheduler", ADM),
    ("DPMSolverMultistepScheduler", ADM),
    ("DPMSolverMultistepInverseScheduler", ADM),
    ("DPMSolverSinglestepScheduler", ADM),
    ("DPMSolverSDEScheduler", LATENT),
    ("UniPCMultistepScheduler", ADM),
    ("DEISMultistepScheduler", ADM),
    ("LMSDiscreteScheduler", ADM),
    ("EulerDiscreteScheduler", ADM),
    ("EulerAncestralDiscreteScheduler", ADM),
    ("HeunDiscreteScheduler", LATENT),
];

/// The fields of the process that a network was trained on, as `Process` names them; fields that only affect sampling are ignored.
///
/// Missing fields have the defaults of the class; without a class they are omitted.
///
/// Source: diffusers 0.42 `DDPMScheduler`.
///
/// # Errors
/// Every field that is not supported, with the expected values.
pub(crate) fn process(
    settings: &Settings,
    learns_variance: bool,
) -> Result<Map<String, Value>, ModelError> {
    let get = |field: &str, default: Value| settings.fields.get(field).cloned().unwrap_or(default);
    let mut problems = Vec::new();
    let mut wrong = |field: &str, expected: &str, found: &Value| {
        problems.push(format!(
            "  {field}: expected {expected}, found {}",
            brief(found)
        ));
    };
    let class = get("_class_name", json!("DDPMScheduler"));
    let known = KNOWN.iter().find(|(name, _)| class == *name);
    if known.is_none() {
        wrong(
            "_class_name",
            "a scheduler of discrete steps such as DDPMScheduler",
            &class,
        );
    }
    let [start, end] = known.map_or(ADM, |(_, ends)| *ends);
    let prediction = get("prediction_type", json!("epsilon"));
    if serde_json::from_value::<PredictionType>(prediction.clone()).is_err() {
        let expected = "\"epsilon\", \"sample\" or \"v_prediction\"";
        wrong("prediction_type", expected, &prediction);
    }
    let flow = get("use_flow_sigmas", json!(false));
    if flow != false {
        wrong("use_flow_sigmas", "false", &flow);
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
            for (field, default, adm) in [("beta_start", start, ADM[0]), ("beta_end", end, ADM[1])]
            {
                let expected = adm * scale;
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
            true => "\"learned_range\", as the network returns variances",
            false => "\"fixed_small\" or \"fixed_large\", as the network returns no variances",
        };
        wrong("variance_type", network, &variance);
    }
    if !problems.is_empty() {
        return Err(ModelError::Problem {
            path: settings.path.clone(),
            problem: format!("this process is not supported\n{}", problems.join("\n")),
        });
    }
    let has = |field: &str| {
        ["_class_name", field]
            .iter()
            .any(|f| settings.fields.contains_key(*f))
    };
    let mut fields = Map::new();
    if has("beta_schedule") {
        fields.insert("noise_schedule".into(), name.into());
    }
    if has("num_train_timesteps") {
        fields.insert("diffusion_steps".into(), n_steps.into());
    }
    if has("prediction_type") {
        fields.insert("prediction_type".into(), prediction);
    }
    if has("variance_type") {
        let small = fixed.starts_with("fixed_small");
        fields.insert("sigma_small".into(), small.into());
    }
    // Every scheduler gives the network its steps as they are counted.
    fields.insert("rescale_timesteps".into(), false.into());
    Ok(fields)
}
