//! What can be wrong with a schedule, a respacing, a weighting or a sampler.

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, ScheduleError>;

/// Why a schedule, a respacing, a weighting or a sampler could not be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// A process has too few steps.
    #[error("{what} needs at least {min} steps, found {n}")]
    TooFewSteps {
        /// What was to be made.
        what: &'static str,
        /// Number of steps asked for.
        n: usize,
        /// Smallest number of steps that works.
        min: usize,
    },
    /// A process has more steps than any that is known, and tables of them would fill the memory.
    #[error("a process has at most {max} steps, found {n}")]
    TooManySteps {
        /// Number of steps asked for.
        n: usize,
        /// Largest number of steps that is accepted.
        max: usize,
    },
    /// A beta is not a noise variance.
    #[error("beta[{index}] = {value} is outside (0, 1]")]
    BetaOutOfRange {
        /// Position in the list of betas.
        index: usize,
        /// The value found there.
        value: f64,
    },
    /// No noise schedule has this name.
    #[error("unknown noise schedule {name:?}, expected \"linear\" or \"cosine\"")]
    UnknownSchedule {
        /// The name given.
        name: String,
    },
    /// A respacing does not follow the grammar.
    #[error(
        "timestep respacing {text:?}: {part:?} is not a number of steps; expected \"\", \"ddimK\", \"K\" or \"A,B,..\""
    )]
    BadRespacing {
        /// The whole text.
        text: String,
        /// The part that could not be read.
        part: String,
    },
    /// No integer stride visits this many steps.
    #[error("no integer stride visits exactly {wanted} of {n_steps} steps (ddim{wanted}); the nearest that exist: {}", list(.nearest))]
    NoStride {
        /// Number of steps asked for.
        wanted: usize,
        /// Number of steps of the process.
        n_steps: usize,
        /// The nearest counts below and above that an integer stride reaches.
        nearest: Vec<usize>,
    },
    /// A section is asked for more steps than it has.
    #[error("section {section} has {size} steps, cannot keep {wanted} of them")]
    SectionTooShort {
        /// 0-based section.
        section: usize,
        /// Steps in the section.
        size: usize,
        /// Steps asked for.
        wanted: usize,
    },
    /// A respacing keeps nothing.
    #[error("timestep respacing {text:?} keeps no step")]
    NothingKept {
        /// The respacing as text.
        text: String,
    },
    /// Steps named one by one do not fit the process.
    #[error("steps {kept:?}: expected ascending steps below {n_steps}")]
    BadSteps {
        /// Number of steps of the process.
        n_steps: usize,
        /// The steps asked for.
        kept: Vec<usize>,
    },
    /// No weighting has this name.
    #[error(
        "unknown weighting {text:?}, expected \"constant\", \"p2\", \"p2-GAMMA\", \"snr\", \"snr-GAMMA\", \"min-snr-CAP\", \
         \"min-snr-CAP-eps\" or \"min-snr-CAP-v\""
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
        /// What is allowed.
        range: &'static str,
    },
    /// A table of weights cannot be sampled from.
    #[error("weight[{index}] = {value} cannot be sampled from, expected a finite number >= 0")]
    BadWeight {
        /// Position in the table.
        index: usize,
        /// The value found there.
        value: f64,
    },
    /// All weights of a table are zero (or there are none).
    #[error("none of the {n} weights is above zero, no timestep can be drawn")]
    NoWeight {
        /// Number of weights.
        n: usize,
    },
    /// No timestep sampler has this name.
    #[error("unknown timestep sampler {name:?}, expected \"uniform\" or \"loss-second-moment\"")]
    UnknownSampler {
        /// The name given.
        name: String,
    },
    /// A timestep is outside the process.
    #[error("timestep {t} is outside 0..{n_steps}")]
    TimestepOutOfRange {
        /// The timestep.
        t: usize,
        /// Number of steps of the process.
        n_steps: usize,
    },
    /// A loss that is not a number cannot be remembered.
    #[error("loss {loss} at timestep {t} is not finite")]
    BadLoss {
        /// The timestep.
        t: usize,
        /// The loss.
        loss: f64,
    },
    /// A saved sampler state does not fit.
    #[error("state of the timestep sampler: {what} has {found} entries, expected {expected}")]
    BadState {
        /// Which part.
        what: &'static str,
        /// Entries found.
        found: usize,
        /// Entries expected (for a count: the largest one).
        expected: usize,
    },
}

/// `40, 42` from `[40, 42]`.
fn list(counts: &[usize]) -> String {
    let texts: Vec<String> = counts.iter().map(usize::to_string).collect();
    texts.join(", ")
}
