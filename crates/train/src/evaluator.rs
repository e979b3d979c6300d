//! How good the samples are while the model changes: KID against the training images, on fixed noise.

use crate::checksums::Checksums;
use crate::error::{Context, Result, TrainError};
use crate::folder::RunFolder;
use crate::plan::{BestBy, Plan};
use crate::preview::{sample_images, to_tensor};
use crate::snapshot::Position;
use candle_core::{Device, Tensor};
use sdft_adm::Unet;
use sdft_checkpoint::sha256_file;
use sdft_data::ImageSource;
use sdft_diffusion::Diffusion;
use sdft_eval::{Extractor, ImageSet, nearest_first, neighbour_strip, score_digits};
use sdft_features::DigitsJudge;
use sdft_imaging::Rgb8;
use sdft_metrics::{Features, KidOptions, Neighbour, mmd2_unbiased, nearest};
use sdft_models::save_unet;
use sdft_nn::Params;
use sdft_noise::Purpose;
use sdft_randn::randn;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

/// Keeps the noise of the evaluation apart from that of the grids, which has step 0.
const NOISE_STEP: u64 = 1;

/// What samples are looked at with.
pub struct Evaluator {
    /// The network in whose features samples are compared with the training images.
    pub extractor: Extractor,
    /// On the digits: the judge, and the classes of the training images.
    pub judge: Option<(DigitsJudge, Vec<u8>)>,
}

/// An evaluator that knows the training images.
pub(crate) struct Evaluation {
    evaluator: Evaluator,
    data: Arc<dyn ImageSource>,
    reference: Features,
    diffusion: Diffusion,
    noise: Tensor,
    by: BestBy,
}

/// What came out of one look.
pub(crate) struct EvalReport {
    /// Names and values for the log.
    pub(crate) values: Vec<(String, f64)>,
    /// What the best checkpoint is chosen by; smaller is better.
    pub(crate) score: f64,
    /// Samples beside the training images that come nearest.
    pub(crate) strip: Option<Rgb8>,
}

impl Evaluation {
    pub(crate) fn new(
        evaluator: Evaluator,
        plan: &Plan,
        data: Arc<dyn ImageSource>,
        device: &Device,
    ) -> Result<Self> {
        let images = (0..data.len()).map(|i| Ok(data.image(i)?));
        let label = "the training images".to_owned();
        let set = ImageSet::of_images(label, images, &evaluator.extractor, &mut |_, _| {})?;
        let Some(reference) = set.features.filter(|features| features.n() >= 2) else {
            return Err(TrainError::Evaluation(
                "KID needs at least 2 training images".into(),
            ));
        };
        let side = plan.model.image_size;
        let shape = [plan.eval.samples, plan.model.in_channels, side, side];
        Ok(Self {
            evaluator,
            data,
            reference,
            diffusion: plan.process.diffusion(
                plan.model.learns_variance(),
                &plan
                    .eval
                    .sampler
                    .parse()
                    .map_err(|e: sdft_schedule::ScheduleError| {
                        TrainError::Evaluation(e.to_string())
                    })?,
            )?,
            noise: randn(plan.seed, Purpose::Preview, NOISE_STEP, 0, &shape, device)?,
            by: plan.eval.best,
        })
    }

    /// Samples the weights and measures.
    pub(crate) fn look(&self, plan: &Plan, weights: &Params, step: u64) -> Result<EvalReport> {
        let model = Unet::load(weights, &plan.model)?
            .with_prediction_type(plan.process.prediction_type)
            .with_compute_dtype(plan.steps.precision.compute_dtype());
        let images = sample_images(&self.diffusion, &model, &self.noise, plan.sampled_at_once())?;
        let extractor = &self.evaluator.extractor;
        let metric = |source| TrainError::Evaluation(format!("step {step}: {source}"));
        let features =
            Features::new(extractor.extract(&images)?, extractor.dim()).map_err(metric)?;
        let kid = mmd2_unbiased(&self.reference, &features, &KidOptions::default());
        let kid = 1e3 * kid.map_err(metric)?;
        let neighbours = nearest(&features, &self.reference).map_err(metric)?;
        let mut distances: Vec<f64> = neighbours.iter().map(|n| n.distance).collect();
        distances.sort_by(f64::total_cmp);
        let mut values = vec![
            ("eval.kid".to_owned(), kid),
            ("eval.nearest".to_owned(), distances[distances.len() / 2]),
        ];
        let mut score = kid;
        if let Some((judge, present)) = &self.evaluator.judge {
            let judged = score_digits(judge, &to_tensor(&images)?, present)?;
            values.push(("eval.coverage".to_owned(), judged.coverage));
            values.push(("eval.style".to_owned(), judged.style));
            if self.by == BestBy::Coverage {
                score = -judged.coverage;
            }
        }
        Ok(EvalReport {
            values,
            score,
            strip: self.strip(&images, &neighbours, step)?,
        })
    }

    /// The samples that come nearest to a training image.
    fn strip(&self, images: &[Rgb8], neighbours: &[Neighbour], step: u64) -> Result<Option<Rgb8>> {
        let mut pairs = Vec::new();
        for i in nearest_first(neighbours) {
            pairs.push((images[i].clone(), self.data.image(neighbours[i].index)?));
        }
        Ok(neighbour_strip(
            &pairs,
            &format!("step {step} / nearest training image"),
        ))
    }
}

/// Takes a score into account; `true` if it is the best so far.
pub(crate) fn is_best(position: &mut Position, score: f64) -> bool {
    let better = position
        .best
        .is_none_or(|(_, bits)| score < f64::from_bits(bits));
    if better {
        position.best = Some((position.step, score.to_bits()));
        position.evaluations_since_best = 0;
    } else {
        position.evaluations_since_best += 1;
    }
    better
}

/// Whether the run has waited long enough for something better.
pub(crate) fn is_exhausted(position: &Position, plan: &Plan) -> bool {
    plan.eval.every > 0
        && plan.eval.patience > 0
        && position.evaluations_since_best >= plan.eval.patience
}

/// The model of an evaluation, until a checkpoint knows of it.
fn candidate(step: u64) -> String {
    format!("best-{step:06}.safetensors")
}

/// Saves a model that is the best so far. `best.safetensors` follows with the next checkpoint, so that a killed run goes on with the best
/// that its checkpoint knows.
pub(crate) fn keep_best(
    folder: &RunFolder,
    plan: &Plan,
    step: u64,
    weights: &Params,
    provenance: &BTreeMap<String, String>,
) -> Result<()> {
    let (parent, name) = (folder.checkpoints(), candidate(step));
    let path = parent.join(&name);
    save_unet(&path, &plan.model, &plan.process, weights, provenance, None)?;
    let mut sums = Checksums::read_or_empty(&parent);
    sums.forget(|known| known == name);
    sums.add(&name, &sha256_file(&path)?);
    sums.write(&parent)
}

/// Makes the best model that `position` knows the one in `best.safetensors`, and removes those it does not know.
pub(crate) fn publish_best(folder: &RunFolder, position: &Position) -> Result<()> {
    let Some((step, _)) = position.best else {
        return Ok(());
    };
    let (parent, name) = (folder.checkpoints(), candidate(step));
    let (best, published) = (parent.join(&name), folder.best_model());
    let damaged = Checksums::read(&parent).is_err();
    let mut sums = Checksums::read_or_empty(&parent);
    if damaged && best.is_file() {
        sums.add(&name, &sha256_file(&best)?);
    }
    if best.is_file() && !is_published(folder, sums.of(&name))? {
        folder.put(&published, |aside| {
            // A link where the file system has links, a copy elsewhere.
            match fs::hard_link(&best, aside) {
                Ok(()) => Ok(()),
                Err(_) => fs::copy(&best, aside).map(drop).at("cannot write", aside),
            }
        })?;
    }
    let before = sums.clone();
    sums.forget(|known| known != name);
    if damaged || sums != before {
        sums.write(&parent)?;
    }
    for entry in fs::read_dir(&parent).at("cannot read", &parent)? {
        let path = entry.at("cannot read", &parent)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("best-") && path != best {
            fs::remove_file(&path).at("cannot remove", &path)?;
        }
    }
    Ok(())
}

/// Whether `best.safetensors` is the model with this hash. The file itself is looked at: a process that was killed before it renamed the
/// new one has recorded both.
fn is_published(folder: &RunFolder, hash: Option<&str>) -> Result<bool> {
    let published = folder.best_model();
    let name = published.file_name().unwrap_or_default().to_string_lossy();
    let Some(hash) = hash.filter(|_| published.is_file()) else {
        return Ok(false);
    };
    let recorded = Checksums::read_or_empty(folder.root());
    Ok(recorded.of(&name) == Some(hash) && sha256_file(&published)? == hash)
}

/// Forgets the best evaluation if its model is gone or damaged, which an older checkpoint after a damaged one can find.
pub(crate) fn check_best(folder: &RunFolder, position: &mut Position) -> Result<Option<String>> {
    let Some((step, _)) = position.best else {
        return Ok(None);
    };
    let (parent, name) = (folder.checkpoints(), candidate(step));
    let problem = if parent.join(&name).is_file() {
        let sums = match Checksums::read(&parent) {
            Ok(sums) => sums.unwrap_or_default(),
            Err(error) => {
                // The model may be whole, and the record is written again with the next checkpoint.
                return Ok(Some(format!("{error}; the best model is not verified")));
            }
        };
        match sums.verify(&parent, &name) {
            Ok(_) => return Ok(None),
            Err(error) => error.to_string(),
        }
    } else {
        format!("the best model, of step {step}, is gone")
    };
    position.best = None;
    position.evaluations_since_best = 0;
    Ok(Some(format!(
        "{problem}; the next evaluation is the best again"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::EvalPlan;

    #[test]
    fn the_best_is_kept_and_patience_ends() {
        let plan = Plan {
            eval: EvalPlan {
                every: 10,
                patience: 2,
                ..EvalPlan::default()
            },
            ..Plan::default()
        };
        let mut position = Position::default();
        let mut course = Vec::new();
        for (step, score) in [
            (10, 5.0),
            (20, 4.0),
            (30, 4.0),
            (40, 3.5),
            (50, 9.0),
            (60, 3.6),
        ] {
            position.step = step;
            let best = is_best(&mut position, score);
            course.push((best, is_exhausted(&position, &plan)));
        }
        assert_eq!(
            course,
            [
                (true, false),
                (true, false),
                (false, false),
                (true, false),
                (false, false),
                (false, true)
            ]
        );
        assert_eq!(position.best, Some((40, 3.5f64.to_bits())));
        assert!(!is_exhausted(&position, &Plan::default()));
    }

    #[test]
    fn the_published_best_is_the_one_that_the_position_knows() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("run"), &Plan::default()).unwrap();
        let at = |step: u64| folder.checkpoints().join(candidate(step));
        let write = |step: u64| fs::write(at(step), step.to_string()).unwrap();
        let published = || fs::read_to_string(folder.best_model()).unwrap();
        let mut position = Position::default();
        publish_best(&folder, &position).unwrap();
        assert!(!folder.best_model().exists());
        write(20);
        position.best = Some((20, 0));
        publish_best(&folder, &position).unwrap();
        assert_eq!(published(), "20");
        // A better one comes and the process dies: a checkpoint that knows only 20 goes on with 20.
        write(30);
        assert_eq!(check_best(&folder, &mut position).unwrap(), None);
        publish_best(&folder, &position).unwrap();
        assert_eq!(published(), "20");
        assert!(!at(30).exists());
        write(30);
        position.best = Some((30, 0));
        publish_best(&folder, &position).unwrap();
        assert_eq!(published(), "30");
        // An older checkpoint whose best has been replaced has none.
        position.best = Some((20, 0));
        assert!(
            check_best(&folder, &mut position)
                .unwrap()
                .unwrap()
                .contains("step 20")
        );
        assert_eq!(position.best, None);
    }

    #[test]
    fn a_kill_before_the_rename_is_made_good_and_a_damaged_record_ends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("run"), &Plan::default()).unwrap();
        let parent = folder.checkpoints();
        let mut position = Position::default();
        for step in [7, 9] {
            let path = parent.join(candidate(step));
            fs::write(&path, step.to_string()).unwrap();
            let mut sums = Checksums::default();
            sums.add(&candidate(step), &sha256_file(&path).unwrap());
            sums.write(&parent).unwrap();
            position.best = Some((step, 0));
            if step == 7 {
                publish_best(&folder, &position).unwrap();
            }
        }
        // The new hash is recorded, and the older file is still in place.
        let mut sums = Checksums::read(folder.root()).unwrap().unwrap();
        let best = sha256_file(&parent.join(candidate(9))).unwrap();
        sums.add("best.safetensors", &best);
        sums.write(folder.root()).unwrap();
        assert_eq!(fs::read(folder.best_model()).unwrap(), b"7");
        publish_best(&folder, &position).unwrap();
        assert_eq!(fs::read(folder.best_model()).unwrap(), b"9");
        for at in [folder.root(), &parent] {
            fs::write(at.join("SHA256SUMS"), b"\xff").unwrap();
        }
        let note = check_best(&folder, &mut position).unwrap().unwrap();
        assert!(note.contains("SHA256SUMS is damaged"), "{note}");
        assert_eq!(position.best, Some((9, 0)));
        publish_best(&folder, &position).unwrap();
        let sums = Checksums::read(folder.root()).unwrap().unwrap();
        assert!(sums.verify(folder.root(), "best.safetensors").unwrap());
        let sums = Checksums::read(&parent).unwrap().unwrap();
        assert!(sums.verify(&parent, &candidate(9)).unwrap());
    }

    #[test]
    fn a_damaged_best_model_is_not_published_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("run"), &Plan::default()).unwrap();
        let parent = folder.checkpoints();
        let path = parent.join(candidate(7));
        fs::write(&path, b"model").unwrap();
        let mut sums = Checksums::default();
        sums.add(&candidate(7), &sha256_file(&path).unwrap());
        sums.write(&parent).unwrap();
        let mut position = Position {
            best: Some((7, 0)),
            ..Position::default()
        };
        publish_best(&folder, &position).unwrap();
        let recorded = Checksums::read(folder.root()).unwrap().unwrap();
        assert!(recorded.verify(folder.root(), "best.safetensors").unwrap());
        // A second time there is nothing to do.
        fs::remove_file(folder.root().join("SHA256SUMS")).unwrap();
        recorded.write(folder.root()).unwrap();
        publish_best(&folder, &position).unwrap();
        assert_eq!(Checksums::read(folder.root()).unwrap(), Some(recorded));
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"modem").unwrap();
        let note = check_best(&folder, &mut position).unwrap().unwrap();
        assert!(
            note.contains("best-000007.safetensors is damaged"),
            "{note}"
        );
        assert_eq!(position.best, None);
    }
}
