//! Prepares all entries of the inputs on all cores.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Component, Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use sdft_assets::INDEX;
use sdft_data::ClassesFrom;
use sdft_imaging::{
    Conversions, Depth, Fit, ImageSpec, Limits, Reading, Rgb8, center_crop, encode_sheet, grid,
    is_sheet,
};

use crate::{
    Exclusions, PrepareError, Record, Report, Result, Skipped,
    entry::{Outcome, Work, handle},
    form::{Common, Form},
    index::{self, Header, JOURNAL, Journal, READING},
    input::{self, Content, Input, Item, Passed},
    labels::{self, Label},
    size_text,
    target::Target,
};

/// Options of [`prepare`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Height and width of the images in pixels, each 1 to 65536.
    pub size: [usize; 2],
    /// Number of channels; `None` for the number that all images share, without alpha, or 3 in a set of grey and colour.
    pub channels: Option<usize>,
    /// Type of the samples; `None` for the type that all images share, or 8 bits in a set of 8 and 16 bits.
    pub depth: Option<Depth>,
    /// How images get the size. There are no random crops.
    pub fit: Fit,
    /// The colour under transparent pixels and around padded images.
    pub background: [u8; 3],
    /// Where the classes of the images are; `None` for those that the inputs state.
    pub classes: Option<ClassesFrom>,
    /// The name of the inputs in the index; their paths if `None`.
    pub name: Option<String>,
    /// Images to leave out.
    pub exclude: Exclusions,
    /// Whether an image that cannot be used is an error.
    pub strict: bool,
    /// Largest size of an input image.
    pub limits: Limits,
    /// Number of threads, at most one for each core; all cores if `None`.
    pub threads: Option<usize>,
}

impl Options {
    /// Default options for images of `size` x `size` pixels: in the form that they share, cropped, on white.
    pub fn new(size: usize) -> Self {
        Self {
            size: [size, size],
            channels: None,
            depth: None,
            fit: Fit::Crop,
            background: [255; 3],
            classes: None,
            name: None,
            exclude: Exclusions::default(),
            strict: false,
            limits: Limits::default(),
            threads: None,
        }
    }
}

/// Called with the number of entries done and the approximate total, from any thread.
type Watch<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Brings all images of folders, zip and tar files and parquet tables to one size and form in the folder `out`, on all cores.
///
/// A folder includes its subfolders and the archives and tables in them. Images are center-cropped and resized like in guided-diffusion
/// unless `options.fit` says otherwise; a PNG that already has the size and form keeps its file. An interrupted preparation is continued and a finished one is verified: every input is
/// read and hashed, and every image is compared with its hash. A contact sheet is written next to the folder.
///
/// Classes that the inputs state are in the index and in `dataset.json`, which has the layout of StyleGAN and EDM: `KEY.cls` and `KEY.json` of
/// WebDataset's tar files, the columns of classes of tables, `dataset.json` of a folder or zip file.
///
/// Fails if
/// - an input does not exist, is damaged or of an unknown kind, or is a table without an image column
/// - the target contains other files or another set, is inside an input, is in use by another process, or cannot be written
/// - no image is usable, or one is not and `options.strict` is set
pub fn prepare(
    inputs: &[PathBuf],
    out: &Path,
    options: &Options,
    watch: Watch<'_>,
) -> Result<Report> {
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let target = real(&whole(out));
    let mut names = Vec::new();
    for input in inputs {
        let path = real(&whole(input));
        if target.starts_with(&path) || path.starts_with(&target) {
            return Err(PrepareError::Nested {
                path: out.to_owned(),
                input: input.clone(),
            });
        }
        // The path as given: in a download cache, the canonical path has no meaningful name.
        names.push(whole(input).display().to_string());
    }
    let by_folder = options.classes == Some(ClassesFrom::Folders);
    run(
        names,
        || input::open(inputs, by_folder),
        out,
        options,
        watch,
    )
}

/// The path with links resolved; its last components need not exist.
fn real(path: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::ParentDir)) => {
            let real = real(parent);
            real.parent().map_or(real.clone(), Path::to_owned)
        }
        (Some(parent), Some(last)) => real(parent).join(last),
        _ => path.to_owned(),
    }
}

/// Like [`prepare`], for pictures in memory, each with its source.
///
/// # Errors
/// Fails for the same reasons as [`prepare`].
pub fn prepare_pictures(
    pictures: Vec<(String, Rgb8)>,
    out: &Path,
    options: &Options,
    watch: Watch<'_>,
) -> Result<Report> {
    let pictures = Arc::new(pictures);
    let open = || {
        let (mut input, pictures) = (Input::default(), Arc::clone(&pictures));
        let items = (0..pictures.len()).map(move |i| {
            let (source, picture) = &pictures[i];
            Item::new(source, Content::Picture(picture.clone()))
        });
        input.push(items.len(), items);
        Ok(input)
    };
    run(
        vec!["pictures in memory".to_owned()],
        open,
        out,
        options,
        watch,
    )
}

fn run(
    inputs: Vec<String>,
    open: impl Fn() -> Result<Input>,
    out: &Path,
    options: &Options,
    watch: Watch<'_>,
) -> Result<Report> {
    let started = Instant::now();
    check(options)?;
    let header = Header {
        size: options.size,
        inputs: options.name.clone().map_or(inputs, |name| vec![name]),
        reading: READING,
        channels: options.channels,
        depth: options.depth,
        fit: options.fit,
        background: Some(options.background).filter(|colour| *colour != [255; 3]),
    };
    let mut input = open()?;
    let target = Target::open(out, &header)?;
    let known: Vec<&Record> = target.known.values().collect();
    let journal = Journal::begin(&out.join(JOURNAL), &header, &known)?;

    let (classes, notes) = (
        std::mem::take(&mut input.classes),
        std::mem::take(&mut input.notes),
    );
    let total = input.total;
    let watch = |done: usize| watch(done, total.max(done));
    let asked = options.channels.zip(options.depth);
    let common = Common::new(asked.map(|(channels, depth)| Form { channels, depth }));
    let mut work_on = Work {
        target: &target,
        journal: &journal,
        options,
        common,
    };
    let mut outcomes = work(input, &work_on, &target.known, &watch)?;
    // Images that were made before the common form was known are made again.
    let form = work_on.common.get();
    let is_of_another =
        |outcome: &Outcome| outcome.record.file.is_some() && Some(outcome.record.form()) != form;
    if outcomes.iter().any(is_of_another) {
        let done = outcomes.into_iter();
        let done: HashMap<String, Outcome> = done
            .filter_map(|outcome| Some((outcome.record.stem()?.to_owned(), outcome)))
            .collect();
        let known = done
            .iter()
            .map(|(stem, done)| (stem.clone(), done.record.clone()));
        let known = known.collect();
        work_on.common = Common::new(form);
        outcomes = work(open()?, &work_on, &known, &watch)?;
        for outcome in &mut outcomes {
            let before = outcome.record.stem().and_then(|stem| done.get(stem));
            outcome.made |= before.is_some_and(|before| before.made);
        }
    }

    let mut report = Report {
        folder: out.to_owned(),
        size: options.size,
        form: form.map(|form| (form.channels, form.depth)),
        background: options.background,
        notes,
        threads_asked: options.threads,
        threads: threads_for(options),
        ..Report::default()
    };
    let mut records = Vec::with_capacity(outcomes.len());
    let mut labels = Vec::with_capacity(outcomes.len());
    let mut firsts: HashMap<String, String> = HashMap::new();
    let mut met = BTreeMap::new();
    let (mut others, mut hidden) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        let mut record = outcome.record;
        if let Some(entry) = outcome.excluded {
            *met.entry(entry).or_insert(0) += 1;
            report.excluded += 1;
        } else if let Some(why) = outcome.passed {
            match why {
                Passed::Other => others.push(record.source.clone()),
                Passed::Hidden => hidden.push(record.source.clone()),
                Passed::Label => {}
            }
        } else if let Some(reason) = &record.skipped {
            report.skipped.push(Skipped {
                source: record.source.clone(),
                reason: reason.clone(),
            });
        } else if let Some(file) = record.file.clone() {
            if let Some(first) = firsts.get(&file) {
                let reason = format!("has the same bytes as {first}");
                report.duplicates.push(Skipped {
                    source: record.source.clone(),
                    reason: reason.clone(),
                });
                (record.file, record.file_sha256) = (None, None);
                record.skipped = Some(reason);
            } else {
                firsts.insert(file, record.source.clone());
                report.images += 1;
                report.made += usize::from(outcome.made);
                report.enlarged += usize::from(is_enlarged(&record, options));
                report.conversions += Conversions::from_names(&record.conversions);
            }
        }
        labels.push(outcome.label.filter(|_| record.file.is_some()));
        records.push(record);
    }
    report.others = others.len() + hidden.len();
    report.describe_skipped = sdft_data::describe_skipped(
        others.iter().map(String::as_str),
        hidden.iter().map(String::as_str),
    );
    report.unmatched = options.exclude.unmatched(&met);
    if options.strict && !report.skipped.is_empty() {
        return Err(PrepareError::Strict {
            skipped: report.skipped,
        });
    }
    if report.images == 0 {
        return Err(PrepareError::Nothing {
            inputs: header.inputs.join(", "),
            skipped: report.skipped,
        });
    }
    let names = label(&mut records, labels, &classes, options)?;
    report.classes = names.clone();
    let (labelled, n) = (
        records.iter().filter_map(|record| record.label),
        report.images,
    );
    report.unlabelled = n - labelled.clone().count();
    report.has_labels = labelled.max().is_some();
    labels::write(out, &records, &names)?;
    index::write(&out.join(INDEX), &header, &records)?;
    report.removed = target.retain(&records)?;
    let journal = out.join(JOURNAL);
    fs::remove_file(&journal).map_err(|source| PrepareError::Io {
        path: journal,
        cause: source,
    })?;
    let is_changed = report.made + report.removed > 0;
    match contact_sheet(&target, &records, &options.limits, is_changed) {
        Sheet::At(path) => report.sheet = Some(path),
        Sheet::Kept(path) => report.kept = Some(path),
        Sheet::Failed => {}
    }
    report.took = started.elapsed();
    Ok(report)
}

/// Fails if an option is out of range.
fn check(options: &Options) -> Result<()> {
    let refuse = |option, expected, found: String| {
        Err(PrepareError::Option {
            option,
            expected,
            found,
        })
    };
    if options.size.iter().any(|side| !(1..=65_536).contains(side)) {
        return refuse("size", "1 to 65536", size_text(options.size));
    }
    if options.channels.is_some_and(|n| !(1..=1024).contains(&n)) {
        let found = options.channels.unwrap_or_default().to_string();
        return refuse("channels", "1 to 1024", found);
    }
    if options.fit == Fit::RandomCrop {
        return refuse("fit", "crop, pad or resize", "random-crop".to_owned());
    }
    Ok(())
}

/// Whether an image was smaller than the set.
fn is_enlarged(record: &Record, options: &Options) -> bool {
    let [height, width] = options.size;
    let sides = [record.height, record.width];
    let smaller = |sides: [bool; 2]| match options.fit {
        Fit::Pad => sides[0] && sides[1],
        _ => sides[0] || sides[1],
    };
    match sides {
        [Some(h), Some(w)] => smaller([h < height, w < width]),
        _ => false,
    }
}

/// Numbers the classes of the images in their records, and returns the names of the classes.
fn label(
    records: &mut [Record],
    labels: Vec<Option<Label>>,
    declared: &[Arc<str>],
    options: &Options,
) -> Result<Vec<String>> {
    let used = |record: &&mut Record| record.file.is_some();
    if let Some(from @ ClassesFrom::File(_)) = &options.classes {
        let sources = records.iter().filter(|record| record.file.is_some());
        let sources = sources.map(|record| record.source.as_str().into());
        let found = sdft_data::classes(from, Path::new(""), sources)?;
        for (record, label) in records.iter_mut().filter(used).zip(found.labels) {
            record.label = Some(label);
        }
        return Ok(found.names);
    }
    let sources = records.iter().map(|record| record.source.as_str());
    let all: Vec<_> = sources.zip(labels).collect();
    let found = labels::numbered(&all, declared)?;
    for (record, label) in records.iter_mut().zip(found.labels) {
        record.label = label;
    }
    Ok(found.names)
}

/// The requested number of threads, or the number of cores if that is less: each thread holds an image, and more threads are not faster.
fn threads_for(options: &Options) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    options.threads.unwrap_or(cores).clamp(1, cores)
}

/// Processes all entries on all threads; the outcomes are in the order of the entries.
fn work(
    input: Input,
    work: &Work<'_>,
    known: &HashMap<String, Record>,
    watch: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Outcome>> {
    let items = Mutex::new(input.into_items().enumerate());
    let outcomes = Mutex::new(Vec::new());
    let failed = Mutex::new(None);
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
            let next = items.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((i, item)) = next else { break };
            match handle(item, work, known) {
                Ok(pages) => {
                    let mut all = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    all.extend(pages.into_iter().map(|outcome| (i, outcome)));
                    drop(all);
                    watch(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.get_or_insert(error);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads_for(work.options) {
            scope.spawn(worker);
        }
        worker();
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    // Stable, so that pages keep their order.
    outcomes.sort_by_key(|&(i, _)| i);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

/// An image as a screen shows it.
fn on_screen(path: &Path, limits: &Limits) -> Option<Rgb8> {
    let reading = Reading {
        limits: *limits,
        ..Reading::default()
    };
    let decoded = reading.decode_file(path, 0).ok()?;
    let image = &decoded.image;
    let spec = ImageSpec {
        range: decoded.range,
        ..ImageSpec::new(image.channels, image.depth(), image.width, image.height)
    };
    Some(spec.screen(image))
}

/// The contact sheet, or what happened to it.
enum Sheet {
    At(PathBuf),
    /// Another file is in its place and stays.
    Kept(PathBuf),
    /// It cannot be written, which does not affect the set.
    Failed,
}

/// Writes a sheet of up to 64 images, spread over the set, next to the folder.
fn contact_sheet(target: &Target, records: &[Record], limits: &Limits, is_changed: bool) -> Sheet {
    const SHOWN: usize = 64;
    const SIDE: usize = 96;
    let out = &target.folder;
    let Some(name) = out.file_name() else {
        return Sheet::Failed;
    };
    let path = out.with_file_name(format!("{}-grid.png", name.to_string_lossy()));
    if fs::symlink_metadata(&path).is_ok() {
        if !is_sheet(&path) {
            return Sheet::Kept(path);
        }
        if !is_changed {
            return Sheet::At(path);
        }
    }
    let files: Vec<&str> = records.iter().filter_map(|r| r.file.as_deref()).collect();
    let shown = files.len().min(SHOWN);
    let images: Vec<Rgb8> = (0..shown)
        .filter_map(|i| on_screen(&out.join(files[i * files.len() / shown]), limits))
        .map(|image| match image.width.max(image.height) > SIDE {
            true => center_crop(&image, SIDE),
            false => image,
        })
        .collect();
    let sheet = encode_sheet(&grid(&images, 8, 2, [24, 24, 24]));
    match sheet.is_ok_and(|sheet| target.put_outside(&path, &sheet).is_ok()) {
        true => Sheet::At(path),
        false => Sheet::Failed,
    }
}
