use sdft_diffusion::{Diffusion, Variance};
use sdft_schedule::{BetaSchedule, Respacing, Schedule, ScheduleError};
use serde::{Deserialize, Serialize};

/// More steps than any process has.
const MAX_STEPS: usize = 100_000;

/// The diffusion process that a network was trained on; field names follow guided-diffusion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// `linear` or `cosine`.
    pub noise_schedule: String,
    /// Number of steps, T.
    pub diffusion_steps: usize,
    /// The smaller of the two fixed variances, for networks that do not learn theirs.
    pub sigma_small: bool,
    /// The network sees time in thousandths of the process instead of steps.
    pub rescale_timesteps: bool,
}

impl Default for Process {
    /// Linear, 1000 steps: that of every public ADM checkpoint.
    fn default() -> Self {
        Self {
            noise_schedule: "linear".to_owned(),
            diffusion_steps: 1000,
            sigma_small: false,
            rescale_timesteps: false,
        }
    }
}

impl Process {
    /// The process on tensors, with only the steps that `respacing` keeps.
    ///
    /// # Errors
    /// An unknown schedule, too few steps, a respacing that the steps do not allow.
    pub fn diffusion(
        &self,
        learns_variance: bool,
        respacing: &Respacing,
    ) -> Result<Diffusion, ScheduleError> {
        let kind: BetaSchedule = self.noise_schedule.parse()?;
        let schedule = Schedule::new(kind, self.diffusion_steps)?.respaced(respacing)?;
        let variance = match (learns_variance, self.sigma_small) {
            (true, _) => Variance::LearnedRange,
            (false, true) => Variance::FixedSmall,
            (false, false) => Variance::FixedLarge,
        };
        Ok(Diffusion {
            schedule,
            variance,
            rescale_timesteps: self.rescale_timesteps,
        })
    }

    /// Every step of the process with its tables in single precision, as the published samplers of SDEdit, EGSDE and Asyrp have them, and the
    /// smaller fixed variance.
    ///
    /// # Errors
    /// An unknown schedule, too few steps.
    pub fn published(&self) -> Result<Diffusion, ScheduleError> {
        let kind: BetaSchedule = self.noise_schedule.parse()?;
        Ok(Diffusion {
            schedule: Schedule::from_betas_in_f32(&kind.betas(self.diffusion_steps)?)?,
            variance: Variance::FixedSmall,
            rescale_timesteps: self.rescale_timesteps,
        })
    }

    /// Fails unless the schedule is a known one of as many steps as it can have.
    ///
    /// # Errors
    /// The field, what was expected and what was found.
    pub fn check(&self) -> Result<(), String> {
        let n = self.diffusion_steps;
        if n > MAX_STEPS {
            return Err(format!(
                "process.diffusion_steps: expected at most {MAX_STEPS}, found {n}"
            ));
        }
        let kind: Result<BetaSchedule, _> = self.noise_schedule.parse();
        let kind = kind.map_err(|e| format!("process.noise_schedule: {e}"))?;
        let schedule = Schedule::new(kind, n);
        schedule.map_err(|e| format!("process.diffusion_steps: {e}"))?;
        Ok(())
    }

    /// Why images cannot be edited with such a process, if they cannot.
    ///
    /// # Errors
    /// An unknown schedule or too few steps; a network that does not see the steps as they are counted, which editing assumes.
    pub fn check_editable(&self) -> Result<(), String> {
        self.published().map_err(|e| e.to_string())?;
        if self.rescale_timesteps && self.diffusion_steps != 1000 {
            return Err(format!(
                "edits walk the steps as the network sees them; expected 1000 of them or no rescaling, found {}",
                self.diffusion_steps
            ));
        }
        Ok(())
    }
}
