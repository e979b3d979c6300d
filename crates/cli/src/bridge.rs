//! Functions of jobs for modules that still compute in this crate.

pub(crate) mod judge {
    use anyhow::Result;
    use sdft_eval::Extractor;
    use sdft_features::DigitsJudge;
    use std::path::Path;

    pub(crate) fn extractor() -> Result<Extractor> {
        Ok(sdft_jobs::judge_features()?)
    }

    pub(crate) fn load() -> Result<DigitsJudge> {
        Ok(sdft_jobs::load_judge()?)
    }

    pub(crate) fn second(path: &Path) -> Result<(DigitsJudge, Extractor)> {
        crate::job::job_on_cpu("judge", |context| sdft_jobs::second_judge(path, context))
    }
}

pub(crate) mod space {
    use crate::console::{note, size};
    use std::path::Path;

    pub(crate) fn warn(path: &Path, needed: u64) {
        sdft_gallery::space_warning(path, needed)
            .iter()
            .for_each(|text| note(text));
    }

    pub(crate) fn compared(path: &Path, needed: u64) -> String {
        match sdft_gallery::free_space(path) {
            None => String::new(),
            Some(free) if free < needed => {
                format!(", which is too much: only {} are free there", size(free))
            }
            Some(free) => format!(", {} free there", size(free)),
        }
    }
}

/// Fails between two steps once the user has asked for an end.
pub(crate) fn go_on() -> candle_core::Result<()> {
    if crate::runs::STOP.load(std::sync::atomic::Ordering::Relaxed) {
        candle_core::bail!("interrupted");
    }
    Ok(())
}
