//! Colour profiles: pictures in other colour spaces are converted to sRGB.

use std::sync::{Arc, Mutex, PoisonError};

use moxcms::{
    CicpProfile, ColorProfile, DataColorSpace, Layout as Samples, ProfileText, RenderingIntent,
    Transform16BitExecutor, TransformOptions,
};

use crate::{Image, Samples as ImageSamples, alpha::Level, channels::Layout};

/// Largest profile in bytes.
const MAX_BYTES: usize = 16 << 20;
/// Profiles that are remembered: the pictures of a folder have few.
const REMEMBERED: usize = 8;
/// Pixels that are converted at once.
const BLOCK: usize = 1 << 14;

/// What a file states about its colours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stated {
    /// An ICC profile.
    Icc(Vec<u8>),
    /// Coding-independent code points: primaries and transfer, as in PNG's `cICP`.
    CodePoints { primaries: u8, transfer: u8 },
    /// A profile that cannot be read from its file.
    Damaged,
}

/// The colour profile of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// sRGB, up to one level of 8 bits; the samples are unchanged.
    Srgb,
    /// The name of another profile; the samples were converted to sRGB, relative to the white point.
    Converted(String),
    /// The name of a profile that was not applied, and why.
    Ignored {
        /// Its description.
        name: String,
        /// The reason.
        reason: String,
    },
}

/// A profile in a form that converts.
struct Prepared {
    name: String,
    kind: Kind,
}

enum Kind {
    Srgb,
    Converts {
        /// Whether the profile is for grey, so one sample becomes red, green and blue.
        is_grey: bool,
        transform: Arc<Transform16BitExecutor>,
    },
    Unusable(String),
}

/// Converts a picture to sRGB, and returns its profile.
pub(crate) fn apply(stated: &Stated, image: &mut Image, layout: Layout) -> Profile {
    let prepared = remembered(stated);
    let name = prepared.name.clone();
    let ignored = |reason: &str| Profile::Ignored {
        name: name.clone(),
        reason: reason.to_owned(),
    };
    let colours = match layout.colours {
        n @ (1 | 3) => n,
        n => return ignored(&format!("the picture has {n} channels of colour")),
    };
    match &prepared.kind {
        Kind::Srgb => Profile::Srgb,
        Kind::Unusable(reason) => ignored(reason),
        Kind::Converts { is_grey: true, .. } if colours == 3 => {
            ignored("it is for grey, and the picture is not")
        }
        Kind::Converts { is_grey, transform } => {
            let n = layout.channels;
            let done = match &mut image.samples {
                ImageSamples::U8(values) => convert(values, n, colours, *is_grey, &**transform),
                ImageSamples::U16(values) => convert(values, n, colours, *is_grey, &**transform),
                ImageSamples::F32(_) => return ignored("the picture has floats"),
            };
            match done {
                true => Profile::Converted(name),
                false => ignored("it cannot be applied"),
            }
        }
    }
}

/// Converts the first `colours` of `n` channels, block by block. 8 bits are converted in 16, because the transform for 8 bits errs by up to
/// two levels in dark colours.
fn convert<T: Level>(
    values: &mut [T],
    n: usize,
    colours: usize,
    is_grey: bool,
    transform: &Transform16BitExecutor,
) -> bool {
    // 1 or 257.
    let step = u64::from(u16::MAX) / T::MAX;
    let wide = |value: T| (value.into() * step) as u16;
    let narrow = |value: u16| T::narrow((u64::from(value) + step / 2) / step);
    let mut from = Vec::with_capacity(3 * BLOCK);
    let mut to = vec![0; 3 * BLOCK];
    for block in values.chunks_mut(n * BLOCK) {
        from.clear();
        for pixel in block.chunks_exact(n) {
            match (colours, is_grey) {
                (1, true) => from.push(wide(pixel[0])),
                (1, false) => from.extend([wide(pixel[0]); 3]),
                _ => from.extend([pixel[0], pixel[1], pixel[2]].map(wide)),
            }
        }
        let to = &mut to[..3 * (block.len() / n)];
        if transform.transform(&from, to).is_err() {
            return false;
        }
        for (pixel, rgb) in block.chunks_exact_mut(n).zip(to.as_chunks::<3>().0) {
            match colours {
                // Grey stays grey, so each of the three is it.
                1 => pixel[0] = narrow(rgb[1]),
                _ => pixel[..3].copy_from_slice(&rgb.map(narrow)),
            }
        }
    }
    true
}

/// The prepared profile, from memory if it was used recently.
fn remembered(stated: &Stated) -> Arc<Prepared> {
    static RECENT: Mutex<Vec<(Stated, Arc<Prepared>)>> = Mutex::new(Vec::new());
    let recent = || RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, prepared)) = recent().iter().find(|(other, _)| other == stated) {
        return Arc::clone(prepared);
    }
    let prepared = Arc::new(sdft_files::guarded(|| prepare(stated)).unwrap_or_else(damaged));
    let mut recent = recent();
    if recent.len() >= REMEMBERED {
        recent.remove(0);
    }
    recent.push((stated.clone(), Arc::clone(&prepared)));
    prepared
}

fn damaged() -> Prepared {
    Prepared {
        name: "a damaged profile".to_owned(),
        kind: Kind::Unusable("it cannot be read".to_owned()),
    }
}

fn prepare(stated: &Stated) -> Prepared {
    let profile = match stated {
        Stated::Damaged => None,
        Stated::Icc(bytes) if bytes.len() > MAX_BYTES => {
            return Prepared {
                name: format!("a profile of {} MiB", bytes.len() >> 20),
                kind: Kind::Unusable(format!("it is larger than {} MiB", MAX_BYTES >> 20)),
            };
        }
        Stated::Icc(bytes) => ColorProfile::new_from_slice(bytes).ok(),
        Stated::CodePoints {
            primaries,
            transfer,
        } => return from_code_points(*primaries, *transfer),
    };
    profile.map_or_else(damaged, |profile| {
        let name = description(&profile).unwrap_or_else(|| "a profile without a name".to_owned());
        prepare_profile(name, &profile)
    })
}

fn from_code_points(primaries: u8, transfer: u8) -> Prepared {
    let name = format!("cICP {primaries}/{transfer}");
    let unusable = |reason: &str| Prepared {
        name: name.clone(),
        kind: Kind::Unusable(reason.to_owned()),
    };
    // Brightness beyond white has no place in sRGB.
    if matches!(transfer, 16 | 18) {
        return unusable("it is for high dynamic range");
    }
    match (primaries.try_into(), transfer.try_into()) {
        (Ok(color_primaries), Ok(transfer_characteristics)) => {
            let profile = ColorProfile::new_from_cicp(CicpProfile {
                color_primaries,
                transfer_characteristics,
                matrix_coefficients: moxcms::MatrixCoefficients::Identity,
                full_range: true,
            });
            match profile.red_trc {
                Some(_) => prepare_profile(name, &profile),
                None => unusable("its colours are not known"),
            }
        }
        _ => unusable("its numbers are not known"),
    }
}

fn prepare_profile(name: String, profile: &ColorProfile) -> Prepared {
    let unusable = |reason: String| Prepared {
        name: name.clone(),
        kind: Kind::Unusable(reason),
    };
    let is_grey = match profile.color_space {
        DataColorSpace::Gray => true,
        DataColorSpace::Rgb => false,
        DataColorSpace::Cmyk => return unusable("it is for inks".to_owned()),
        other => return unusable(format!("it is for {other:?}")),
    };
    let from = if is_grey { Samples::Gray } else { Samples::Rgb };
    let srgb = ColorProfile::new_srgb();
    let options = TransformOptions {
        rendering_intent: RenderingIntent::RelativeColorimetric,
        prefer_fixed_point: false,
        ..TransformOptions::default()
    };
    let Ok(transform) = profile.create_transform_16bit(from, &srgb, Samples::Rgb, options) else {
        return unusable("it cannot be applied".to_owned());
    };
    let kind = match changes_nothing(&*transform, is_grey) {
        true => Kind::Srgb,
        false => Kind::Converts { is_grey, transform },
    };
    Prepared { name, kind }
}

/// Whether colours all over the cube, and all greys, change by one level of 8 bits at most.
fn changes_nothing(transform: &Transform16BitExecutor, is_grey: bool) -> bool {
    let greys = (0..=255).map(|v| [v; 3]);
    let steps = || (0..=255).step_by(51);
    let cube = steps().flat_map(|r| steps().flat_map(move |g| steps().map(move |b| [r, g, b])));
    let mut colours: Vec<u8> = match is_grey {
        true => (0..=255).collect(),
        false => greys.chain(cube).flatten().collect(),
    };
    let (before, n) = (colours.clone(), if is_grey { 1 } else { 3 });
    convert(&mut colours, n, n, is_grey, transform)
        && before
            .iter()
            .zip(&colours)
            .all(|(a, b)| a.abs_diff(*b) <= 1)
}

fn description(profile: &ColorProfile) -> Option<String> {
    let text = match profile.description.as_ref()? {
        ProfileText::PlainString(text) => text.clone(),
        ProfileText::Localizable(texts) => texts.first()?.value.clone(),
        ProfileText::Description(text) => text.ascii_string.clone(),
    };
    let text: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}
