//! Samples of a model as one array.

use crate::{arrays, error, log};
use candle_core::Device;
use pyo3::exceptions::{PyFileNotFoundError, PyMemoryError};
use pyo3::prelude::*;
use sdft_imaging::{Depth, Samples};
use sdft_jobs::{Context, ModelFile, SamplePlan, Sampler, SamplerKind, is_embedded, load_model};
use sdft_models::{LoadOptions, LoadedModel};
use sdft_train::{NoopProgress, to_pictures};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// The most images of one call.
const MOST: usize = 10_000_000;

/// Steps of a sampler: their number, or a text such as `ddim40`.
#[derive(FromPyObject)]
pub(crate) enum Steps {
    /// Their number.
    #[pyo3(transparent, annotation = "int")]
    Number(i64),
    /// As the program takes them.
    #[pyo3(transparent, annotation = "str")]
    Text(String),
}

/// A class.
#[derive(FromPyObject)]
pub(crate) enum Class {
    /// Its number.
    #[pyo3(transparent, annotation = "int")]
    Number(i64),
    /// Its name.
    #[pyo3(transparent, annotation = "str")]
    Name(String),
}

/// The arguments of `sample`.
struct Request {
    n: usize,
    batch: usize,
    seed: u64,
    sampler: Option<SamplerKind>,
    steps: Option<Steps>,
    class: Option<Class>,
    guidance: Option<f64>,
}

/// Draws images from a model, on the CPU.
///
/// Image `i` depends on the model, the settings, the seed and `i` only, and equals that of the program's ``sdft sample``. Other Python threads
/// run during the computation. Ctrl-C ends it after the current step with KeyboardInterrupt.
///
/// Parameters
/// ----------
/// model : str or os.PathLike
///     A file of weights, a run folder, a folder of diffusers, or an embedded model: ``"emoji-source"``, ``"digits-source"``,
///     ``"digits-dit-source"``.
/// n : int
///     Number of images.
/// steps : int or str, optional
///     Steps of the sampler, their usual number if not given. "ddim" and "ddpm" take strides such as ``"ddim40"``, too.
/// seed : int, default 0
///     Seed, from 0 to 2^63 - 1.
/// sampler : {"ddim", "ddpm", "heun", "dpm", "euler"}, optional
///     The usual one of the model if not given: "heun" for EDM's networks and flows, "ddim" for others.
/// class_ : int or str, optional
///     Number or name of the class of every image. If not given, image `i` of a class-conditional model is of class `i` modulo the number of
///     classes.
/// guidance : float, optional
///     Scale of classifier-free guidance; needs a class-conditional model with a null class.
/// batch : int, default 16
///     Images that are computed together; changes memory and speed only.
///
/// Returns
/// -------
/// numpy.ndarray, shape (n, height, width, channels)
///     Images in the form of the model: uint8, uint16, or float32 in the range of its training images.
///
/// Raises
/// ------
/// FileNotFoundError
///     There is no such file or embedded model.
/// ValueError
///     The file is not a model, or an argument does not fit it.
/// RuntimeError
///     An image has values that are not finite, or a computation fails.
#[pyfunction]
#[pyo3(signature = (model, n, *, steps=None, seed=0, sampler=None, class_=None, guidance=None, batch=16))]
#[expect(
    clippy::too_many_arguments,
    reason = "the keywords of a Python function"
)]
pub(crate) fn sample<'py>(
    py: Python<'py>,
    model: PathBuf,
    n: i64,
    steps: Option<Steps>,
    seed: u64,
    sampler: Option<&str>,
    class_: Option<Class>,
    guidance: Option<f64>,
    batch: i64,
) -> PyResult<Bound<'py, PyAny>> {
    if i64::try_from(seed).is_err() {
        return Err(error::value(format!(
            "seed {seed}: expected 0 to {}",
            i64::MAX
        )));
    }
    let request = Request {
        n: count("n", n)?,
        batch: count("batch", batch)?,
        seed,
        sampler: sampler
            .map(str::parse)
            .transpose()
            .map_err(|problem| error::job(&problem))?,
        steps,
        class: class_,
        guidance,
    };
    let Some(name) = model.to_str() else {
        return Err(error::value(format!(
            "model {}: expected a path in UTF-8",
            model.display()
        )));
    };
    sdft_kernels::check_kernel_environment().map_err(error::value)?;
    let (samples, shape, notes) = py.detach(|| draw(name, &request))?;
    log::notes(py, &notes)?;
    arrays::sample_array(py, samples, &shape)
}

/// A number of images.
fn count(name: &str, value: i64) -> PyResult<usize> {
    let valid = usize::try_from(value)
        .ok()
        .filter(|value| (1..=MOST).contains(value));
    valid.ok_or_else(|| error::value(format!("{name} {value}: expected 1 to {MOST}")))
}

/// All samples, their shape, and notes about the model.
fn draw(name: &str, request: &Request) -> PyResult<(Samples, [usize; 4], Vec<String>)> {
    let file = ModelFile::find(name).map_err(|problem| in_file(name, &problem))?;
    let model = load_model(&file.path, &LoadOptions::default());
    let model = model.map_err(|problem| in_file(name, &problem))?;
    let sampler = sampler(name, request, &model).map_err(|problem| error::job(&problem))?;
    let notes = file.notes.into_iter().chain(model.notes).collect();
    let spec = *sampler.spec();
    let [channels, height, width] = spec.shape();
    let shape = [request.n, height, width, channels];
    let mut samples = reserved(spec.depth, request.n, spec.len())?;
    for first in (0..request.n).step_by(request.batch) {
        let n = request.batch.min(request.n - first);
        let mut interrupt = None;
        let drawn = sampler.draw(request.seed, first, n, &mut |_| {
            let signals = Python::attach(|py| py.check_signals());
            signals.map_err(|signal| {
                interrupt = Some(signal);
                candle_core::Error::Msg("interrupted".to_owned())
            })
        });
        if let Some(signal) = interrupt {
            return Err(signal);
        }
        let pictures =
            to_pictures(&drawn.map_err(error::runtime)?, &spec).map_err(error::runtime)?;
        for (i, picture) in pictures.into_iter().enumerate() {
            let picture = picture
                .map_err(|problem| error::runtime(format!("image {}: {problem}", first + i)))?;
            match (&mut samples, picture.samples) {
                (Samples::U8(all), Samples::U8(more)) => all.extend(more),
                (Samples::U16(all), Samples::U16(more)) => all.extend(more),
                (Samples::F32(all), Samples::F32(more)) => all.extend(more),
                // All pictures have the depth of the model.
                _ => {}
            }
        }
    }
    Ok((samples, shape, notes))
}

/// The sampler with its network, as the program makes it.
fn sampler(name: &str, request: &Request, model: &LoadedModel) -> sdft_jobs::Result<Sampler> {
    let stop = AtomicBool::new(false);
    let mut progress = NoopProgress;
    let context = Context::new(Device::Cpu, &stop, &mut progress);
    let kind = request
        .sampler
        .unwrap_or_else(|| SamplerKind::usual(&model.process));
    let plan = SamplePlan {
        sampler: kind,
        steps: match &request.steps {
            None => kind.usual_steps().to_owned(),
            Some(Steps::Number(n)) => n.to_string(),
            Some(Steps::Text(steps)) => steps.clone(),
        },
        eta: (kind == SamplerKind::Ddim).then_some(0.0),
        clip: !matches!(kind, SamplerKind::Heun | SamplerKind::Euler),
        class: label(request.class.as_ref(), model)?,
        guidance: request.guidance.filter(|guidance| *guidance != 1.0),
        ..SamplePlan::paper(model, name, request.seed, &context)?
    };
    Sampler::new(plan, model, None, &context)
}

/// The label of a class; [`Sampler::new`] checks its number.
fn label(class: Option<&Class>, model: &LoadedModel) -> sdft_jobs::Result<Option<u32>> {
    let name = match class {
        None => return Ok(None),
        Some(Class::Number(label)) => {
            let problem =
                |_| sdft_jobs::Error::Usage(format!("class_ {label}: expected 0 or more"));
            return u32::try_from(*label).map(Some).map_err(problem);
        }
        Some(Class::Name(name)) => name,
    };
    let classes = model.classes.as_ref();
    match classes.and_then(|classes| classes.label(name)) {
        Some(label) => Ok(Some(label)),
        None => Err(sdft_jobs::Error::Usage(format!(
            "class_ {name:?}: the model has no class of this name; it has {} classes, and a number is given as int",
            model.n_classes()
        ))),
    }
}

/// The error of a model's file.
fn in_file(name: &str, problem: &sdft_jobs::Error) -> PyErr {
    match problem {
        _ if !is_embedded(name) && !Path::new(name).exists() => {
            PyFileNotFoundError::new_err(problem.to_string())
        }
        // A folder without a model, or a file that differs from its recorded hash.
        sdft_jobs::Error::Failed(_) => error::value(problem),
        _ => error::job(problem),
    }
}

/// Room for all samples.
fn reserved(depth: Depth, n: usize, len: usize) -> PyResult<Samples> {
    fn room<T>(total: Option<usize>) -> Option<Vec<T>> {
        let mut values = Vec::new();
        values.try_reserve_exact(total?).ok()?;
        Some(values)
    }
    let total = n.checked_mul(len);
    let samples = match depth {
        Depth::U8 => room(total).map(Samples::U8),
        Depth::U16 => room(total).map(Samples::U16),
        Depth::F32 => room(total).map(Samples::F32),
    };
    samples.ok_or_else(|| {
        PyMemoryError::new_err(format!(
            "n {n}: {len} values for each image do not fit into memory"
        ))
    })
}
