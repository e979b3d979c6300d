//! The samples of a folder together: their contact sheet, and guided-diffusion's arrays.

use super::sampler::Sampler;
use crate::error::Result;
use sdft_gallery::{Outputs, reading, shown_of};
use sdft_imaging::{Image, Rgb8, Samples, contact_sheet, enlarge, titled};
use sdft_npz::{Array, encode_npz};
use std::path::PathBuf;

/// Images in the contact sheet.
const SHOWN: usize = 64;
/// The most classes that get a column of the sheet each.
const COLUMNS: usize = 12;
/// The images in a row of few classes, or somewhat fewer.
const ROW: usize = 8;
/// The width in pixels from which on pictures are not enlarged.
const WIDE: usize = 64;

/// The contact sheet of the first of `n` samples, and how many it shows.
///
/// Each class has a column under its name, or several if they are few. If there are more than 12, the name is above each image instead.
///
/// # Errors
/// A sample cannot be read.
pub(crate) fn sheet(outputs: &Outputs, sampler: &Sampler, n: usize) -> Result<(Rgb8, usize)> {
    let plan = sampler.plan();
    let in_turn = match plan.class {
        Some(_) => &[],
        None => &plan.classes[..],
    };
    let columns = match in_turn.len() {
        // Few classes are repeated in a row.
        classes @ 1..=COLUMNS => Some(classes * (ROW / classes).max(1)),
        _ => None,
    };
    // Whole rows.
    let shown = n.min(columns.map_or(SHOWN, |columns| SHOWN / columns * columns));
    let mut title = format!("seed {}", plan.seed);
    if let Some(class) = plan.class {
        let name = plan.classes.get(class as usize);
        title += &format!(", class {}", name.unwrap_or(&class.to_string()));
    }
    if let Some(guidance) = plan.guidance {
        title += &format!(", guidance {guidance}");
    }
    if let Some(weight) = plan.guide_weight {
        title += &format!(", guide weight {weight}");
    }
    if let Some(share) = shown_of(shown, n) {
        title += &format!(": {share} images");
    }
    let mut cells = (0..shown)
        .map(|i| Ok(sampler.spec().screen(&read(outputs, sampler, i)?)))
        .collect::<Result<Vec<_>>>()?;
    if let Some(columns) = columns {
        return Ok((contact_sheet(&cells, columns, in_turn, &title), shown));
    }
    for (cell, class) in cells.iter_mut().zip(in_turn.iter().cycle()) {
        *cell = titled(&enlarge(cell, WIDE / cell.width), class);
    }
    Ok((sdft_train::contact_sheet(&cells, &title), shown))
}

/// Writes guided-diffusion's arrays: `arr_0` `[n, h, w, c]` of the samples, and their labels `arr_1` if the model has classes.
///
/// The values are those of the files: guided-diffusion's script truncates where they round, and the same samples would have two
/// distances to a set.
///
/// # Errors
/// A sample cannot be read, or a file cannot be written.
pub(crate) fn write_arrays(outputs: &mut Outputs, sampler: &Sampler, n: usize) -> Result<PathBuf> {
    let [c, h, w] = sampler.spec().shape();
    let name = format!("samples_{n}x{h}x{w}x{c}.npz");
    let made_of = outputs.hash_of((0..n).map(|i| sampler.file_name(i)));
    if !outputs.is_complete(&name, &made_of) {
        let mut all = read(outputs, sampler, 0)?.samples;
        for i in 1..n {
            match (&mut all, read(outputs, sampler, i)?.samples) {
                (Samples::U8(all), Samples::U8(more)) => all.extend(more),
                (Samples::U16(all), Samples::U16(more)) => all.extend(more),
                (Samples::F32(all), Samples::F32(more)) => all.extend(more),
                // All files are read in the sampler's depth.
                _ => {}
            }
        }
        let shape = vec![n, h, w, c];
        let images = match all {
            Samples::U8(values) => Array::u8(shape, values),
            Samples::U16(values) => Array::u16(shape, values),
            Samples::F32(values) => Array::f32(shape, values),
        }?;
        let labels = sampler.labels(0, n);
        let labels = labels.map(|labels| labels.into_iter().map(i64::from).collect());
        let labels = labels
            .map(|labels| Array::i64(vec![n], labels))
            .transpose()?;
        let labels = labels.as_ref().map(|labels| ("arr_1", labels));
        let entries: Vec<_> = std::iter::once(("arr_0", &images)).chain(labels).collect();
        let npz = encode_npz(&entries, false)?;
        drop(images);
        outputs.put(&name, &made_of, &npz)?;
    }
    Ok(outputs.path(&name))
}

fn read(outputs: &Outputs, sampler: &Sampler, number: usize) -> Result<Image> {
    let path = outputs.path(&sampler.file_name(number));
    Ok(reading(sampler.spec()).decode_file(&path, 0)?.image)
}
