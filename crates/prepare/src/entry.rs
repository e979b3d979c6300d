//! Makes the image of one entry.

use std::collections::HashMap;

use sdft_files::sha256_bytes;
use sdft_imaging::{
    Conversions, Decoded, Fitting, ImageSpec, Kind, Reading, Rgb8, encode_png, fit, kind_of_bytes,
    read_image_file,
};

use crate::{
    Options, Record, Result,
    archive::Entry,
    error::{EntryResult, Reason},
    form::{Common, Form},
    index::Journal,
    input::{Content, Item, Passed},
    labels::Label,
    shard,
    target::{Target, file_name},
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

/// Processes one entry. `known` has the images that exist already, by the hash of their source.
///
/// # Errors
/// An error concerns the whole set, not the entry: the target folder, or images that have no form in common.
pub(crate) fn handle(
    item: Item,
    work: &Work<'_>,
    known: &HashMap<String, Record>,
) -> Result<Outcome> {
    let options = work.options;
    let excluded = options.exclude.by_name(&item).map(str::to_owned);
    let Item {
        source,
        content,
        label,
        ..
    } = item;
    let outcome = |record: Record| Outcome {
        record,
        label: label.clone(),
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
    let read = match read(content, &source, options) {
        Ok(Ok(read)) => read,
        Ok(Err(why)) => {
            return Ok(Outcome {
                passed: Some(why),
                ..outcome(skipped(None, why.reason().to_owned()))
            });
        }
        Err(reason) => return Ok(outcome(skipped(None, reason.to_string()))),
    };
    let sha256 = sha256_bytes(read.bytes());
    if let Some(entry) = options.exclude.by_hash(&sha256) {
        return Ok(Outcome {
            excluded: Some(entry.to_owned()),
            ..outcome(skipped(Some(sha256.clone()), "excluded".to_owned()))
        });
    }
    if let Some(known) = known.get(&sha256)
        && work.target.has(known)
        && work.common.add(known.form(), &source)? == known.form()
    {
        return Ok(outcome(Record {
            source: source.clone(),
            ..known.clone()
        }));
    }
    let made = match picture(read, &source, work)? {
        Ok(made) => made,
        Err(reason) => return Ok(outcome(skipped(Some(sha256), reason.to_string()))),
    };
    let file = file_name(&sha256, made.spec.ending());
    let record = Record {
        source: source.clone(),
        file: Some(file.clone()),
        sha256: Some(sha256.clone()),
        file_sha256: Some(sha256_bytes(&made.bytes)),
        width: Some(made.sides.0),
        height: Some(made.sides.1),
        conversions: made.conversions.names(),
        ..Record::default()
    };
    let record = record.with_form(made.form());
    work.target.put(&file, &made.bytes)?;
    work.journal.add(&record)?;
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

/// An image of the set.
struct Made {
    spec: ImageSpec,
    /// Width and height of the original picture.
    sides: (usize, usize),
    conversions: Conversions,
    /// The file.
    bytes: Vec<u8>,
}

impl Made {
    fn form(&self) -> Form {
        Form {
            channels: self.spec.channels,
            depth: self.spec.depth,
        }
    }
}

/// Makes the image from what was read, or returns the reason why it cannot be made.
fn picture(read: Read, source: &str, work: &Work<'_>) -> Result<EntryResult<Made>> {
    let (image, conversions, kept) = match read {
        Read::Picture(rgb) => {
            if work.common.add(Form::RGB8, source)? != Form::RGB8 {
                let bytes = encode_png(&rgb).map_err(|error| Reason::from(error.to_string()));
                return match bytes {
                    Ok(bytes) => picture(Read::Bytes(bytes), source, work),
                    Err(reason) => Ok(Err(reason)),
                };
            }
            (rgb.into(), Conversions::default(), None)
        }
        Read::Bytes(bytes) => {
            let decoded = match decode(&bytes, source, work)? {
                Ok(decoded) => decoded,
                Err(reason) => return Ok(Err(reason)),
            };
            let conversions = decoded.conversions();
            let image = decoded.image;
            // A PNG without conversions can be kept as it is. RGB sets always kept grey and palettes of the right size, too.
            let is_plain = decoded.format == "PNG" && conversions == Conversions::default();
            let has_form = (decoded.channels, decoded.depth) == (image.channels, image.depth());
            let is_kept = is_plain && (has_form || Form::of(&image) == Form::RGB8);
            (image, conversions, is_kept.then_some(bytes))
        }
    };
    let [height, width] = work.options.size;
    let sides = (image.width, image.height);
    let spec = ImageSpec::new(image.channels, image.depth(), width, height);
    let bytes = match kept {
        Some(bytes) if sides == (width, height) => bytes,
        _ => {
            let fitting = Fitting {
                background: work.options.background,
                ..Fitting::new(spec, work.options.fit)
            };
            match spec.encode(&fit(&image, &fitting).image) {
                Ok(bytes) => bytes,
                Err(error) => return Ok(Err(error.to_string().into())),
            }
        }
    };
    Ok(Ok(Made {
        spec,
        sides,
        conversions,
        bytes,
    }))
}

/// Decodes a picture in the common form of the set.
fn decode(bytes: &[u8], source: &str, work: &Work<'_>) -> Result<EntryResult<Decoded>> {
    let options = work.options;
    let native = Reading {
        limits: options.limits,
        channels: options.channels,
        depth: options.depth,
        background: options.background,
        ..Reading::default()
    };
    let decode = |form: Option<Form>| {
        let reading = Reading {
            channels: form.map(|form| form.channels).or(native.channels),
            depth: form.map(|form| form.depth).or(native.depth),
            ..native
        };
        let decoded = reading.decode(bytes, source, 0);
        decoded.map_err(|error| Reason::from(error.reason()))
    };
    // Every picture of these formats becomes RGB of 8 bits, so its own form need not be known.
    let is_common = matches!(
        kind_of_bytes(bytes),
        Kind::Picture("PNG" | "JPEG" | "GIF" | "WebP" | "BMP")
    );
    if is_common && work.common.get() == Some(Form::RGB8) {
        return Ok(decode(Some(Form::RGB8)));
    }
    let decoded = match decode(None) {
        Ok(decoded) => decoded,
        Err(reason) => return Ok(Err(reason)),
    };
    let found = Form::of(&decoded.image);
    let form = work.common.add(found, source)?;
    Ok(match form == found {
        true => Ok(decoded),
        false => decode(Some(form)),
    })
}
