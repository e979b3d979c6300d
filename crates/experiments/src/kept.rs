//! Finished parts of an experiment, kept in its folder, and the time that is left.

use sdft_files::sha256_bytes;
use sdft_gallery::Outputs;
use sdft_imaging::{Limits, Rgb8, decode_file, encode_png, grid};
use sdft_jobs::{Context, Result, ResultExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

/// Columns of a picture that keeps images.
const COLUMNS: usize = 16;

/// The folder of an experiment with its finished parts. Images and numbers are computed again if what they were made of has changed; a run
/// with another plan is an error.
pub(crate) struct Kept {
    outputs: Outputs,
    /// What all numbers depend on.
    basis: String,
    pace: Pace,
}

impl Kept {
    /// The finished parts in a folder. All numbers depend on `basis`, for example on the pictures that images are compared with.
    pub(crate) fn new(outputs: Outputs, basis: String) -> Self {
        Self {
            outputs,
            basis,
            pace: Pace::default(),
        }
    }

    /// Announces `n` parts, each of which takes about `seconds` on two cores.
    pub(crate) fn expect(&mut self, n: usize, seconds: f64) {
        self.pace.parts += n;
        self.pace.all_seconds += n as f64 * seconds;
    }

    /// Images of one size: read from `NAME.png` if that was made of `made_of`, otherwise computed and kept there.
    pub(crate) fn images(
        &mut self,
        part: &Part<'_>,
        made_of: &str,
        context: &mut Context<'_>,
        make: impl FnOnce(&mut Context<'_>) -> Result<Vec<Rgb8>>,
    ) -> Result<Vec<Rgb8>> {
        let name = format!("{}.png", part.name);
        let hash = sha256_bytes(made_of.as_bytes());
        if self.outputs.is_complete(&name, &hash) {
            let path = self.outputs.path(&name);
            let picture = decode_file(&path, &Limits::default())?;
            self.pace.reused(part);
            return cells(&picture, part.images);
        }
        let started = Instant::now();
        let images = make(context)?;
        let picture = grid(&images, COLUMNS, 0, [0; 3]);
        self.outputs.put(&name, &hash, &encode_png(&picture)?)?;
        self.pace.made(part, started.elapsed(), context);
        Ok(images)
    }

    /// Numbers of the images of a part: read from `NAME.json` if these images were measured by `measured_by` on this basis, otherwise computed
    /// and kept there.
    pub(crate) fn numbers<M: Serialize + DeserializeOwned>(
        &mut self,
        part: &Part<'_>,
        measured_by: &str,
        measure: impl FnOnce() -> Result<M>,
    ) -> Result<M> {
        let name = format!("{}.json", part.name);
        let images = self.outputs.hash_of([format!("{}.png", part.name)]);
        let hash = sha256_bytes(format!("{} {images} {measured_by}", self.basis).as_bytes());
        if self.outputs.is_complete(&name, &hash) {
            let path = self.outputs.path(&name);
            let text =
                std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            return Ok(serde_json::from_slice(&text)?);
        }
        let numbers = measure()?;
        self.outputs
            .put(&name, &hash, &serde_json::to_vec_pretty(&numbers)?)?;
        Ok(numbers)
    }

    /// Counts a part that keeps its own files, as a run does. `is_finished` says whether it existed before.
    pub(crate) fn run<T>(
        &mut self,
        part: &Part<'_>,
        is_finished: bool,
        context: &mut Context<'_>,
        run: impl FnOnce(&mut Context<'_>) -> Result<T>,
    ) -> Result<T> {
        let started = Instant::now();
        let done = run(context)?;
        match is_finished {
            true => self.pace.reused(part),
            false => self.pace.made(part, started.elapsed(), context),
        }
        Ok(done)
    }
}

/// A part of an experiment.
pub(crate) struct Part<'a> {
    /// The name of its files, without the ending.
    pub(crate) name: &'a str,
    /// Number of its images.
    pub(crate) images: usize,
    /// About how long it takes on two cores, as announced.
    pub(crate) seconds: f64,
}

/// The first `n` images of a picture in columns.
fn cells(picture: &Rgb8, n: usize) -> Result<Vec<Rgb8>> {
    let columns = COLUMNS.min(n).max(1);
    let (width, height) = (
        picture.width / columns,
        picture.height / n.div_ceil(columns),
    );
    let cell = |i: usize| picture.crop(i % columns * width, i / columns * height, width, height);
    Ok((0..n).map(cell).collect::<sdft_imaging::Result<_>>()?)
}

/// How much of an experiment is done, and how fast.
#[derive(Default)]
struct Pace {
    parts: usize,
    done: usize,
    /// Expected seconds of all parts, and of those that are done.
    all_seconds: f64,
    done_seconds: f64,
    /// Expected and real seconds of the parts that were computed now.
    expected: f64,
    taken: f64,
}

impl Pace {
    fn reused(&mut self, part: &Part<'_>) {
        self.done += 1;
        self.done_seconds += part.seconds;
    }

    fn made(&mut self, part: &Part<'_>, taken: Duration, context: &mut Context<'_>) {
        self.reused(part);
        self.expected += part.seconds;
        self.taken += taken.as_secs_f64();
        context.progress.note(&format!(
            "part {} of {}: {} · about {} left",
            self.done,
            self.parts,
            part.name,
            minutes(self.left())
        ));
    }

    /// Seconds that the rest takes if it is as much slower or faster than expected as the parts that were computed now.
    fn left(&self) -> f64 {
        let rest = (self.all_seconds - self.done_seconds).max(0.0);
        match self.expected > 0.0 {
            true => rest * self.taken / self.expected,
            false => rest,
        }
    }
}

/// `40 s`, `7 min`.
fn minutes(seconds: f64) -> String {
    match seconds < 90.0 {
        true => format!("{seconds:.0} s"),
        false => format!("{:.0} min", seconds / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock_folder;
    use candle_core::Device;
    use sdft_train::{NoopProgress, Progress};
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    const PART: Part<'_> = Part {
        name: "samples/one",
        images: 20,
        seconds: 10.0,
    };

    fn opened(out: &Path, basis: &str) -> Kept {
        let outputs = lock_folder(out, "test", None).unwrap();
        Kept::new(outputs, basis.to_owned())
    }

    fn drawn(level: u8) -> Vec<Rgb8> {
        let image = |i: u8| Rgb8::filled(3, 2, [level, i, 0]);
        (0..20).map(image).collect()
    }

    #[test]
    fn a_finished_part_is_read_and_one_of_other_origin_or_damaged_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let (stop, mut progress) = (AtomicBool::new(false), NoopProgress);
        let mut context = Context::new(Device::Cpu, &stop, &mut progress);
        let mut take = |made_of: &str, level: u8, judge: &str, basis: &str| {
            let mut kept = opened(dir.path(), basis);
            let mut was_made = false;
            let images = kept.images(&PART, made_of, &mut context, |_| {
                was_made = true;
                Ok(drawn(level))
            });
            let mut was_measured = false;
            let number = kept.numbers(&PART, judge, || {
                was_measured = true;
                Ok(Some(f64::from(level)))
            });
            (images.unwrap(), number.unwrap(), was_made, was_measured)
        };
        let png = dir.path().join("samples/one.png");
        let mut usual = |made_of, level| take(made_of, level, "judge", "pictures");
        assert_eq!(usual("a", 1), (drawn(1), Some(1.0), true, true));
        assert_eq!(usual("a", 2), (drawn(1), Some(1.0), false, false));
        assert_eq!(usual("b", 3), (drawn(3), Some(3.0), true, true));
        std::fs::write(&png, b"cut off").unwrap();
        assert_eq!(usual("b", 3), (drawn(3), Some(3.0), true, false));
        // Without its numbers a part is only measured again.
        std::fs::remove_file(png.with_extension("json")).unwrap();
        assert_eq!(usual("b", 4), (drawn(3), Some(4.0), false, true));
        // So it is by another judge, or next to other pictures.
        let other = take("b", 5, "another judge", "pictures");
        assert_eq!(other, (drawn(3), Some(5.0), false, true));
        let other = take("b", 6, "another judge", "other pictures");
        assert_eq!(other, (drawn(3), Some(6.0), false, true));
    }

    #[test]
    fn the_time_left_follows_the_parts_that_were_computed() {
        #[derive(Default)]
        struct Lines(Vec<String>);
        impl Progress for Lines {
            fn note(&mut self, text: &str) {
                self.0.push(text.to_owned());
            }
        }
        let (stop, mut lines) = (AtomicBool::new(false), Lines::default());
        let mut context = Context::new(Device::Cpu, &stop, &mut lines);
        let mut pace = Pace {
            parts: 4,
            all_seconds: 400.0,
            ..Pace::default()
        };
        let part = Part {
            seconds: 100.0,
            ..PART
        };
        pace.reused(&part);
        pace.made(&part, Duration::from_secs(200), &mut context);
        pace.made(&part, Duration::from_secs(40), &mut context);
        let expected = [
            "part 2 of 4: samples/one · about 7 min left",
            "part 3 of 4: samples/one · about 2 min left",
        ];
        assert_eq!(lines.0, expected);
    }
}
