//! The error type of this crate.

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, ScheduleError>;

/// Why a schedule, a respacing, a weighting or a sampler is invalid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// A process has too few steps.
    #[error("{what} needs at least {min} steps, found {n}")]
    TooFewSteps {
        /// What needs the steps.
        what: &'static str,
        /// Requested number of steps.
        n: usize,
        /// Smallest valid number of steps.
        min: usize,
    },
    /// A process has so many steps that its tables would fill the memory.
    #[error("a process has at most {max} steps, found {n}")]
    TooManySteps {
        /// Requested number of steps.
        n: usize,
        /// Largest valid number of steps.
        max: usize,
    },
    /// A beta is outside (0, 1].
    #[error("beta[{index}] = {value} is outside (0, 1]")]
    BetaOutOfRange {
        /// Index in the list of betas.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// A step of a process adds no noise in single precision.
    #[error(
        "step {step} adds no noise in single precision (alpha_bar = {alpha_bar:e} before and after it): expected larger betas, or smaller ones \
         where alpha_bar is nearly 0"
    )]
    AddsNoNoise {
        /// The step.
        step: usize,
        /// Its `alpha_bar`.
        alpha_bar: f64,
    },
    /// The first or last beta of a schedule is outside (0, 1].
    #[error("first and last beta: expected above 0 and at most 1, found {value}")]
    EndOutOfRange {
        /// The value given.
        value: f64,
    },
    /// A schedule has no first and last beta that can be chosen.
    #[error("the {name} noise schedule has no first and last beta; leave them out")]
    NoEnds {
        /// The schedule.
        name: &'static str,
    },
    /// A list of betas has another length than the process.
    #[error("expected one beta for each of the {n_steps} steps, found {found}")]
    BetaCount {
        /// Number of betas found.
        found: usize,
        /// Number of steps of the process.
        n_steps: usize,
    },
    /// A process ends in pure noise, and its network predicts the noise.
    #[error(
        "the last step is pure noise (alpha_bar = 0), where a predicted noise says nothing about the image: prediction_type epsilon does not go \
         with rescale_betas_zero_snr; expected \"sample\" or \"v_prediction\""
    )]
    NoSignal,
    /// No noise schedule has this name.
    #[error(
        "unknown noise schedule {name:?}, expected \"linear\", \"cosine\", \"scaled_linear\", \"squaredcos_cap_v2\", \"sigmoid\" or \"laplace\""
    )]
    UnknownSchedule {
        /// The name given.
        name: String,
    },
    /// A respacing cannot be parsed.
    #[error(
        "timestep respacing {text:?}: {part:?} is not a number of steps; expected \"\", \"ddimK\", \"K\" or \"A,B,..\""
    )]
    BadRespacing {
        /// The whole text.
        text: String,
        /// The part that cannot be parsed.
        part: String,
    },
    /// No integer stride visits this many steps.
    #[error("no integer stride visits exactly {wanted} of {n_steps} steps (ddim{wanted}); the nearest possible numbers: {}", list(.nearest))]
    NoStride {
        /// Requested number of steps.
        wanted: usize,
        /// Number of steps of the process.
        n_steps: usize,
        /// The nearest possible numbers below and above.
        nearest: Vec<usize>,
    },
    /// A process does not have this many steps to visit.
    #[error("expected from 1 to {n_steps} steps, found {wanted}")]
    StepCount {
        /// Requested number of steps.
        wanted: usize,
        /// Number of steps of the process.
        n_steps: usize,
    },
    /// An offset shifts the last step beyond the process.
    #[error(
        "an offset of {offset} shifts the last step to {last}, beyond the {n_steps} steps of the process; visit fewer steps"
    )]
    OffsetTooLarge {
        /// The offset.
        offset: usize,
        /// The last step.
        last: usize,
        /// Number of steps of the process.
        n_steps: usize,
    },
    /// No spacing of steps has this name.
    #[error(
        "unknown timestep spacing {name:?}, expected \"leading\", \"linspace\" or \"trailing\""
    )]
    UnknownSpacing {
        /// The name given.
        name: String,
    },
    /// A section of a respacing has fewer steps than requested.
    #[error("section {section} of the process: expected at most its {size} steps, found {wanted}")]
    SectionTooShort {
        /// Index of the section, from 0.
        section: usize,
        /// Number of steps in the section.
        size: usize,
        /// Requested number of steps.
        wanted: usize,
    },
    /// A respacing keeps no step.
    #[error("timestep respacing {text:?} keeps no step")]
    NothingKept {
        /// The respacing as text.
        text: String,
    },
    /// A list of steps is not ascending or does not fit the process.
    #[error("steps {kept:?}: expected ascending steps below {n_steps}")]
    BadSteps {
        /// Number of steps of the process.
        n_steps: usize,
        /// The requested steps.
        kept: Vec<usize>,
    },
    /// No weighting has this name.
    #[error(
        "unknown weighting {text:?}, expected \"constant\", \"p2\", \"p2-GAMMA\", \"snr\", \"snr-GAMMA\", \"min-snr-CAP\", \
         \"min-snr-CAP-eps\", \"min-snr-CAP-v\", \"edm\" or \"edm-SIGMA_DATA\""
    )]
    UnknownWeighting {
        /// The text given.
        text: String,
    },
    /// A parameter of a weighting is outside its range.
    #[error("weighting {weighting}: {parameter} = {value} is outside {range}")]
    WeightingOutOfRange {
        /// Name of the weighting.
        weighting: &'static str,
        /// Name of the parameter.
        parameter: &'static str,
        /// The value given.
        value: f64,
        /// The valid range.
        range: &'static str,
    },
    /// A weight is negative or not finite.
    #[error("weight[{index}] = {value} is not a weight, expected a finite number >= 0")]
    BadWeight {
        /// Index in the table.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// All weights are zero, or there are none.
    #[error("none of the {n} weights is above zero, so no timestep can be drawn")]
    NoWeight {
        /// Number of weights.
        n: usize,
    },
    /// No timestep sampler has this name.
    #[error(
        "unknown timestep sampler {name:?}, expected \"uniform\", \"loss-second-moment\" or \"power-P\" with P from 0, as \"power-1\""
    )]
    UnknownSampler {
        /// The name given.
        name: String,
    },
    /// A timestep is out of range.
    #[error("timestep {t} is outside 0..{n_steps}")]
    TimestepOutOfRange {
        /// The timestep.
        t: usize,
        /// Number of steps of the process.
        n_steps: usize,
    },
    /// A loss is NaN or infinite.
    #[error("loss {loss} at timestep {t} is not finite")]
    BadLoss {
        /// The timestep.
        t: usize,
        /// The loss.
        loss: f64,
    },
    /// A saved state of a sampler does not match.
    #[error("state of the timestep sampler: {what} has {found} entries, expected {expected}")]
    BadState {
        /// Which part of the state.
        what: &'static str,
        /// Number of entries found.
        found: usize,
        /// Number of entries expected (for a count: the maximum).
        expected: usize,
    },
}

/// Formats `[40, 42]` as `40, 42`.
fn list(counts: &[usize]) -> String {
    let texts: Vec<String> = counts.iter().map(usize::to_string).collect();
    texts.join(", ")
}
