//! Prepares all entries of the inputs on all cores.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Component, Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use sdft_assets::INDEX;
use sdft_files::sha256_bytes;
use sdft_imaging::{
    Conversions, Limits, Reading, Rgb8, center_crop, decode_file, encode_png, encode_sheet, grid,
    is_sheet, read_image_file,
};

use crate::{
    Exclusions, PrepareError, Record, Report, Result, Skipped,
    archive::Entry,
    error::EntryResult,
    index::{self, Header, JOURNAL, Journal, READING},
    input::{self, Content, Input, Item, Passed},
    target::{Target, file_name},
};

/// Options of [`prepare`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Side of the images in pixels, 1 to 65536.
    pub size: usize,
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
    /// Default options for images of this size.
    pub fn new(size: usize) -> Self {
        Self {
            size,
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

/// Brings all images of folders, zip files and parquet tables to squares of one size in the folder `out`, on all cores.
///
/// A folder includes its subfolders and the zip files and tables in them. Images are center-cropped and resized like in guided-diffusion; a
/// PNG that already has the size keeps its file. An interrupted preparation is continued and a finished one is verified: every input is
/// read and hashed, and every image is compared with its hash. A contact sheet is written next to the folder.
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
    run(names, || input::open(inputs), out, options, watch)
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
    let open = || {
        let mut input = Input::default();
        let items = pictures
            .into_iter()
            .map(|(source, picture)| Item::new(source, Content::Picture(picture)));
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

/// The result for one entry.
struct Outcome {
    record: Record,
    /// Whether the image was made by this call.
    made: bool,
    /// The exclusion that matched.
    excluded: Option<String>,
    /// Why the entry is ignored, if it is not an image.
    passed: Option<Passed>,
}

fn run(
    inputs: Vec<String>,
    open: impl FnOnce() -> Result<Input>,
    out: &Path,
    options: &Options,
    watch: Watch<'_>,
) -> Result<Report> {
    let started = Instant::now();
    if !(1..=65_536).contains(&options.size) {
        return Err(PrepareError::Option {
            option: "size",
            expected: "1 to 65536",
            found: options.size.to_string(),
        });
    }
    let header = Header {
        size: options.size,
        inputs: options.name.clone().map_or(inputs, |name| vec![name]),
        reading: READING,
    };
    let input = open()?;
    let target = Target::open(out, &header)?;
    let known: Vec<&Record> = target.known.values().collect();
    let journal = Journal::begin(&out.join(JOURNAL), &header, &known)?;

    let total = input.total;
    let outcomes = work(input, &target, &journal, options, &|done| {
        watch(done, total.max(done))
    })?;

    let mut report = Report {
        folder: out.to_owned(),
        size: options.size,
        threads_asked: options.threads,
        threads: threads_for(options),
        ..Report::default()
    };
    let mut records = Vec::with_capacity(outcomes.len());
    let mut firsts: HashMap<String, String> = HashMap::new();
    let mut met = BTreeMap::new();
    let mut passed = [Vec::new(), Vec::new()];
    for outcome in outcomes {
        let mut record = outcome.record;
        if let Some(entry) = outcome.excluded {
            *met.entry(entry).or_insert(0) += 1;
            report.excluded += 1;
        } else if let Some(why) = outcome.passed {
            passed[usize::from(why == Passed::Hidden)].push(record.source.clone());
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
                let short = record.width.min(record.height);
                report.enlarged += usize::from(short.is_some_and(|side| side < options.size));
                report.conversions += Conversions::from_names(&record.conversions);
            }
        }
        records.push(record);
    }
    let [others, hidden] = &passed;
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

/// The requested number of threads, or the number of cores if that is less: each thread holds an image, and more threads are not faster.
fn threads_for(options: &Options) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    options.threads.unwrap_or(cores).clamp(1, cores)
}

/// Processes all entries on all threads; the outcomes are in the order of the entries.
fn work(
    input: Input,
    target: &Target,
    journal: &Journal,
    options: &Options,
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
            match handle(item, target, journal, options) {
                Ok(outcome) => {
                    let mut all = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    all.push((i, outcome));
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
        for _ in 1..threads_for(options) {
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
    outcomes.sort_unstable_by_key(|&(i, _)| i);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

/// Processes one entry. An error concerns the target folder, not the entry.
fn handle(item: Item, target: &Target, journal: &Journal, options: &Options) -> Result<Outcome> {
    let excluded = options.exclude.by_name(&item).map(str::to_owned);
    let Item {
        source, content, ..
    } = item;
    let outcome = |record: Record| Outcome {
        record,
        made: false,
        excluded: None,
        passed: None,
    };
    let skipped = |sha256: Option<String>, reason: String| Record {
        source: source.clone(),
        sha256,
        skipped: Some(reason),
        ..Record::default()
    };
    if excluded.is_some() {
        return Ok(Outcome {
            excluded,
            ..outcome(skipped(None, "excluded".to_owned()))
        });
    }
    let pass = |why: Passed| Outcome {
        passed: Some(why),
        ..outcome(skipped(None, why.reason().to_owned()))
    };
    let read = match content {
        Content::File(path) => read_image_file(&path, &options.limits)
            .map(Read::Bytes)
            .map_err(|error| error.reason()),
        Content::Zip(mut archive, i) => match archive.read(i, &options.limits) {
            Ok(Entry::Other) => return Ok(pass(Passed::Other)),
            Ok(Entry::Bytes(bytes)) => Ok(Read::Bytes(bytes)),
            Err(reason) => Err(reason.to_string()),
        },
        Content::Passed(why) => return Ok(pass(why)),
        Content::Bytes(bytes) => Ok(Read::Bytes(bytes)),
        Content::Picture(picture) => Ok(Read::Picture(picture)),
        Content::Refused(reason) => Err(reason),
    };
    let read = match read {
        Ok(read) => read,
        Err(reason) => return Ok(outcome(skipped(None, reason))),
    };
    let sha256 = sha256_bytes(read.bytes());
    if let Some(entry) = options.exclude.by_hash(&sha256) {
        return Ok(Outcome {
            excluded: Some(entry.to_owned()),
            ..outcome(skipped(Some(sha256.clone()), "excluded".to_owned()))
        });
    }
    if let Some(known) = target.known.get(&sha256)
        && target.has(known)
    {
        return Ok(outcome(Record {
            source: source.clone(),
            ..known.clone()
        }));
    }
    let made = match picture(read, &source, options) {
        Ok(made) => made,
        Err(reason) => return Ok(outcome(skipped(Some(sha256), reason.to_string()))),
    };
    let record = Record {
        source: source.clone(),
        file: Some(file_name(&sha256)),
        sha256: Some(sha256.clone()),
        file_sha256: Some(sha256_bytes(&made.png)),
        width: Some(made.sides.0),
        height: Some(made.sides.1),
        conversions: made.conversions.names(),
        skipped: None,
    };
    target.put(&file_name(&sha256), &made.png)?;
    journal.add(&record)?;
    Ok(Outcome {
        made: true,
        ..outcome(record)
    })
}

/// The content that was read.
enum Read {
    Bytes(Vec<u8>),
    Picture(Rgb8),
}

impl Read {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Picture(picture) => &picture.pixels,
        }
    }
}

/// A square made from a picture.
struct Square {
    /// Width and height of the original picture.
    sides: (usize, usize),
    conversions: Conversions,
    /// The PNG file.
    png: Vec<u8>,
}

fn picture(read: Read, source: &str, options: &Options) -> EntryResult<Square> {
    let size = options.size;
    let (image, conversions, kept) = match read {
        Read::Picture(picture) => (picture, Conversions::default(), None),
        Read::Bytes(bytes) => {
            let decoded = Reading::rgb8(options.limits).decode(&bytes, source, 0);
            let decoded = decoded.map_err(|error| error.reason())?;
            let conversions = decoded.conversions();
            // A PNG without conversions can be kept as it is.
            let plain = decoded.format == "PNG" && conversions == Conversions::default();
            (
                Rgb8::from_image(decoded.image),
                conversions,
                plain.then_some(bytes),
            )
        }
    };
    let sides = (image.width, image.height);
    let png = match kept {
        Some(bytes) if sides == (size, size) => bytes,
        _ => encode_png(&center_crop(&image, size)).map_err(|error| error.to_string())?,
    };
    Ok(Square {
        sides,
        conversions,
        png,
    })
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
        .filter_map(|i| decode_file(&out.join(files[i * files.len() / shown]), limits).ok())
        .map(|image| match image.width > SIDE {
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
