//! A cache of inversions, kept between runs.

use crate::invert;
use candle_core::{Device, Result, Tensor};
use sdft_checkpoint::{ReadOptions, read, write_safetensors};
use sdft_diffusion::Denoiser;
use sdft_files::sha256_bytes;
use sdft_imaging::Samples;
use sdft_samplers::StepCallback;
use sdft_schedule::Schedule;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the tensor, and of the hash of its numbers.
const NAME: &str = "latent";
const HASH: &str = "sha256";

/// Bytes of latents that are kept in memory.
const IN_MEMORY: usize = 256 << 20;

/// A temporary file that has not been written to for this long belongs to a process that has ended.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// The latest latents, oldest first.
#[derive(Debug, Default)]
struct Memory {
    latents: HashMap<String, Tensor>,
    order: VecDeque<String>,
}

impl Memory {
    /// Inserts a latent, and drops the oldest until at most this many bytes are left.
    fn insert(&mut self, key: &str, latent: &Tensor, bytes: usize) {
        if self
            .latents
            .insert(key.to_owned(), latent.clone())
            .is_none()
        {
            self.order.push_back(key.to_owned());
        }
        while self.order.len() > 1 && self.order.len() * 4 * latent.elem_count() > bytes {
            if let Some(oldest) = self.order.pop_front() {
                self.latents.remove(&oldest);
            }
        }
    }
}

/// The latents of images, for one model and one way to invert: the latest in memory, all in a folder if there is one.
///
/// A file that is damaged, truncated or of another shape is ignored.
#[derive(Debug, Default)]
pub struct InversionCache {
    folder: Option<PathBuf>,
    memory: RefCell<Memory>,
    /// Why writing has stopped.
    problem: RefCell<Option<String>>,
}

impl InversionCache {
    /// Without a folder.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// In the subfolder of `parent` for these settings, which are written next to the latents. They must contain everything that changes an
    /// inversion.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn open(parent: &Path, settings: &BTreeMap<String, String>) -> Result<Self> {
        let text = serde_json::to_string_pretty(settings).map_err(candle_core::Error::wrap)?;
        let hash = sha256_bytes(text.as_bytes());
        let folder = parent.join(hash.get(..16).unwrap_or(&hash));
        std::fs::create_dir_all(&folder).map_err(|e| {
            candle_core::Error::Msg(format!("cannot make the folder {}: {e}", folder.display()))
        })?;
        // Remove the files of killed processes; others may be writing here now.
        let _ = sdft_files::sweep_older(&folder, ABANDONED);
        let path = folder.join("settings.json");
        if !path.is_file() {
            sdft_files::write_atomic(&path, text.as_bytes()).map_err(|e| {
                candle_core::Error::Msg(format!("cannot write {}: {e}", path.display()))
            })?;
        }
        Ok(Self {
            folder: Some(folder),
            ..Self::default()
        })
    }

    /// Its folder, if it has one.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Why latents are no longer written, if so: a full disk costs time, not results.
    pub fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }

    /// The latents `[B, 3, H, W]` of images; missing ones are inverted together and kept.
    ///
    /// # Errors
    /// As [`invert`].
    pub fn latents(
        &self,
        net: &dyn Denoiser,
        schedule: &Schedule,
        x0: &Tensor,
        steps: &[usize],
        callback: &mut StepCallback<'_>,
    ) -> Result<Tensor> {
        let n = x0.dim(0)?;
        let images = (0..n)
            .map(|i| x0.narrow(0, i, 1))
            .collect::<Result<Vec<_>>>()?;
        let keys = images.iter().map(image_key).collect::<Result<Vec<_>>>()?;
        let mut found: Vec<Option<Tensor>> = keys
            .iter()
            .zip(&images)
            .map(|(key, image)| self.get(key, image.dims(), image.device()))
            .collect();
        let missing: Vec<usize> = (0..n).filter(|&i| found[i].is_none()).collect();
        if !missing.is_empty() {
            let these: Vec<&Tensor> = missing.iter().map(|&i| &images[i]).collect();
            let latents = invert(net, schedule, &Tensor::cat(&these, 0)?, steps, callback)?;
            for (place, &i) in missing.iter().enumerate() {
                // A copy, so that one latent does not keep a whole batch in memory.
                let latent = latents.narrow(0, place, 1)?.copy()?;
                self.put(&keys[i], &latent)?;
                found[i] = Some(latent);
            }
        }
        let all: Vec<Tensor> = found.into_iter().flatten().collect();
        Tensor::cat(&all, 0)
    }

    /// The tensor kept under a name, if it exists and has this shape.
    pub fn get(&self, key: &str, shape: &[usize], device: &Device) -> Option<Tensor> {
        if let Some(latent) = self.memory.borrow().latents.get(key) {
            return Some(latent.clone());
        }
        let state = read(&self.path(key)?, &ReadOptions::default()).ok()?;
        let latent = state.get(NAME).filter(|latent| latent.dims() == shape)?;
        let hash = sha256_bytes(&bytes(latent).ok()?);
        (state.metadata().get(HASH) == Some(&hash)).then_some(())?;
        let latent = latent.to_device(device).ok()?;
        self.remember(key, &latent);
        Some(latent)
    }

    /// Keeps a tensor under a name of letters and digits.
    ///
    /// # Errors
    /// When the device fails; an error of the file system is a [`problem`](Self::problem).
    pub fn put(&self, key: &str, latent: &Tensor) -> Result<()> {
        self.remember(key, latent);
        let Some(path) = self.path(key).filter(|_| self.problem().is_none()) else {
            return Ok(());
        };
        let metadata = BTreeMap::from([(HASH.to_owned(), sha256_bytes(&bytes(latent)?))]);
        let latent = latent.to_device(&Device::Cpu)?;
        if let Err(error) = write_safetensors(&path, [(NAME, &latent)], &metadata, None) {
            *self.problem.borrow_mut() = Some(error.to_string());
        }
        Ok(())
    }

    fn remember(&self, key: &str, latent: &Tensor) {
        self.memory.borrow_mut().insert(key, latent, IN_MEMORY);
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{key}.safetensors")))
    }
}

/// The name of an image: the hash of its pixels, as the network gets them.
///
/// # Errors
/// When the device fails.
pub fn image_key(image: &Tensor) -> Result<String> {
    Ok(sha256_bytes(&bytes(image)?))
}

fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    Ok(Samples::F32(values).to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_diffusion::{Prediction, PredictionType};
    use sdft_schedule::linear_betas;
    use std::cell::Cell;

    /// Predicts half of its input as noise, and counts the images it is called with.
    struct Half(Cell<usize>);

    impl Denoiser for Half {
        fn predict(&self, xt: &Tensor, _: &[f32]) -> Result<Prediction> {
            self.0.set(self.0.get() + xt.dim(0)?);
            Ok(Prediction::new((xt * 0.5)?, PredictionType::Epsilon))
        }
    }

    #[test]
    fn the_oldest_latents_are_dropped() {
        let mut memory = Memory::default();
        let latent = Tensor::zeros(8, candle_core::DType::F32, &Device::Cpu).unwrap();
        for key in ["a", "b", "b", "c", "d"] {
            memory.insert(key, &latent, 3 * 32);
        }
        let mut kept: Vec<&str> = memory.latents.keys().map(String::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["b", "c", "d"]);
        memory.insert("e", &latent, 1);
        assert_eq!(memory.latents.len(), 1);
    }

    #[test]
    fn an_image_is_inverted_once_and_only_whole_latents_of_its_settings_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let open = |steps: &str| {
            let settings = BTreeMap::from([("inversion".to_owned(), steps.to_owned())]);
            InversionCache::open(dir.path(), &settings).unwrap()
        };
        let schedule =
            Schedule::from_betas_in_f32(&linear_betas(1e-4, 0.02, 1000).unwrap()).unwrap();
        let net = Half(Cell::new(0));
        let x0 = Tensor::rand(-1f32, 1f32, (3, 3, 4, 4), &Device::Cpu).unwrap();
        let latents = |cache: &InversionCache, x0: &Tensor| {
            let before = net.0.get();
            let steps = [0, 300, 600];
            let latents = cache.latents(&net, &schedule, x0, &steps, &mut |_| Ok(()));
            let values = latents.unwrap().flatten_all().unwrap().to_vec1::<f32>();
            // Two calls an image.
            (values.unwrap(), (net.0.get() - before) / 2)
        };
        let (first, inverted) = latents(&open("3"), &x0.narrow(0, 0, 2).unwrap());
        assert_eq!(inverted, 2);
        // Another process: two are on the disk, the third is not.
        let cache = open("3");
        let (all, inverted) = latents(&cache, &x0);
        assert_eq!((&all[..96], inverted), (&first[..], 1));
        assert_eq!(latents(&cache, &x0), (all.clone(), 0));
        assert_eq!(latents(&open("4"), &x0).1, 3);
        assert_eq!(latents(&InversionCache::in_memory(), &x0), (all.clone(), 3));
        // A damaged file is replaced.
        let path = cache
            .path(&image_key(&x0.narrow(0, 1, 1).unwrap()).unwrap())
            .unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(latents(&open("3"), &x0), (all.clone(), 1));
        assert_eq!(latents(&open("3"), &x0), (all, 0));
        let folder = cache.folder().unwrap().to_owned();
        assert!(folder.join("settings.json").is_file());
        // A missing folder is a problem, not an error.
        std::fs::remove_dir_all(&folder).unwrap();
        let other = (&x0 * 0.5).unwrap();
        assert_eq!(latents(&cache, &other).1, 3);
        assert!(cache.problem().unwrap().contains("safetensors"));
    }
}
