//! The images of a run and their inversions, as every method needs them.

use candle_core::{Device, Tensor};
use sdft_asyrp::InversionCache;
use sdft_autoencoder::Space;
use sdft_data::ImageSource;
use sdft_diffusion::Denoiser;
use sdft_imaging::write_png;
use sdft_schedule::Schedule;
use sdft_train::{Progress, Result, RunFolder, TrainError, sheet, to_screens, to_tensor};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The images of a run, and the model that inverts them.
pub(crate) struct Inverted<'a> {
    /// The unchanged model.
    pub(crate) net: &'a dyn Denoiser,
    pub(crate) schedule: Schedule,
    /// The steps of an inversion.
    pub(crate) steps: Vec<usize>,
    pub(crate) data: &'a dyn ImageSource,
    /// The way between the images and the states of the model.
    pub(crate) space: Space,
    pub(crate) latents: InversionCache,
    pub(crate) device: &'a Device,
    /// Set when the user stops the run.
    pub(crate) stop: &'a AtomicBool,
    /// Whether the progress has a note that inversions are not cached any more.
    pub(crate) is_noted: bool,
}

impl Inverted<'_> {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Fails after the user stopped the run.
    pub(crate) fn check_stop(&self) -> candle_core::Result<()> {
        if self.is_stopped() {
            candle_core::bail!("{STOPPED}");
        }
        Ok(())
    }

    /// The latents of states, `[B, C, H, W]`.
    pub(crate) fn latent(&self, x0: &Tensor) -> candle_core::Result<Tensor> {
        self.latents
            .latents(self.net, &self.schedule, x0, &self.steps, &mut |_| {
                self.check_stop()
            })
    }

    /// The number of steps of the inversions, and where they are kept, in words.
    pub(crate) fn describe(&self) -> String {
        let kept = self.latents.folder();
        let kept = kept.map_or_else(String::new, |f| format!(", cached in {}", f.display()));
        format!("inversions of {} steps{kept}", self.steps.len())
    }

    /// Notes once that inversions cannot be written any more.
    pub(crate) fn note_problem(&mut self, progress: &mut dyn Progress) {
        if let Some(problem) = self.latents.problem().filter(|_| !self.is_noted) {
            progress.note(&format!("inversions are not cached any more: {problem}"));
            self.is_noted = true;
        }
    }

    /// Writes a picture of the first `n` images: a row of them as they are, and two rows of what `generate` returns for the number of an
    /// image, the row (0 or 1) and the latent.
    pub(crate) fn draw(
        &self,
        path: &Path,
        n: usize,
        title: &str,
        generate: &mut dyn FnMut(usize, usize, &Tensor) -> candle_core::Result<Tensor>,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let n = n.min(self.data.len());
        let spec = self.data.spec();
        let mut rows = [Vec::new(), Vec::new(), Vec::new()];
        progress.samples(0.0, n);
        for i in 0..n {
            let picture = self.data.image(i)?;
            let x0 = to_tensor(std::slice::from_ref(&picture), spec)?.to_device(self.device)?;
            let latent = self.latent(&self.space.encode(&x0)?)?;
            rows[0].push(spec.screen(&picture));
            for row in 0..2 {
                let out = self.space.decode(&generate(i, row, &latent)?)?;
                let drawn = to_screens(&out, spec).map_err(|error| match error {
                    TrainError::Image { source, .. } => TrainError::Image {
                        number: i + 1,
                        n,
                        source,
                    },
                    other => other,
                })?;
                rows[row + 1].extend(drawn);
                progress.samples(i as f64 + 0.5 * (row + 1) as f64, n);
            }
        }
        write_png(path, &sheet(&rows.concat(), n, title))?;
        Ok(())
    }

    /// The path of the picture of a finished run of `n` images that `draw` writes; the log without one, or if the user stops the run
    /// meanwhile.
    pub(crate) fn shown(
        &self,
        folder: &RunFolder,
        n: usize,
        step: u64,
        draw: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        if n == 0 {
            return Ok(folder.log());
        }
        let path = folder.samples().join(format!("step-{step:06}.png"));
        match draw(&path) {
            Err(_) if self.is_stopped() => Ok(folder.log()),
            drawn => drawn.map(|()| path),
        }
    }
}

/// The error that leaves a computation after the user stopped the run.
pub(crate) const STOPPED: &str = "stopped";
