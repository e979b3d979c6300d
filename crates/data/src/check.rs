//! Decodes every image of a folder once.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use rayon::prelude::*;
use sdft_imaging::{Decoded, Depth, Fit, Image, ImageSpec, ImagingError, Samples, read_image_file};

use crate::{
    DataError, FolderOptions, Item, Report, Result, Unreadable,
    classes::{Classes, classes},
    entries::{Entries, page_id},
    masks::{Masks, mean},
    paths::Paths,
    reader::{Reader, check_options, check_range},
    report,
    scan::{Scan, scan},
    tally::Tally,
};

/// A checked folder.
pub(crate) struct Checked {
    pub(crate) report: Report,
    /// The readable images.
    pub(crate) images: Entries,
    /// What [`Reader::cacheable`] returned for them, if `keep` was set and all fit the memory limit.
    pub(crate) kept: Option<Vec<Item>>,
    pub(crate) spec: ImageSpec,
    pub(crate) reader: Reader,
    pub(crate) masks: Option<Masks>,
    pub(crate) classes: Classes,
}

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
    /// The image at the size of the set, if it is to be cached.
    kept: Option<Box<Item>>,
}

/// The facts of an image, or why it is left out.
type Examined = std::result::Result<Facts, Box<str>>;

/// The images of a file.
enum File {
    One(Examined),
    Several(Vec<Examined>),
}

/// Decodes every image of `folder`; calls `on_image` with (done, total) after each file from any thread.
///
/// # Errors
/// Fails for the same reasons as [`FolderSource::open_with`](crate::FolderSource::open_with).
pub(crate) fn check(
    folder: &Path,
    options: &FolderOptions,
    keep: bool,
    on_image: &(dyn Fn(usize, usize) + Sync),
) -> Result<Checked> {
    check_options(options)?;
    let Scan {
        images: files,
        mut unreadable,
        others,
        hidden,
    } = scan(folder)?.with_images(folder)?;
    let masks = options.masks.as_deref();
    let masks = masks.map(|masks| Masks::open(masks, folder, files.ids()));
    let masks = masks.transpose()?;

    let mut reader = Reader::new(options);
    let mut examination = Examination::new(&files, options, keep);
    let mut examined = examination.run(&reader, masks.as_ref(), on_image)?;
    if reader.is_open() && examination.forms().len() > 1 {
        let spec = shared_form(&examination.forms(), options, &files, folder)?;
        reader = reader.of_form(&spec);
        examination = Examination::new(&files, options, keep);
        examined = examination.run(&reader, masks.as_ref(), &|_, _| {})?;
    }
    let tally = examination.tally.into_inner();
    let tally = tally.unwrap_or_else(PoisonError::into_inner);

    let (mut entries, mut facts) = (Vec::new(), Vec::new());
    for (file, examined) in examined.into_iter().enumerate() {
        let mut add = |page: usize, examined: Examined| match examined {
            Ok(these) => {
                entries.push([file as u32, page as u32]);
                facts.push(these);
            }
            Err(reason) => unreadable.push(Unreadable {
                file: page_id(files.id(file), page).into_owned(),
                reason: reason.into(),
                kind: None,
            }),
        };
        match examined {
            File::One(image) => add(0, image),
            File::Several(images) => {
                let pages = images.into_iter().enumerate();
                pages.for_each(|(page, image)| add(page + 1, image));
            }
        }
    }
    unreadable.sort_by(|a, b| a.file.cmp(&b.file));
    let path = folder.to_owned();
    let spec = match tally.forms.as_slice() {
        [] => return Err(DataError::AllUnreadable { path, unreadable }),
        [(spec, _)] => *spec,
        forms => return Err(different_ranges(forms, &files, folder)),
    };
    if let Some(range) = options.range {
        check_range(range, spec.depth)?;
    }
    if options.strict && !unreadable.is_empty() {
        return Err(DataError::SomeUnreadable { path, unreadable });
    }
    let images = Entries::new(files, entries);
    let classes = match &options.classes {
        Some(from) => classes(from, folder, images.ids())?,
        None => Classes::default(),
    };
    let scan = Scan {
        images: Paths::default(),
        unreadable,
        others,
        hidden,
    };
    let mut report = report::make(folder, options, spec, &images, &facts, tally, scan);
    report.count(&classes, masks.as_ref());
    let kept = facts.into_iter().map(|facts| facts.kept.map(|item| *item));
    Ok(Checked {
        report,
        kept: kept.collect(),
        images,
        spec,
        reader,
        masks,
        classes,
    })
}

/// The form that images of several forms are read in.
fn shared_form(
    forms: &[(ImageSpec, usize)],
    options: &FolderOptions,
    files: &Paths,
    folder: &Path,
) -> Result<ImageSpec> {
    let has = |depth| forms.iter().find(|(form, _)| form.depth == depth);
    let depth = match options.depth {
        Some(depth) => depth,
        None => match [Depth::U8, Depth::U16, Depth::F32].map(has) {
            [Some(&(_, a)), _, Some(&(_, b))] | [_, Some(&(_, a)), Some(&(_, b))] => {
                return Err(DataError::Mixed {
                    folder: folder.to_owned(),
                    problem: format!(
                        "it has images of integers ({}) and of floats ({}); set data.depth to 8, 16 or \"float\"",
                        files.id(a),
                        files.id(b)
                    ),
                });
            }
            // A range beyond 8 bits says what the values are.
            [Some(_), Some(_), _] if options.range.is_some_and(|[_, high]| high > 255.0) => {
                Depth::U16
            }
            [Some(_), ..] => Depth::U8,
            [None, Some(_), _] => Depth::U16,
            [None, None, _] => Depth::F32,
        },
    };
    let channels = options.channels.unwrap_or_else(|| {
        let first = forms[0].0.channels;
        let same = forms.iter().all(|(form, _)| form.channels == first);
        if same { first } else { 3 }
    });
    Ok(ImageSpec::new(channels, depth, 1, 1))
}

/// The error for images that state different ranges themselves.
fn different_ranges(forms: &[(ImageSpec, usize)], files: &Paths, folder: &Path) -> DataError {
    let mut forms = forms.to_vec();
    forms.sort_by_key(|&(_, first)| first);
    let [a, b] = [forms[0], forms[1]].map(|(form, first)| {
        let [low, high] = form.range;
        format!("{} from {low} to {high}", files.id(first))
    });
    DataError::Mixed {
        folder: folder.to_owned(),
        problem: format!(
            "the files state different ranges, {a} and {b}; set data.range = [low, high]"
        ),
    }
}

/// One pass over all files.
struct Examination<'a> {
    files: &'a Paths,
    options: &'a FolderOptions,
    keep: AtomicBool,
    /// Bytes of the images that are cached.
    kept: AtomicU64,
    tally: Mutex<Tally>,
    /// The first file that makes the folder unusable.
    fatal: Mutex<Option<(usize, DataError)>>,
}

impl<'a> Examination<'a> {
    fn new(files: &'a Paths, options: &'a FolderOptions, keep: bool) -> Self {
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
            tally: Mutex::default(),
            fatal: Mutex::default(),
        }
    }

    /// Examines all files.
    ///
    /// # Errors
    /// Fails if an image makes the folder unusable.
    fn run(
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
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        match fatal.take() {
            Some((_, error)) => Err(error),
            None => Ok(examined),
        }
    }

    fn forms(&self) -> Vec<(ImageSpec, usize)> {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.forms.clone()
    }

    /// Decodes the images of a file.
    fn file(&self, file: usize, reader: &Reader, masks: Option<&Masks>) -> File {
        let id = self.files.id(file);
        let reason = |error: &ImagingError| error.reason().into_boxed_str();
        let opened = read_image_file(&self.files.path(file), reader.limits())
            .and_then(|bytes| Ok((reader.count(&bytes, id)?, bytes)));
        let (pages, bytes) = match opened {
            Ok(opened) => opened,
            Err(error) => return File::One(Err(reason(&error))),
        };
        let hash = hash(&bytes);
        let image = |page: usize| {
            let decoded = match reader.decode(&bytes, id, page) {
                Ok(decoded) => decoded,
                Err(error @ ImagingError::Values { .. }) => {
                    self.stop(file, error.into());
                    return Err("its values are outside the range".into());
                }
                Err(error) => return Err(reason(&error)),
            };
            match self.facts(file, page, decoded, reader, masks) {
                Ok(facts) => Ok(Facts {
                    bytes: hash,
                    ..facts
                }),
                Err(error) => {
                    self.stop(file, error);
                    Err("its mask cannot be used".into())
                }
            }
        };
        if pages == 1 {
            return File::One(image(0));
        }
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.stacks += 1;
        drop(tally);
        File::Several((0..pages).map(image).collect())
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
        file: usize,
        page: usize,
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
            pixels: hash_of_image(&decoded.image),
            enlarged: scale > 1.0,
            elongated: (down / across).max(across / down) > Report::ELONGATED,
            kept: None,
        };
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.add(&decoded, form, file);
        drop(tally);
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
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.mask[0] += sum;
            tally.mask[1] += 255 * n;
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
