//! One pass over the files of a folder, in which every image is decoded.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use rayon::prelude::*;
use sdft_imaging::{Decoded, Depth, Fit, Image, ImagingError, Samples, read_image_file};

use crate::{
    DataError, FolderOptions, Item, Report, Result,
    masks::{Masks, mean},
    paths::Paths,
    reader::Reader,
    tally::{Group, Groups},
};

/// What is known of a decoded image besides the tally.
pub(crate) struct Facts {
    /// Hash of the file.
    pub(crate) bytes: u64,
    /// Hash of the decoded pixels.
    pub(crate) pixels: u64,
    /// Whether it is smaller than the size of the set.
    pub(crate) enlarged: bool,
    /// Whether its shape is far from the set's.
    pub(crate) elongated: bool,
    /// Its channels and depth.
    form: (u32, Depth),
    /// The image at the size of the set, if it is to be cached.
    pub(crate) kept: Option<Box<Item>>,
}

/// The facts of an image, or why it is left out.
pub(crate) type Examined = std::result::Result<Facts, Box<str>>;

/// The images of a file.
pub(crate) enum File {
    One(Examined),
    Several(Vec<Examined>),
}

/// One pass over all files.
pub(crate) struct Examination<'a> {
    files: &'a Paths,
    options: &'a FolderOptions,
    keep: AtomicBool,
    /// Bytes of the images that are cached.
    kept: AtomicU64,
    groups: Mutex<Groups>,
    /// Files whose pages are images.
    stacks: AtomicUsize,
    /// The first file that makes the folder unusable.
    fatal: Mutex<Option<(usize, DataError)>>,
}

impl<'a> Examination<'a> {
    pub(crate) fn new(files: &'a Paths, options: &'a FolderOptions, keep: bool) -> Self {
        let least = [
            options.size[0],
            options.size[1],
            options.channels.unwrap_or(1),
            options.depth.map_or(1, Depth::bytes),
            files.len(),
        ];
        let least = least.into_iter();
        let least = least.fold(1_u64, |n, factor| n.saturating_mul(factor as u64));
        Self {
            files,
            options,
            keep: AtomicBool::new(keep && least <= options.cache_bytes),
            kept: AtomicU64::new(0),
            groups: Mutex::default(),
            stacks: AtomicUsize::new(0),
            fatal: Mutex::default(),
        }
    }

    /// Examines all files.
    ///
    /// # Errors
    /// Fails if an image makes the folder unusable.
    pub(crate) fn run(
        &self,
        reader: &Reader,
        masks: Option<&Masks>,
        on_image: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<File>> {
        let total = self.files.len();
        let done = AtomicUsize::new(0);
        let examined = (0..total)
            .into_par_iter()
            .map(|file| {
                let examined = self.file(file, reader, masks);
                on_image(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                examined
            })
            .collect();
        self.result().map(|()| examined)
    }

    /// Examines the images again that do not have these channels and depth.
    ///
    /// # Errors
    /// Fails if an image makes the folder unusable.
    pub(crate) fn again(
        &mut self,
        examined: &mut [File],
        reader: &Reader,
        masks: Option<&Masks>,
        (channels, depth): (usize, Depth),
    ) -> Result<()> {
        let groups = self.groups.get_mut();
        let groups = groups.unwrap_or_else(PoisonError::into_inner);
        // Not all are counted if there are too many forms.
        let is_known = !groups.is_full();
        groups.0.retain(|group| {
            is_known && (group.form.channels, group.form.depth) == (channels, depth)
        });
        let is_done = |image: &Examined| match image {
            Ok(facts) => is_known && facts.form == (channels as u32, depth),
            Err(_) => true,
        };
        let this = &*self;
        examined
            .par_iter_mut()
            .enumerate()
            .for_each(|(file, examined)| {
                let images = match examined {
                    File::One(image) => std::slice::from_mut(image),
                    File::Several(images) => images.as_mut_slice(),
                };
                if images.iter().all(is_done) {
                    return;
                }
                let bytes = read_image_file(&this.files.path(file), reader.limits());
                for (page, image) in images.iter_mut().enumerate() {
                    if !is_done(image) {
                        *image = match &bytes {
                            Ok(bytes) => this.image((file, page), bytes, reader, masks),
                            Err(error) => Err(error.reason().into()),
                        };
                    }
                }
            });
        self.result()
    }

    /// The first error that makes the folder unusable.
    fn result(&self) -> Result<()> {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        match fatal.take() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    pub(crate) fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decodes the images of a file.
    fn file(&self, file: usize, reader: &Reader, masks: Option<&Masks>) -> File {
        let opened = read_image_file(&self.files.path(file), reader.limits())
            .and_then(|bytes| Ok((reader.count(&bytes, self.files.id(file))?, bytes)));
        let (pages, bytes) = match opened {
            Ok(opened) => opened,
            Err(error) => return File::One(Err(error.reason().into())),
        };
        let image = |page| self.image((file, page), &bytes, reader, masks);
        if pages == 1 {
            return File::One(image(0));
        }
        self.stacks.fetch_add(1, Ordering::Relaxed);
        File::Several((0..pages).map(image).collect())
    }

    /// Decodes a page of a file.
    fn image(
        &self,
        (file, page): (usize, usize),
        bytes: &[u8],
        reader: &Reader,
        masks: Option<&Masks>,
    ) -> Examined {
        let decoded = match reader.decode(bytes, self.files.id(file), page) {
            Ok(decoded) => decoded,
            Err(error @ ImagingError::Values { .. }) => {
                self.stop(file, error.into());
                return Err("its values are outside the range".into());
            }
            Err(error) => return Err(error.reason().into()),
        };
        match self.facts((file, page), decoded, reader, masks) {
            Ok(facts) => Ok(Facts {
                bytes: hash(bytes),
                ..facts
            }),
            Err(error) => {
                self.stop(file, error);
                Err("its mask cannot be used".into())
            }
        }
    }

    /// The images that were counted, and the number of files whose pages are images.
    pub(crate) fn finish(self) -> (Vec<Group>, usize) {
        let groups = self.groups.into_inner();
        let groups = groups.unwrap_or_else(PoisonError::into_inner);
        (groups.0, self.stacks.into_inner())
    }

    /// Keeps the error of the first file that has one.
    fn stop(&self, file: usize, error: DataError) {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        if fatal.as_ref().is_none_or(|(first, _)| file < *first) {
            *fatal = Some((file, error));
        }
    }

    /// Counts an image, and prepares what is cached of it.
    ///
    /// # Errors
    /// Fails if its mask cannot be used.
    fn facts(
        &self,
        (file, page): (usize, usize),
        decoded: Decoded,
        reader: &Reader,
        masks: Option<&Masks>,
    ) -> Result<Facts> {
        let (id, form) = (self.files.id(file), reader.form(&decoded));
        let mask = masks
            .map(|masks| reader.mask(masks, id, page))
            .transpose()?;
        let [height, width] = self.options.size;
        let (down, across) = (
            height as f64 / decoded.image.height as f64,
            width as f64 / decoded.image.width as f64,
        );
        let scale = match self.options.fit {
            Fit::Pad => down.min(across),
            _ => down.max(across),
        };
        let mut facts = Facts {
            bytes: 0,
            form: (form.channels as u32, form.depth),
            pixels: hash_of_image(&decoded.image),
            enlarged: scale > 1.0,
            elongated: (down / across).max(across / down) > Report::ELONGATED,
            kept: None,
        };
        self.groups().add(&decoded, form, file);
        let keep = self.keep.load(Ordering::Relaxed);
        if !keep && mask.is_none() {
            return Ok(facts);
        }
        let has_mask = mask.is_some();
        let raw = Item {
            image: decoded.image,
            mask,
        };
        let item = reader
            .cacheable(raw, &form)
            .map_err(|error| DataError::Mask {
                id: id.to_owned(),
                problem: error.to_string(),
            })?;
        if let Some(mask) = item.mask.as_ref().filter(|_| has_mask) {
            let n = mask.samples.len() as u64;
            let sum = (mean(mask) * 255.0 * n as f64).round() as u64;
            if sum == 0 {
                return Err(DataError::Mask {
                    id: id.to_owned(),
                    problem: "its mask is dark everywhere in the image as it is fitted, so no pixel would count; correct the mask, or move the image out".to_owned(),
                });
            }
            if let Some(group) = self.groups().of(&form) {
                group.tally.mask[0] += sum;
                group.tally.mask[1] += 255 * n;
            }
        }
        if keep {
            facts.kept = self.within_limit(item);
        }
        Ok(facts)
    }

    /// The image, if all so far fit the memory limit.
    fn within_limit(&self, item: Item) -> Option<Box<Item>> {
        let size = |image: &Image| (image.samples.len() * image.depth().bytes()) as u64;
        let bytes = size(&item.image) + item.mask.as_ref().map_or(0, size);
        let all = self.kept.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > self.options.cache_bytes {
            self.keep.store(false, Ordering::Relaxed);
            return None;
        }
        Some(Box::new(item))
    }
}

/// A 64-bit hash: among a million images, two different ones collide with a probability of one in 40 million.
fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The hash of an image's form and samples.
fn hash_of_image(image: &Image) -> u64 {
    let samples = match &image.samples {
        Samples::U8(values) => hash(values.as_slice()),
        Samples::U16(values) => hash(values.as_slice()),
        Samples::F32(_) => hash(&image.samples.to_bytes()),
    };
    hash(&(image.width, image.height, image.channels, samples))
}
