//! Checks a folder: decodes every image once, and finds their common form, classes and masks.

use std::path::Path;

use sdft_imaging::{Depth, ImageSpec};

use crate::{
    DataError, FolderOptions, Item, Report, Result, Unreadable,
    classes::{Classes, classes},
    entries::{Entries, page_id},
    examination::{Examination, Examined, File},
    masks::Masks,
    paths::Paths,
    reader::{Reader, check_options, check_range},
    report,
    scan::{Scan, scan},
    tally::Group,
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
    if reader.is_open() && examination.groups().0.len() > 1 {
        let (channels, depth) = shared_form(&examination.groups().0, options, &files, folder)?;
        reader = reader.of_form(channels, depth);
        examination.again(&mut examined, &reader, masks.as_ref(), (channels, depth))?;
    }
    let (groups, stacks) = examination.finish();

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
    let (spec, tally) = match <[Group; 1]>::try_from(groups) {
        Ok([group]) => (group.form, group.tally),
        Err(none) if none.is_empty() => return Err(DataError::AllUnreadable { path, unreadable }),
        Err(several) => return Err(different_ranges(several, &files, folder)),
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
    report.stacks = stacks;
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

/// The channels and depth that images of several forms are read in.
fn shared_form(
    groups: &[Group],
    options: &FolderOptions,
    files: &Paths,
    folder: &Path,
) -> Result<(usize, Depth)> {
    let has = |depth| groups.iter().find(|group| group.form.depth == depth);
    let depth = match options.depth {
        Some(depth) => depth,
        None => match [Depth::U8, Depth::U16, Depth::F32].map(has) {
            [Some(a), _, Some(b)] | [_, Some(a), Some(b)] => {
                return Err(DataError::Mixed {
                    folder: folder.to_owned(),
                    problem: format!(
                        "it has images of integers ({}) and of floats ({}); set data.depth to 8, 16 or \"float\"",
                        files.id(a.first),
                        files.id(b.first)
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
        let first = groups[0].form.channels;
        let same = groups.iter().all(|group| group.form.channels == first);
        if same { first } else { 3 }
    });
    Ok((channels, depth))
}

/// The error for images that state different ranges themselves.
fn different_ranges(mut groups: Vec<Group>, files: &Paths, folder: &Path) -> DataError {
    groups.sort_by_key(|group| group.first);
    let stated = groups.iter().take(2).map(|group| {
        let [low, high] = group.form.range;
        format!("{} from {low} to {high}", files.id(group.first))
    });
    let stated = stated.collect::<Vec<_>>().join(" and ");
    DataError::Mixed {
        folder: folder.to_owned(),
        problem: format!(
            "the files state different ranges, {stated}; set data.range = [low, high]"
        ),
    }
}
