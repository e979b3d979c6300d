//! Processes one entry of an input.

use std::collections::HashMap;

use sdft_files::sha256_bytes;
use sdft_imaging::{Rgb8, read_image_file};

use crate::{
    Options, Record, Result,
    archive::Entry,
    error::{EntryResult, Failure},
    form::Common,
    index::Journal,
    input::{Content, Item, Passed},
    labels::Label,
    make::{Made, make, make_of_picture},
    shard,
    target::{Target, file_name, stem_of_page},
};

/// What all entries share.
pub(crate) struct Work<'a> {
    pub(crate) target: &'a Target,
    pub(crate) journal: &'a Journal,
    pub(crate) options: &'a Options,
    /// The form of the images.
    pub(crate) common: Common,
}

/// The result for one entry.
pub(crate) struct Outcome {
    pub(crate) record: Record,
    /// Its class, if the input states it.
    pub(crate) label: Option<Label>,
    /// Whether the image was made by this call.
    pub(crate) made: bool,
    /// The exclusion that matched.
    pub(crate) excluded: Option<String>,
    /// Why the entry is ignored, if it is not an image.
    pub(crate) passed: Option<Passed>,
}

/// Processes one entry, which may have several pages. `known` has the images that exist already, by their file name without the ending.
///
/// # Errors
/// An error concerns the whole set, not the entry: the target folder, or images that have no form in common.
pub(crate) fn handle(
    item: Item,
    work: &Work<'_>,
    known: &HashMap<String, Record>,
) -> Result<Vec<Outcome>> {
    let options = work.options;
    let excluded = options.exclude.by_name(&item).map(str::to_owned);
    let Item {
        source,
        content,
        label,
        ..
    } = item;
    let outcome = |record: Record, made: bool| Outcome {
        record,
        label: label.clone(),
        made,
        excluded: None,
        passed: None,
    };
    let skipped = |source: &str, sha256: Option<&str>, reason: &str| {
        outcome(
            Record {
                source: source.to_owned(),
                sha256: sha256.map(str::to_owned),
                skipped: Some(reason.to_owned()),
                ..Record::default()
            },
            false,
        )
    };
    let left_out = |excluded: Option<String>, sha256: Option<&str>| {
        vec![Outcome {
            excluded,
            ..skipped(&source, sha256, "excluded")
        }]
    };
    if excluded.is_some() {
        return Ok(left_out(excluded, None));
    }
    let read = match read(content, &source, options) {
        Ok(Ok(read)) => read,
        Ok(Err(why)) => {
            return Ok(vec![Outcome {
                passed: Some(why),
                ..skipped(&source, None, why.reason())
            }]);
        }
        Err(reason) => return Ok(vec![skipped(&source, None, &reason.to_string())]),
    };
    let sha256 = sha256_bytes(read.bytes());
    if let Some(entry) = options.exclude.by_hash(&sha256) {
        return Ok(left_out(Some(entry.to_owned()), Some(&sha256)));
    }
    if let Some(known) = work.kept(&sha256, &source, known)? {
        let outcomes = known.into_iter().map(|record| outcome(record, false));
        return Ok(outcomes.collect());
    }
    let (mut outcomes, mut page, mut pages) = (Vec::new(), 0, 1);
    while page < pages {
        let made = match &read {
            Read::Bytes(bytes) => make(bytes, &source, page, work),
            Read::Picture(picture) => make_of_picture(picture, &source, work),
        };
        // If the first page cannot be read, the others are not counted.
        if let (0, Ok(made)) = (page, &made) {
            pages = made.pages;
        }
        page += 1;
        let source = source_of_page(&source, page, pages);
        outcomes.push(match work.record(made, &source, &sha256, [page, pages])? {
            Ok(record) => outcome(record, true),
            Err(reason) => skipped(&source, Some(&sha256), &reason),
        });
    }
    Ok(outcomes)
}

/// The source of a page, counted from 1.
fn source_of_page(source: &str, page: usize, pages: usize) -> String {
    match pages {
        0 | 1 => source.to_owned(),
        _ => format!("{source}#{page}"),
    }
}

impl Work<'_> {
    /// The records of a file whose images exist, all of them in the common form.
    fn kept(
        &self,
        sha256: &str,
        source: &str,
        known: &HashMap<String, Record>,
    ) -> Result<Option<Vec<Record>>> {
        let first = known
            .get(sha256)
            .or_else(|| known.get(&stem_of_page(sha256, 1)));
        let Some(first) = first else {
            return Ok(None);
        };
        let pages = first.pages.unwrap_or(1);
        let mut records = Vec::new();
        for page in 1..=pages {
            let stem = match first.pages {
                None => sha256.to_owned(),
                Some(_) => stem_of_page(sha256, page),
            };
            let Some(record) = known.get(&stem).filter(|record| self.target.has(record)) else {
                return Ok(None);
            };
            if self.common.add(record.form(), source)? != record.form() {
                return Ok(None);
            }
            records.push(Record {
                source: source_of_page(source, page, pages),
                ..record.clone()
            });
        }
        Ok(Some(records))
    }

    /// Writes an image, and returns its record or the reason why it could not be made. `[page, pages]` count from 1.
    fn record(
        &self,
        made: std::result::Result<Made, Failure>,
        source: &str,
        sha256: &str,
        [page, pages]: [usize; 2],
    ) -> Result<std::result::Result<Record, String>> {
        let made = match made {
            Ok(made) => made,
            Err(Failure::Entry(reason)) => return Ok(Err(reason.to_string())),
            Err(Failure::Set(error)) => return Err(*error),
        };
        let stem = match pages {
            1 => sha256.to_owned(),
            _ => stem_of_page(sha256, page),
        };
        let file = file_name(&stem, made.spec.ending());
        let record = Record {
            source: source.to_owned(),
            file: Some(file.clone()),
            sha256: Some(sha256.to_owned()),
            file_sha256: Some(sha256_bytes(&made.bytes)),
            width: Some(made.sides.0),
            height: Some(made.sides.1),
            conversions: made.conversions.names(),
            pages: Some(pages).filter(|pages| *pages > 1),
            ..Record::default()
        };
        let record = record.with_form(made.form());
        self.target.put(&file, &made.bytes)?;
        self.journal.add(&record)?;
        Ok(Ok(record))
    }
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

/// Reads the content of an entry; why it is ignored, if it is not an image; or the reason why it cannot be read.
fn read(
    content: Content,
    source: &str,
    options: &Options,
) -> EntryResult<std::result::Result<Read, Passed>> {
    let entry = match content {
        Content::File(path) => {
            let bytes = read_image_file(&path, &options.limits);
            Entry::Bytes(bytes.map_err(|error| error.reason())?)
        }
        Content::Zip(mut archive, i) => archive.read(i, &options.limits)?,
        Content::Part(file, at, len) => shard::read(&file, [at, len], source, &options.limits)?,
        Content::Bytes(bytes) => Entry::Bytes(bytes),
        Content::Picture(picture) => return Ok(Ok(Read::Picture(picture))),
        Content::Passed(why) => return Ok(Err(why)),
        Content::Refused(reason) => return Err(reason.into()),
    };
    Ok(match entry {
        Entry::Bytes(bytes) => Ok(Read::Bytes(bytes)),
        Entry::Other => Err(Passed::Other),
    })
}
