//! From a strength to the step where a translation starts.

use candle_core::{Result, bail};
use sdft_diffusion::Diffusion;
use sdft_schedule::Schedule;

/// A share of the process's length in steps of the original process.
fn steps_of(t0: f64, n_original: usize) -> Result<f64> {
    if !(0.0..=1.0).contains(&t0) {
        bail!("t0: expected 0 to 1, found {t0}");
    }
    // A decimal fraction may be slightly below the step that it stands for.
    Ok(t0 * n_original as f64 + 1e-6)
}

/// The step to start from for a strength `t0`, part of the whole process: the last one whose original step is not beyond `t0 T`. `None`
/// at 0, where nothing is edited.
///
/// Of ddim40 and T = 1000, `t0 = 0.5` starts at the step 500, the 21st: the first reading of "40 steps".
///
/// # Errors
/// A strength outside 0 to 1.
pub fn start_of(diffusion: &Diffusion, t0: f64) -> Result<Option<usize>> {
    let schedule = &diffusion.schedule;
    let limit = steps_of(t0, schedule.n_original_steps())?;
    if t0 == 0.0 {
        return Ok(None);
    }
    let map = schedule.timestep_map();
    Ok(map.iter().rposition(|&t| t as f64 <= limit))
}

/// The step to start from for `t0 T` levels of noise, as the published samplers of SDEdit and EGSDE count: 500 levels begin at step 499.
/// `None` at 0. For processes with all their steps.
///
/// # Errors
/// A strength outside 0 to 1.
pub fn levels_of(diffusion: &Diffusion, t0: f64) -> Result<Option<usize>> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of steps"
    )]
    let levels = steps_of(t0, diffusion.n_steps())? as usize;
    Ok(levels.checked_sub(1))
}

/// The process that has all its `n` steps between 0 and `t0 T`, to be walked from its last step: the second reading of "40 steps".
///
/// The steps are `floor(t0 T i / (n - 1))`, as DiffusionCLIP's; equal ones count once.
///
/// # Errors
/// A strength outside 0 to 1, or so small that fewer than two steps remain.
pub fn steps_inside(schedule: &Schedule, t0: f64, n: usize) -> Result<Schedule> {
    let limit = steps_of(t0, schedule.n_steps())?.min((schedule.n_steps() - 1) as f64);
    let share = |i: usize| i as f64 / (n.max(2) - 1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positions below the number of steps"
    )]
    let mut kept: Vec<usize> = (0..n).map(|i| (share(i) * limit) as usize).collect();
    kept.dedup();
    schedule.keeping(&kept).map_err(candle_core::Error::wrap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_diffusion::Variance;
    use sdft_schedule::BetaSchedule;

    fn full() -> Schedule {
        Schedule::new(BetaSchedule::Linear, 1000).unwrap()
    }

    fn diffusion(steps: &str) -> Diffusion {
        let schedule = full().respaced(&steps.parse().unwrap()).unwrap();
        Diffusion::new(schedule, Variance::FixedSmall)
    }

    #[test]
    fn strengths_count_as_their_sources_do() {
        let coarse = diffusion("ddim40");
        assert_eq!(start_of(&coarse, 0.5).unwrap(), Some(20));
        assert_eq!(start_of(&coarse, 0.499).unwrap(), Some(19));
        assert_eq!(start_of(&coarse, 1.0).unwrap(), Some(39));
        assert_eq!(start_of(&coarse, 0.001).unwrap(), Some(0));
        assert_eq!(levels_of(&diffusion(""), 0.5).unwrap(), Some(499));
        assert_eq!(levels_of(&diffusion(""), 1.0).unwrap(), Some(999));
        let inside = steps_inside(&full(), 0.5, 40).unwrap();
        let map = inside.timestep_map();
        assert_eq!(map[..5], [0, 12, 25, 38, 51]);
        assert_eq!(map[35..], [448, 461, 474, 487, 500]);
        assert_eq!(
            steps_inside(&full(), 1.0, 40).unwrap().timestep_map()[39],
            999
        );
        for wrong in [-0.1, 1.1, f64::NAN] {
            let error = start_of(&coarse, wrong).unwrap_err().to_string();
            assert!(error.contains("t0: expected 0 to 1"), "{error}");
        }
        assert!(steps_inside(&full(), 0.0, 40).is_err());
    }
}
