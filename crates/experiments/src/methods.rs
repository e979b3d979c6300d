//! Methods of fine-tuning: a preset with other settings, trained once for each seed.

use sdft_jobs::{Context, Error, Result, train_preset};
use std::path::{Path, PathBuf};

/// A method that is compared with others.
#[derive(Clone, Copy)]
pub(crate) struct Method {
    pub(crate) label: &'static str,
    /// The title of its samples in the picture; without one they are not shown.
    pub(crate) title: &'static str,
    pub(crate) preset: &'static str,
    /// Settings on top of the preset's.
    pub(crate) set: &'static [&'static str],
    /// Whether its models are measured in translation and editing, too.
    pub(crate) translates: bool,
    /// Whether it starts from the source model as a `UNet2DModel` of diffusers.
    pub(crate) of_diffusers: bool,
}

impl Method {
    /// The preset as it is, measured by its samples alone.
    pub(crate) const fn of(label: &'static str, preset: &'static str) -> Self {
        Self {
            label,
            title: "",
            preset,
            set: &[],
            translates: false,
            of_diffusers: false,
        }
    }

    /// The name of a run of this method.
    pub(crate) fn run_name(&self, seed: usize) -> String {
        let settings = self.set.iter().map(|set| set.replace(['.', '='], "-"));
        let kind = self.of_diffusers.then(|| "unet2d".to_owned());
        let parts: Vec<String> = std::iter::once(self.preset.to_owned())
            .chain(settings)
            .chain(kind)
            .collect();
        format!("{}-seed{seed}", parts.join("-"))
    }

    /// Trains the model of a seed in a folder of `out`, unless it exists there. `more` are settings on top of the method's.
    ///
    /// # Errors
    /// An error of training, or [`interrupted`].
    pub(crate) fn train(
        &self,
        seed: usize,
        more: &[String],
        out: &Path,
        context: &mut Context<'_>,
    ) -> Result<PathBuf> {
        let root = out.join(self.run_name(seed));
        let seed = format!("seed={seed}");
        let more = more.iter().map(String::as_str);
        let all: Vec<&str> = self
            .set
            .iter()
            .copied()
            .chain([&*seed])
            .chain(more)
            .collect();
        train_preset(self.preset, &all, &root, context)?.ok_or_else(interrupted)
    }
}

/// The error that leaves an experiment after the caller stopped it.
pub(crate) fn interrupted() -> Error {
    Error::Failed("interrupted".to_owned())
}

/// `None` for an error of a job that the caller stopped.
pub(crate) fn unless_stopped<T>(result: Result<T>, context: &Context<'_>) -> Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(_) if context.is_stopped() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_different_settings_have_different_names() {
        let plain = Method::of("naive", "digits-naive");
        let set = Method {
            set: &["loop.steps=50"],
            ..plain
        };
        let other = Method {
            of_diffusers: true,
            ..plain
        };
        let names = [plain, set, other].map(|method| method.run_name(2));
        assert_eq!(
            names,
            [
                "digits-naive-seed2",
                "digits-naive-loop-steps-50-seed2",
                "digits-naive-unet2d-seed2"
            ]
        );
    }
}
