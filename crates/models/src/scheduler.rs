//! diffusers' `scheduler_config.json` as a process, and a process as such a file.

use crate::error::{ModelError, brief};
use crate::folder::Settings;
use sdft_diffusion::{PredictionType, Process, Sampling};
use sdft_schedule::{BetaSchedule, Spacing};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Default ends of the betas in most schedulers.
const ADM: [f64; 2] = [1e-4, 0.02];
/// The same for schedulers of latents.
const LATENT: [f64; 2] = [0.00085, 0.012];

/// Schedulers of discrete steps that keep the variance, with their defaults of `beta_start`, `beta_end` and `beta_schedule`.
///
/// Whole names: `DDPMWuerstchenScheduler` has another process than `DDPMScheduler`.
const KNOWN: [(&str, [f64; 2], &str); 22] = [
    ("DDPMScheduler", ADM, "linear"),
    ("DDPMParallelScheduler", ADM, "linear"),
    ("DDIMScheduler", ADM, "linear"),
    ("DDIMParallelScheduler", ADM, "linear"),
    ("DDIMInverseScheduler", ADM, "linear"),
    ("PNDMScheduler", ADM, "linear"),
    ("DPMSolverMultistepScheduler", ADM, "linear"),
    ("DPMSolverMultistepInverseScheduler", ADM, "linear"),
    ("DPMSolverSinglestepScheduler", ADM, "linear"),
    ("DPMSolverSDEScheduler", LATENT, "linear"),
    ("UniPCMultistepScheduler", ADM, "linear"),
    ("DEISMultistepScheduler", ADM, "linear"),
    ("SASolverScheduler", ADM, "linear"),
    ("LMSDiscreteScheduler", ADM, "linear"),
    ("EulerDiscreteScheduler", ADM, "linear"),
    ("EulerAncestralDiscreteScheduler", ADM, "linear"),
    ("HeunDiscreteScheduler", LATENT, "linear"),
    ("KDPM2DiscreteScheduler", LATENT, "linear"),
    ("KDPM2AncestralDiscreteScheduler", LATENT, "linear"),
    ("LCMScheduler", LATENT, "scaled_linear"),
    ("TCDScheduler", LATENT, "scaled_linear"),
    ("RePaintScheduler", ADM, "linear"),
];

/// Fields about the steps of one of these classes. diffusers' DDIM and DDPM ignore them as well.
const SOLVERS: [&str; 30] = [
    "algorithm_type",
    "corrector_order",
    "disable_corrector",
    "eta",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "noise_sampler_seed",
    "original_inference_steps",
    "predict_x0",
    "predictor_order",
    "shift_terminal",
    "sigma_max",
    "sigma_min",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "tau_func",
    "tensor_format",
    "time_shift_type",
    "timestep_scaling",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
];

/// Fields of which one value is supported, as JSON.
const FIXED: [(&str, &str); 4] = [
    ("predict_epsilon", "true"),
    ("timestep_type", "\"discrete\""),
    ("timestep_values", "null"),
    ("use_flow_sigmas", "false"),
];

/// The fields of a file, read one by one; a field that does not fit becomes a problem, and its default is used.
struct Reader<'a> {
    fields: &'a Map<String, Value>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn wrong(&mut self, field: &str, expected: &str, found: &Value) {
        self.problems.push(format!(
            "  {field}: expected {expected}, found {}",
            brief(found)
        ));
    }

    fn read<T>(
        &mut self,
        field: &str,
        expected: &str,
        default: T,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let fields = self.fields;
        let Some(found) = fields.get(field) else {
            return default;
        };
        parse(found).unwrap_or_else(|| {
            self.wrong(field, expected, found);
            default
        })
    }

    fn flag(&mut self, field: &str, default: bool) -> bool {
        self.read(field, "true or false", default, Value::as_bool)
    }

    fn number(&mut self, field: &str, default: f64) -> f64 {
        self.read(field, "a number", default, Value::as_f64)
    }

    fn count(&mut self, field: &str, expected: &str, default: usize) -> usize {
        let count = |value: &Value| usize::try_from(value.as_u64()?).ok();
        self.read(field, expected, default, count)
    }
}

/// The fields of the process that a network was trained on, as `Process` names them, and how diffusers samples it.
///
/// Missing fields have the defaults of the class; without a class they are omitted. Fields of the sampler that a class does not have, such as
/// PNDM's `clip_sample`, have the defaults of `DDIMScheduler`, as after diffusers' `DDIMScheduler.from_config`.
///
/// Source: diffusers 0.42 `DDPMScheduler`, `DDIMScheduler`.
///
/// # Errors
/// Every field that is unknown or not supported, with the expected values.
pub(crate) fn process(
    settings: &Settings,
    learns_variance: bool,
) -> Result<Map<String, Value>, ModelError> {
    let mut reader = Reader {
        fields: &settings.fields,
        problems: Vec::new(),
    };
    let class = settings.fields.get("_class_name");
    let found = class.cloned().unwrap_or_else(|| json!("DDPMScheduler"));
    let known = KNOWN.iter().find(|(name, ..)| found == *name);
    if known.is_none() {
        let expected =
            "a scheduler of discrete steps that keeps the variance, such as DDPMScheduler";
        reader.wrong("_class_name", expected, &found);
    }
    let (ends, usual) = known.map_or((ADM, "linear"), |(_, ends, kind)| (*ends, *kind));
    let noise = noise(&mut reader, ends, usual);
    let sampling = sampling(&mut reader);
    let kind: PredictionType = reader.read(
        "prediction_type",
        "\"epsilon\", \"sample\" or \"v_prediction\"",
        PredictionType::Epsilon,
        |value| serde_json::from_value(value.clone()).ok(),
    );
    let is_small = variance(&mut reader, learns_variance);
    others(&mut reader);
    if !reader.problems.is_empty() {
        return Err(ModelError::Problem {
            path: settings.path.clone(),
            problem: format!(
                "this process is not supported\n{}",
                reader.problems.join("\n")
            ),
        });
    }
    let has = |fields: &[&str]| {
        let mut fields = fields.iter();
        class.is_some() || fields.any(|field| settings.fields.contains_key(*field))
    };
    let mut fields = Map::new();
    let mut put = |field: &str, value: Value| fields.insert(field.to_owned(), value);
    if has(&["beta_schedule", "trained_betas"]) {
        put("noise_schedule", noise.noise_schedule.into());
        put("beta_start", json!(noise.beta_start));
        put("beta_end", json!(noise.beta_end));
        put("trained_betas", json!(noise.trained_betas));
    }
    if has(&["rescale_betas_zero_snr"]) {
        let rescaled = noise.rescale_betas_zero_snr;
        put("rescale_betas_zero_snr", rescaled.into());
    }
    if has(&["num_train_timesteps"]) {
        put("diffusion_steps", noise.diffusion_steps.into());
    }
    if has(&["prediction_type"]) {
        put("prediction_type", kind.name().into());
    }
    if has(&["variance_type"]) {
        put("sigma_small", is_small.into());
    }
    // Every scheduler calls the network with the numbers of its steps.
    put("rescale_timesteps", false.into());
    put("sampling", json!(sampling));
    Ok(fields)
}

/// The process that a `scheduler_config.json` of a class describes. `path` is named in errors.
///
/// # Errors
/// Every field that is unknown or not supported, with the expected values; settings that contradict each other.
pub fn scheduler_process(
    path: &Path,
    fields: &Map<String, Value>,
    learns_variance: bool,
) -> Result<Process, ModelError> {
    let problem = |problem: String| ModelError::Problem {
        path: path.to_owned(),
        problem,
    };
    let mut fields = fields.clone();
    fields
        .entry("_class_name")
        .or_insert_with(|| json!("DDPMScheduler"));
    let settings = Settings {
        path: path.to_owned(),
        fields,
    };
    let stated = process(&settings, learns_variance)?;
    let process: Process = serde_json::from_value(Value::Object(stated))
        .map_err(|e| problem(format!("process: {}", brief(e))))?;
    process.check().map_err(|e| problem(e.to_string()))?;
    Ok(process)
}

/// The noise schedule, in the noise fields of a process.
fn noise(reader: &mut Reader<'_>, [start, end]: [f64; 2], usual: &str) -> Process {
    let n_steps = reader.count("num_train_timesteps", "a whole number", 1000);
    if n_steps == 0 {
        let found = json!(0);
        reader.wrong("num_train_timesteps", "a whole number above 0", &found);
    }
    let usual = usual.parse().unwrap_or_default();
    let kind: BetaSchedule = reader.read(
        "beta_schedule",
        "\"linear\", \"scaled_linear\", \"squaredcos_cap_v2\", \"sigmoid\" or \"laplace\"",
        usual,
        |value| {
            value
                .as_str()
                .filter(|name| *name != "cosine")?
                .parse()
                .ok()
        },
    );
    let ends = [
        reader.number("beta_start", start),
        reader.number("beta_end", end),
    ];
    // guided-diffusion's linear schedule depends on the number of steps.
    let scale = match kind {
        BetaSchedule::Linear => 1000.0 / n_steps.max(1) as f64,
        _ => 1.0,
    };
    let close = |(found, usual): (&f64, f64)| (found - usual * scale).abs() <= 1e-9 * usual * scale;
    let are_usual = !kind.has_ends() || ends.iter().zip(ADM).all(close);
    let ends = match are_usual {
        true => [None, None],
        false => ends.map(Some),
    };
    let numbers = |value: &Value| -> Option<Vec<f64>> {
        match value {
            Value::Null => Some(Vec::new()),
            Value::Array(values) if values.is_empty() => None,
            Value::Array(values) => values.iter().map(Value::as_f64).collect(),
            _ => None,
        }
    };
    let expected = format!("null or a list of {n_steps} numbers, one for each step");
    let fits = |values: &Vec<f64>| values.is_empty() || values.len() == n_steps;
    let trained_betas = reader.read("trained_betas", &expected, Vec::new(), |value| {
        numbers(value).filter(fits)
    });
    Process {
        noise_schedule: kind.name().to_owned(),
        diffusion_steps: n_steps,
        beta_start: ends[0],
        beta_end: ends[1],
        trained_betas,
        rescale_betas_zero_snr: reader.flag("rescale_betas_zero_snr", false),
        ..Process::default()
    }
}

/// How DDIM and DDPM sample with these settings.
fn sampling(reader: &mut Reader<'_>) -> Sampling {
    let usual = Sampling::default();
    Sampling {
        clip_sample: reader.flag("clip_sample", usual.clip_sample),
        clip_sample_range: reader.number("clip_sample_range", usual.clip_sample_range),
        thresholding: reader.flag("thresholding", usual.thresholding),
        dynamic_thresholding_ratio: reader.number(
            "dynamic_thresholding_ratio",
            usual.dynamic_thresholding_ratio,
        ),
        sample_max_value: reader.number("sample_max_value", usual.sample_max_value),
        timestep_spacing: reader.read(
            "timestep_spacing",
            "\"leading\", \"linspace\" or \"trailing\"",
            usual.timestep_spacing,
            |value| value.as_str()?.parse::<Spacing>().ok(),
        ),
        steps_offset: reader.count("steps_offset", "a whole number", usual.steps_offset),
        set_alpha_to_one: reader.flag("set_alpha_to_one", usual.set_alpha_to_one),
    }
}

/// Whether the smaller fixed variance is meant. Solvers without an own variance write null.
fn variance(reader: &mut Reader<'_>, learns_variance: bool) -> bool {
    let (known, expected) = match learns_variance {
        true => (
            &["learned_range"][..],
            "\"learned_range\", as the network returns variances",
        ),
        false => (
            &[
                "fixed_small",
                "fixed_small_log",
                "fixed_large",
                "fixed_large_log",
            ][..],
            "\"fixed_small\" or \"fixed_large\", as the network returns no variances",
        ),
    };
    reader.read("variance_type", expected, true, |value| match value {
        Value::Null => Some(true),
        _ => {
            let name = value.as_str().filter(|name| known.contains(name))?;
            Some(name.starts_with("fixed_small"))
        }
    })
}

/// Refuses fields that are neither read above nor without effect here.
fn others(reader: &mut Reader<'_>) {
    const READ: [&str; 16] = [
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
        "prediction_type",
        "variance_type",
        "clip_sample",
        "clip_sample_range",
        "thresholding",
        "dynamic_thresholding_ratio",
        "sample_max_value",
        "timestep_spacing",
        "steps_offset",
        "set_alpha_to_one",
    ];
    let fields = reader.fields;
    for (field, found) in fields {
        let fixed = FIXED.iter().find(|(name, _)| name == field);
        match fixed {
            Some((_, only)) => {
                if serde_json::from_str::<Value>(only).ok().as_ref() != Some(found) {
                    reader.wrong(field, only, found);
                }
            }
            // The class, the library's version, where the file came from.
            None if field.starts_with('_') => {}
            None if READ.contains(&field.as_str()) || SOLVERS.contains(&field.as_str()) => {}
            None => {
                let problem = format!("  {field}: unknown field, found {}", brief(found));
                reader.problems.push(problem);
            }
        }
    }
}

/// The `scheduler_config.json` of a process, which [`scheduler_process`] reads as the same process.
///
/// It is the configuration of a `DDPMScheduler`, or of a `DDIMScheduler` where the last step does not lead to the image. A process that guided-diffusion
/// samples gets the settings that are nearest: evenly spaced steps and clamped images.
///
/// # Errors
/// A process that no scheduler of diffusers has.
pub fn scheduler_config(
    process: &Process,
    learns_variance: bool,
) -> Result<Map<String, Value>, ModelError> {
    let refused = |problem: String| ModelError::Problem {
        path: "scheduler_config.json".into(),
        problem,
    };
    process.check().map_err(|e| refused(e.to_string()))?;
    if process.continuous.is_some() {
        return Err(refused(
            "process.continuous: expected none, as diffusers' DDPMScheduler has discrete steps"
                .to_owned(),
        ));
    }
    if process.rescale_timesteps && process.diffusion_steps != 1000 {
        return Err(refused(format!(
            "diffusers calls a network with the steps as they are counted; process.rescale_timesteps: expected false, or 1000 steps, found {} steps",
            process.diffusion_steps
        )));
    }
    let kind: BetaSchedule = process
        .noise_schedule
        .parse()
        .map_err(|e| refused(brief(e)))?;
    let scale = match kind {
        BetaSchedule::Linear => 1000.0 / process.diffusion_steps as f64,
        _ => 1.0,
    };
    let name = match kind {
        BetaSchedule::Cosine => "squaredcos_cap_v2",
        _ => kind.name(),
    };
    let trained = match process.trained_betas.is_empty() {
        true => Value::Null,
        false => json!(process.trained_betas),
    };
    let variance = match (learns_variance, process.sigma_small) {
        (true, _) => "learned_range",
        (false, true) => "fixed_small",
        (false, false) => "fixed_large",
    };
    let mut fields = Map::new();
    let mut put = |field: &str, value: Value| fields.insert(field.to_owned(), value);
    put("_class_name", "DDPMScheduler".into());
    put("num_train_timesteps", process.diffusion_steps.into());
    put("beta_schedule", name.into());
    let [start, end] = ADM.map(|usual| usual * scale);
    put("beta_start", process.beta_start.unwrap_or(start).into());
    put("beta_end", process.beta_end.unwrap_or(end).into());
    put("trained_betas", trained);
    let rescaled = process.rescale_betas_zero_snr;
    put("rescale_betas_zero_snr", rescaled.into());
    put("prediction_type", process.prediction_type.name().into());
    put("variance_type", variance.into());
    let sampling = process.sampling.unwrap_or(Sampling {
        clip_sample: !process.unbounded,
        ..Sampling::default()
    });
    match serde_json::to_value(sampling) {
        Ok(Value::Object(sampling)) => fields.extend(sampling),
        Ok(_) | Err(_) => return Err(refused("process.sampling cannot be written".to_owned())),
    }
    // `DDPMScheduler` has no such field.
    if sampling.set_alpha_to_one {
        fields.remove("set_alpha_to_one");
    } else {
        fields.insert("_class_name".to_owned(), "DDIMScheduler".into());
    }
    Ok(fields)
}
