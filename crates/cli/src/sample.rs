use crate::args::{ModelArgs, SampleArgs, SamplerArg};
use crate::device::Stage;
use crate::model::{model_file, newest_run};
use crate::train::load_model;
use crate::{assets, config, console, usage};
use anyhow::{Context, Result};
use candle_core::Tensor;
use sdft_adm::{AdmConfig, Unet};
use sdft_diffusion::{Clip, Denoiser, Diffusion};
use sdft_imaging::{from_unit_range_truncate, write_png};
use sdft_models::{LoadOptions, LoadedModel};
use sdft_noise::{Draw, Purpose};
use sdft_samplers::{Ancestral, Ddim, SeededNoise, sample_ddim, sample_ddpm};
use sdft_schedule::Respacing;
use sdft_train::Precision;
use sdft_train::{Plan, contact_sheet, to_images};
use std::path::{Path, PathBuf};
use std::time::Instant;

pub(crate) fn sample(args: &SampleArgs) -> Result<()> {
    if args.n == 0 || args.n > 10_000_000 {
        return Err(usage(format!("-n {}: expected 1 to 10000000", args.n)));
    }
    if !(0.0..=1.0).contains(&args.eta) {
        return Err(usage(format!("--eta {}: expected 0 to 1", args.eta)));
    }
    if args.sampler == SamplerArg::Ddpm && args.eta > 0.0 {
        return Err(usage("--eta belongs to DDIM; DDPM has its own noise"));
    }
    let respacing: Respacing = args
        .steps
        .parse()
        .map_err(|e| usage(format!("--steps: {e}")))?;
    let name = match &args.model {
        Some(name) => model_file(name)?,
        None => match newest_run() {
            Some(run) => model_file(&run)?,
            None => assets::DIGITS_SOURCE.to_owned(),
        },
    };
    let model = load_model(&name, &args.file.options()?)?;
    for note in &model.notes {
        console::note(note);
    }
    let config = &model.config;
    let diffusion = model
        .process
        .diffusion(config.learns_variance(), &respacing)
        .map_err(|e| usage(format!("--steps: {e}")))?;
    let start = sdft_translators::start_of(&diffusion, args.start).map_err(|_| {
        usage(format!(
            "--start {}: expected more than 0, up to 1",
            args.start
        ))
    })?;
    if start.is_none() {
        return Err(usage("--start 0: expected more than 0, up to 1"));
    }
    let stage = Stage::open(Precision::Auto)?;
    let unet = stage.unet(&model)?;
    if let Some(class) = args
        .class
        .filter(|class| *class as usize >= config.num_classes)
    {
        return Err(usage(format!(
            "--class {class}: the model has {} classes",
            config.num_classes
        )));
    }
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot create {}", args.out.display()))?;
    refuse_leftovers(&args.out, args.n)?;
    console::note(&format!(
        "{} images of {}x{} from {name}, {} steps",
        args.n,
        config.image_size,
        config.image_size,
        start.map_or(0, |start| start + 1)
    ));

    let clip = if args.no_clip { Clip::No } else { Clip::Yes };
    let started = Instant::now();
    let mut shown = Vec::new();
    let mut raw = Vec::new();
    for first in (0..args.n).step_by(args.batch) {
        let n = args.batch.min(args.n - first);
        let mut noise = SeededNoise::new(args.seed, first as u64);
        let x = noise.start(
            &[n, config.in_channels, config.image_size, config.image_size],
            &stage.device,
        )?;
        let labels = labels(args, config, first, n);
        let denoiser = unet.with(labels.as_deref(), None);
        let denoiser: &dyn Denoiser = &denoiser;
        let out = match args.sampler {
            SamplerArg::Ddim => sample_ddim(
                &diffusion,
                denoiser,
                &x,
                &Ddim {
                    eta: args.eta,
                    clip,
                    start,
                },
                &mut noise,
                &mut |_| Ok(()),
            )?,
            SamplerArg::Ddpm => sample_ddpm(
                &diffusion,
                denoiser,
                &x,
                &Ancestral { clip, start },
                &mut noise,
                &mut |_| Ok(()),
            )?,
        };
        for (i, image) in to_images(&out)?.into_iter().enumerate() {
            write_png(&args.out.join(format!("{:05}.png", first + i)), &image)?;
            if shown.len() < 64 {
                shown.push(image);
            }
        }
        if args.npz {
            append_truncated(&out, &mut raw)?;
        }
        let done = first + n;
        let left = started
            .elapsed()
            .mul_f64((args.n - done) as f64 / done as f64);
        console::note(&format!(
            "{done}/{} images, {} left",
            args.n,
            console::duration(left)
        ));
    }
    let sheet = sheet_beside(&args.out);
    write_png(
        &sheet,
        &contact_sheet(&shown, &format!("seed {}", args.seed)),
    )?;
    if args.npz {
        let side = config.image_size;
        let path = args
            .out
            .join(format!("samples_{}x{side}x{side}x3.npz", args.n));
        let array = sdft_npz::Array::u8(vec![args.n, side, side, 3], raw)?;
        let npz = sdft_npz::encode_npz(&[("arr_0", &array)], false)?;
        sdft_checkpoint::write_bytes_atomic(&path, &npz)?;
        console::line(format_args!("array    {}", path.display()))?;
    }
    console::line(format_args!("images   {}", args.out.display()))?;
    console::line(format_args!("grid     {}", sheet.display()))?;
    Ok(())
}

/// Pixels as guided-diffusion's script stores them: truncated, `[n, h, w, 3]`.
fn append_truncated(x: &Tensor, out: &mut Vec<u8>) -> Result<()> {
    let (n, _, h, w) = x.dims4()?;
    for i in 0..n {
        out.extend(
            from_unit_range_truncate(&x.get(i)?.flatten_all()?.to_vec1::<f32>()?, w, h)?.pixels,
        );
    }
    Ok(())
}

/// Labels of a class-conditional model; each depends on the seed and on the image's number only.
fn labels(args: &SampleArgs, config: &AdmConfig, first: usize, n: usize) -> Option<Vec<u32>> {
    if config.num_classes == 0 {
        return None;
    }
    let draw = |i: usize| {
        Draw::new(args.seed, Purpose::Sample, 1, i as u64).below(0, config.num_classes as u64)
    };
    let label = |i: usize| {
        args.class
            .unwrap_or_else(|| u32::try_from(draw(i)).unwrap_or(0))
    };
    Some((first..first + n).map(label).collect())
}

impl ModelArgs {
    /// Options for reading the model.
    pub(crate) fn options(&self) -> Result<LoadOptions> {
        load_options(&self.set, self.key.as_ref(), self.image_size)
    }
}

/// Options for reading a model, from `--set model.FIELD=VALUE`, `--key` and `--image-size`.
pub(crate) fn load_options(
    set: &[String],
    key: Option<&String>,
    image_size: Option<usize>,
) -> Result<LoadOptions> {
    let mut table = toml::Table::new();
    for assignment in set {
        if !assignment.starts_with("model.") && !assignment.starts_with("process.") {
            return Err(usage(format!(
                "--set {assignment}: only fields under model. and process. can be set here"
            )));
        }
        config::set::<Plan>(&mut table, assignment)?;
    }
    if let Some(size) = image_size {
        config::put(
            &mut table,
            "model.image_size",
            i64::try_from(size).unwrap_or(i64::MAX),
        );
    }
    Ok(LoadOptions {
        given: config::given(&table, "model"),
        given_process: config::given(&table, "process"),
        key: key.cloned(),
        ..LoadOptions::default()
    })
}

/// Fails unless a model makes images without labels.
pub(crate) fn unconditional(name: &str, model: &LoadedModel) -> Result<()> {
    let config = &model.config;
    if config.num_classes != 0 {
        return Err(usage(format!(
            "{name}: expected an unconditional model, found one of {} classes",
            config.num_classes
        )));
    }
    if config.in_channels != 3 || ![3, 6].contains(&config.out_channels) {
        return Err(usage(format!(
            "{name}: expected a model from 3 channels to 3 or 6, found {} to {}",
            config.in_channels, config.out_channels
        )));
    }
    Ok(())
}

/// The contact sheet of a folder stands beside it, so that the folder holds samples and nothing else.
pub(crate) fn sheet_beside(folder: &Path) -> PathBuf {
    let full = folder.canonicalize();
    let full = full.as_deref().unwrap_or(folder);
    match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) => {
            let sheet = format!("{}-grid.png", name.to_string_lossy());
            match folder.parent() {
                // The path as the user wrote it, where that has a last part.
                Some(written) if folder.file_name().is_some() => written.join(sheet),
                _ => parent.join(sheet),
            }
        }
        _ => folder.join("grid.png"),
    }
}

/// Draws as the paper does: 40 steps of deterministic DDIM.
pub(crate) struct PaperSampler {
    diffusion: Diffusion,
    unet: Unet,
    stage: Stage,
    image: [usize; 3],
}

impl PaperSampler {
    pub(crate) fn new(model: &LoadedModel) -> Result<Self> {
        let config = &model.config;
        let stage = Stage::open(Precision::Auto)?;
        Ok(Self {
            diffusion: model
                .process
                .diffusion(config.learns_variance(), &"ddim40".parse()?)?,
            unet: stage.unet(model)?,
            stage,
            image: [config.in_channels, config.image_size, config.image_size],
        })
    }

    /// Samples `first .. first + n` of a seed; each is the same in any company.
    pub(crate) fn draw(&self, seed: u64, first: usize, n: usize) -> Result<Tensor> {
        let [c, h, w] = self.image;
        let mut noise = SeededNoise::new(seed, first as u64);
        let x = noise.start(&[n, c, h, w], &self.stage.device)?;
        Ok(sample_ddim(
            &self.diffusion,
            &self.unet,
            &x,
            &Ddim::default(),
            &mut noise,
            &mut |_| Ok(()),
        )?)
    }
}

/// The paper's samples of a model into `folder`; those that are there already are kept.
pub(crate) fn write_samples(model: &LoadedModel, folder: &Path, n: usize, seed: u64) -> Result<()> {
    let sampler = PaperSampler::new(model)?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // A hidden file says whose samples these are: those of another model must not be taken for them.
    let made_by = format!("model {}, ddim40, seed {seed}\n", model.sha256);
    let label = folder.join(".made-by");
    match std::fs::read_to_string(&label) {
        Ok(found) if found == made_by => {}
        Ok(found) => anyhow::bail!(
            "{}: these samples were made by {}, expected {}; move them away, or name another --out",
            folder.display(),
            found.trim(),
            made_by.trim()
        ),
        Err(_) => sdft_checkpoint::write_bytes_atomic(&label, made_by.as_bytes())?,
    }
    let file = |i: usize| folder.join(format!("{i:05}.png"));
    let missing: Vec<usize> = (0..n).filter(|&i| !file(i).is_file()).collect();
    for (done, &first) in missing.iter().enumerate() {
        let out = sampler.draw(seed, first, 1)?;
        for image in to_images(&out)? {
            write_png(&file(first), &image)?;
        }
        if (done + 1) % 100 == 0 || done + 1 == missing.len() {
            let here = n - missing.len() + done + 1;
            console::note(&format!("{}: {here}/{n} images", folder.display()));
        }
    }
    Ok(())
}

/// Images of an earlier, larger set would be taken for part of this one.
fn refuse_leftovers(dir: &Path, n: usize) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".png")?.parse::<usize>().ok());
        if number.is_some_and(|number| number >= n) {
            let found = name.to_string_lossy();
            return Err(usage(format!(
                "--out {}: {found} there is from a larger set and would be taken for part of this one; empty the folder or name another",
                dir.display()
            )));
        }
    }
    Ok(())
}
