//! Training images, and input images.

use crate::context::Context;
use crate::embedded::EMBEDDED_IMAGES;
use crate::error::{Error, Result, ResultExt as _, failed, option, usage};
use sdft_data::{
    DataError, Digits, DigitsOptions, DigitsSource, EmbeddedForm, Emoji, EmojiOptions, EmojiSource,
    EmojiStyle, FolderOptions, FolderSource, ImageSource, Joined, Listing, Place, Style,
    scan_images,
};
use sdft_gallery::Input;
use sdft_imaging::{Depth, ImageSpec, Limits};
use sdft_train::DataPlan;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The value of `data.style` for digits in each style.
const BOTH: &str = "both";

/// Images whose pixels are part of a data set's fingerprint, spread over all of it.
const FINGERPRINTED: usize = 32;

/// The form of images where a plan does not set it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    /// Height and width.
    pub size: [usize; 2],
    /// The number of channels; that of the files if none.
    pub channels: Option<usize>,
    /// The type of the samples; that of the files if none.
    pub depth: Option<Depth>,
    /// The values that become -1 and 1; see [`sdft_data::FolderOptions::range`] if none.
    pub range: Option<[f64; 2]>,
}

impl Form {
    /// 8-bit RGB images of `size` x `size` pixels.
    pub fn rgb8(size: usize) -> Self {
        Self {
            size: [size; 2],
            channels: Some(3),
            depth: Some(Depth::U8),
            range: None,
        }
    }

    /// The form of the images of a model.
    pub fn of(image: &ImageSpec) -> Self {
        Self {
            size: [image.height, image.width],
            channels: Some(image.channels),
            depth: Some(image.depth),
            range: (image.range != image.depth.full_range()).then_some(image.range),
        }
    }
}

/// Opens the images of a plan: a folder, or embedded images. `otherwise` is their form where the plan does not set it.
///
/// # Errors
/// The folder cannot be read, or a setting does not fit the images.
pub fn open_data(
    plan: &DataPlan,
    otherwise: &Form,
    context: &mut Context<'_>,
) -> Result<Arc<dyn ImageSource>> {
    let size = plan.size.map_or(otherwise.size, |size| size.sides());
    let (channels, depth) = (
        plan.channels.or(otherwise.channels),
        plan.depth.or(otherwise.depth),
    );
    let range = plan.range.or(otherwise.range);
    if plan.is_digits() || plan.is_emoji() {
        let form = Form {
            size,
            channels,
            depth,
            range,
        };
        return open_embedded(plan, &form);
    }
    let mut options = FolderOptions::new(size[0]);
    options.size = size;
    options.channels = channels;
    options.depth = depth;
    options.range = range;
    options.fit = plan.fit;
    options.background = plan.background;
    options.pages = plan.pages;
    options.masks = plan.masks.as_ref().map(PathBuf::from);
    options.classes = plan.classes_from();
    options.strict = plan.strict;
    options.limits = Limits::from_env()?;
    let opened = FolderSource::open_with(Path::new(&plan.path), &options, &|_, _| {});
    let (source, report) = match (opened, otherwise.channels) {
        (Err(error), Some(network)) if plan.channels.is_none() && has_other_channels(&error) => {
            let context = format!(
                "data.channels is {network}, as in the network; set it to the number in the images"
            );
            return Err(error).context(context);
        }
        (opened, _) => opened.map_err(of_key)?,
    };
    let notes = report.notes();
    context.notes(notes.iter().map(|note| format!("{}: {note}", plan.path)));
    if plan.channels.is_none() && channels == Some(3) && report.grey == report.usable {
        context.progress.note(&format!(
            "{}: all images are grey; they are read with 3 channels, as the network has. --set data.channels=1 reads one",
            plan.path
        ));
    }
    Ok(Arc::new(source))
}

/// Opens the embedded digits or emoji of a plan in this form.
fn open_embedded(plan: &DataPlan, form: &Form) -> Result<Arc<dyn ImageSource>> {
    let side = if plan.is_digits() {
        Digits::SIZE
    } else {
        Emoji::SIZE
    };
    let [height, width] = form.size;
    if form.size != [side; 2] && plan.size.is_none() {
        return Err(usage(format!(
            "data.path: the {} are {side}x{side}, the model takes {height}x{width}; data.size resizes them",
            plan.path
        )));
    }
    let fill = |images: &mut EmbeddedForm| {
        images.size = form.size;
        images.channels = form.channels.unwrap_or(images.channels);
        images.depth = form.depth.unwrap_or_default();
        images.range = form.range;
        images.fit = plan.fit;
        images.background = plan.background;
    };
    if plan.is_emoji() {
        let style = plan.style.as_deref().unwrap_or("noto");
        let mut options = EmojiOptions::new(style.parse::<EmojiStyle>().map_err(of_key)?);
        options.only = plan.only.clone().unwrap_or_default().0;
        fill(&mut options.form);
        let source = EmojiSource::new(&Emoji::embedded()?, &options).map_err(of_key)?;
        return Ok(Arc::new(source));
    }
    let styles = match plan.style.as_deref().unwrap_or("chalk") {
        BOTH => Style::ALL.to_vec(),
        style => vec![style.parse::<Style>().map_err(of_key)?],
    };
    let mut options = DigitsOptions::new(styles[0]);
    options.digits = plan.chosen_digits().to_vec();
    options.per_class = match plan.per_class {
        None | Some(0) => usize::MAX,
        Some(n) => n,
    };
    options.labelled = plan.classes_from().is_some();
    fill(&mut options.form);
    let digits = Digits::embedded()?;
    let mut parts: Vec<(Arc<dyn ImageSource>, Vec<usize>)> = Vec::new();
    for style in styles {
        options.style = style;
        let source = DigitsSource::with_options(&digits, &options).map_err(of_key)?;
        let all = (0..source.len()).collect();
        parts.push((Arc::new(source), all));
    }
    match parts.len() {
        1 => Ok(parts.remove(0).0),
        _ => Ok(Arc::new(Joined::new(parts)?)),
    }
}

/// An error with an option of the data has the key of the plan.
fn of_key(error: DataError) -> Error {
    match error {
        DataError::Option { .. } | DataError::Only { .. } => usage(format!("data.{error}")),
        error => error.into(),
    }
}

/// Whether no image could be read, each because of its channels.
fn has_other_channels(error: &DataError) -> bool {
    match error {
        DataError::AllUnreadable { unreadable, .. } => unreadable
            .iter()
            .all(|file| file.reason.contains(" channels, found ")),
        _ => false,
    }
}

/// A fingerprint of a set of images: a hash of all names and of the pixels of some; of their form, classes and masks too, where they are
/// not 8-bit RGB images without.
///
/// # Errors
/// An image cannot be read.
pub fn fingerprint(data: &dyn ImageSource) -> Result<String> {
    let mut bytes = Vec::new();
    for i in 0..data.len() {
        bytes.extend(data.id(i).into_bytes());
        bytes.push(0);
    }
    let spec = data.spec();
    if !spec.is_plain() {
        bytes.extend(format!("{spec}, {:?}", spec.range).into_bytes());
    }
    if !data.classes().is_empty() {
        bytes.extend(format!("{:?}", data.classes()).into_bytes());
        let labels = (0..data.len()).map(|i| data.label(i).unwrap_or(u32::MAX));
        bytes.extend(labels.flat_map(u32::to_le_bytes));
    }
    let stride = data.len().div_ceil(FINGERPRINTED).max(1);
    for i in (0..data.len()).step_by(stride) {
        let item = data.item(i, Place::CENTRE)?;
        bytes.extend(item.image.samples.to_bytes());
        if let Some(mask) = item.mask {
            bytes.extend(mask.samples.to_bytes());
        }
    }
    Ok(sdft_files::sha256_bytes(&bytes))
}

/// The images of a run that is continued, at the path of its plan. `option` is the option for their new path.
///
/// # Errors
/// The images are missing, or differ from those that the run began with.
pub(crate) fn same_images(
    path: &str,
    expected: &str,
    option: &str,
    open: impl FnOnce() -> Result<Arc<dyn ImageSource>>,
) -> Result<Arc<dyn ImageSource>> {
    if !EMBEDDED_IMAGES.contains(&path) && !Path::new(path).exists() {
        return Err(failed(format!(
            "{path}: the images of this run are missing; give their new path with {option} DIR"
        )));
    }
    let images = open()?;
    if fingerprint(&*images)? != expected {
        return Err(failed(format!(
            "{path}: these are not the images that the run began with, so it cannot continue as it began; \
             put them back, say where they are with {option} DIR, or start a new run"
        )));
    }
    Ok(images)
}

/// The inputs of a gallery: an image, or the images of a folder and its subfolders. Outputs have the extension `ending`. A note names the
/// other files.
///
/// # Errors
/// The path does not exist, is neither a file nor a folder, or is a folder without images.
pub fn list_inputs(input: &Path, ending: &str, context: &mut Context<'_>) -> Result<Vec<Input>> {
    let wrong = |what: &str| option("input", format!("{}: {what}", input.display()));
    let found = match std::fs::metadata(input) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(wrong("no such file or folder"));
        }
        Err(error) => return Err(error).with_context(|| input.display().to_string()),
    };
    if found.is_file() {
        let name = input.file_name().unwrap_or_default().to_string_lossy();
        let files = vec![(name.into_owned(), input.to_owned())];
        return Ok(Input::list(input, files, Vec::new(), ending));
    }
    if !found.is_dir() {
        let kind = sdft_files::kind_of(found.file_type());
        return Err(wrong(&format!(
            "expected an image or a folder of images, found {kind}"
        )));
    }
    let listing = scan_images(input)?;
    if let Some(text) = listing.describe_skipped() {
        context
            .progress
            .note(&format!("{}: skipped: {text}", input.display()));
    }
    let Listing {
        images, unreadable, ..
    } = listing;
    let unreadable = unreadable.into_iter().map(|u| (u.file, u.reason)).collect();
    Ok(Input::list(input, images, unreadable, ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sdft_imaging::{Rgb8, write_png};
    use std::sync::atomic::AtomicBool;

    struct Notes(Vec<String>);

    impl sdft_train::Progress for Notes {
        fn note(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    #[test]
    fn grey_images_for_a_colour_network_are_noted() {
        let dir = tempfile::tempdir().unwrap();
        let (stop, mut notes) = (AtomicBool::new(false), Notes(Vec::new()));
        let mut plan = DataPlan {
            path: dir.path().display().to_string(),
            ..DataPlan::default()
        };
        let form = Form::of(&ImageSpec::rgb8(8, 8));
        let mut noted = |plan: &DataPlan| {
            let mut context = Context::new(Device::Cpu, &stop, &mut notes);
            open_data(plan, &form, &mut context).unwrap();
            std::mem::take(&mut notes.0)
                .join(" ")
                .contains("data.channels=1")
        };
        write_png(&dir.path().join("a.png"), &Rgb8::filled(8, 8, [9; 3])).unwrap();
        assert!(noted(&plan));
        plan.channels = Some(3);
        assert!(!noted(&plan));
        plan.channels = None;
        write_png(&dir.path().join("b.png"), &Rgb8::filled(8, 8, [9, 8, 7])).unwrap();
        assert!(!noted(&plan));
    }

    #[test]
    fn inputs_are_found_and_unreadable_ones_keep_their_reason() {
        let dir = tempfile::tempdir().unwrap();
        let (stop, mut notes) = (AtomicBool::new(false), Notes(Vec::new()));
        let mut context = Context::new(Device::Cpu, &stop, &mut notes);
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        for name in ["a.jpg", "sub/b.webp"] {
            write_png(&dir.path().join(name), &Rgb8::filled(8, 8, [9, 8, 7])).unwrap();
        }
        std::fs::write(dir.path().join("e.heic"), b"\0\0\0\x18ftypheic\0\0\0\0").unwrap();
        std::fs::write(dir.path().join("notes.txt"), b"text").unwrap();
        let all = list_inputs(dir.path(), "png", &mut context).unwrap();
        let ids: Vec<&str> = all.iter().map(|i| i.id.as_str()).collect();
        assert_eq!(ids, ["a.jpg", "sub/b.webp", "e.heic"]);
        let problem = all[2].problem.as_ref().unwrap();
        assert!(
            problem.contains("found HEIC") && !problem.contains("e.heic"),
            "{problem}"
        );
        let one = list_inputs(&dir.path().join("a.jpg"), "png", &mut context).unwrap();
        assert_eq!((one.len(), one[0].number), (1, all[0].number));
        let missing = list_inputs(&dir.path().join("none"), "png", &mut context);
        assert!(missing.unwrap_err().is_usage());
        assert!(notes.0[0].contains("skipped"), "{:?}", notes.0);
    }
}
