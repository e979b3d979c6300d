//! Images that several processes make together: rank 0 decides, reads and writes, and every rank computes a part of each batch.

use crate::context::{Context, check_stop};
use crate::error::{Error, Result, failed};
use candle_core::{DType, Device, Tensor};
use sdft_gallery::{Made, difference};
use sdft_imaging::{Image, ImageSpec};
use sdft_parallel::{ProcessGroup, Task, TaskLimit};
use sdft_train::{to_pictures, to_tensor};
use serde::Serialize;
use std::sync::atomic::AtomicBool;
use toml::Table;

/// Makes images of images of the same form.
pub(crate) trait ImagesOfImages {
    /// Their form.
    fn form(&self) -> &ImageSpec;

    /// The number of variants.
    fn variants(&self) -> usize;

    /// The images that a variant makes of these. `observer` is called with the share that is done, and its error ends the work.
    ///
    /// # Shapes
    /// - `x0`: `[n, C, H, W]` in [-1, 1] on the CPU · returns: the same shape
    fn run(
        &self,
        variant: usize,
        x0: &Tensor,
        numbers: Vec<u64>,
        observer: &mut dyn FnMut(f64) -> candle_core::Result<()>,
    ) -> candle_core::Result<Tensor>;
}

/// The processes of a job, and its stop flag.
#[derive(Clone, Copy)]
pub(crate) struct Team<'a> {
    pub(crate) group: &'a ProcessGroup,
    pub(crate) stop: &'a AtomicBool,
}

impl Team<'_> {
    /// Fails between two steps once the job should stop, or another process is gone.
    pub(crate) fn check(&self) -> candle_core::Result<()> {
        check_stop(self.stop)?;
        self.group.check().map_err(candle_core::Error::wrap)
    }

    /// On rank 0: the images that all ranks make of these. Each takes a contiguous part of them.
    pub(crate) fn make(
        &self,
        maker: &dyn ImagesOfImages,
        variant: usize,
        images: &[Image],
        numbers: &[u64],
        progress: &mut dyn FnMut(f64),
    ) -> Result<Made> {
        let form = maker.form();
        let part = self.part(images.len());
        let tasks = images.chunks(part).zip(numbers.chunks(part));
        let tasks = tasks.map(|(images, numbers)| {
            let values = to_tensor(images, form)?.flatten_all()?.to_vec1()?;
            Ok(Task {
                kind: variant as u64,
                numbers: numbers.to_vec(),
                answer: values.len(),
                values,
            })
        });
        let tasks = tasks.collect::<Result<Vec<_>>>()?;
        let answers = self.group.share(tasks, |task| {
            answer(maker, task, &mut |share| {
                self.check()?;
                progress(share);
                Ok(())
            })
        })?;
        Ok(to_pictures(&batch(answers.concat(), form)?, form)?)
    }

    /// On the other ranks: makes images for rank 0 until it ends the work, up to `batch` at once.
    pub(crate) fn serve(&self, maker: &dyn ImagesOfImages, batch: usize) -> Result<()> {
        let limit = TaskLimit {
            numbers: batch,
            values: batch.saturating_mul(maker.form().len()),
        };
        self.group
            .serve(limit, |task| answer(maker, task, &mut |_| self.check()))
    }

    /// The images of each rank's part of `n`.
    pub(crate) fn part(&self, n: usize) -> usize {
        n.div_ceil(self.group.size()).max(1)
    }
}

/// The images of one task.
fn answer(
    maker: &dyn ImagesOfImages,
    task: Task,
    observer: &mut dyn FnMut(f64) -> candle_core::Result<()>,
) -> Result<Vec<f32>> {
    let variant = usize::try_from(task.kind).ok();
    let Some(variant) = variant.filter(|variant| *variant < maker.variants()) else {
        let n = maker.variants();
        return Err(failed(format!(
            "rank 0 asks for variant {} of {n}",
            task.kind
        )));
    };
    let x0 = batch(task.values, maker.form())?;
    if x0.dim(0)? != task.numbers.len() {
        return Err(failed(format!(
            "rank 0 sent {} images with {} numbers",
            x0.dim(0)?,
            task.numbers.len()
        )));
    }
    let made = maker.run(variant, &x0, task.numbers, observer)?;
    Ok(made.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// Values as images of a form, `[n, C, H, W]`.
pub(crate) fn batch(values: Vec<f32>, form: &ImageSpec) -> candle_core::Result<Tensor> {
    let [c, h, w] = form.shape();
    Tensor::from_vec(values, ((), c, h, w), &Device::Cpu)
}

/// On rank 0: tells the other ranks the settings that decide the results, as soon as they are known.
pub(crate) fn announce<P: Serialize>(plan: &P, context: &Context<'_>) -> Result<()> {
    if context.group.size() > 1 {
        context
            .group
            .broadcast(toml::to_string(plan)?.into_bytes())?;
    }
    Ok(())
}

/// On the other ranks: waits for the settings of rank 0.
pub(crate) fn announced(context: &Context<'_>) -> Result<String> {
    let text = context.group.broadcast(Vec::new())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Fails unless this rank has the settings of rank 0.
pub(crate) fn check_same<P: Serialize>(
    announced: &str,
    plan: &P,
    context: &Context<'_>,
) -> Result<()> {
    let own = toml::to_string(plan)?;
    // Rank 0 alone reads the inputs.
    let settings = |text: &str| {
        let mut table: Table = toml::from_str(text).unwrap_or_default();
        table.remove("input");
        table
    };
    let [announced, own] = [announced, &own].map(settings);
    if own == announced {
        return Ok(());
    }
    let [announced, own] = [announced, own].map(|table| table.to_string());
    let problem = format!(
        "rank {} has other settings or files than rank 0 ({}); give all processes the same command, and the same files under the same paths",
        context.group.rank(),
        difference(&announced, &own)
    );
    context.group.fail(&problem);
    Err(Error::Failed(problem))
}
