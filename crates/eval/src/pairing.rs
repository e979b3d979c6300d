//! Which images of two folders belong together.

use crate::error::{EvalError, Result};
use crate::set::leave_out_archives;
use sdft_imaging::without_ending;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How the images of two folders are paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// By path relative to the folder, without extension.
    Name,
    /// In sorted order, as EGSDE's evaluation does.
    Order,
    /// By name; images without a partner are left out.
    Common,
}

/// An input and its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Path relative to the folder, without extension.
    pub name: String,
    /// The input image.
    pub input: PathBuf,
    /// The output image.
    pub output: PathBuf,
}

/// Pairs the images of two folders.
///
/// # Errors
/// Fails if a folder contains no images or an image has no partner; the error names them.
pub fn pair_up(input: &Path, output: &Path, pairing: Pairing) -> Result<Vec<Pair>> {
    let list = |folder: &Path| -> Result<_> {
        let mut listing = sdft_data::scan_images(folder)?;
        leave_out_archives(&mut listing);
        Ok(listing.all_readable(folder)?)
    };
    let (inputs, outputs) = (list(input)?, list(output)?);
    let stem = |id: &str| without_ending(id).to_owned();
    let problem = |problem: String| EvalError::Content {
        path: output.to_owned(),
        problem,
    };
    if pairing == Pairing::Order {
        if inputs.len() != outputs.len() {
            return Err(problem(format!(
                "expected as many images as in {} ({}), found {}",
                input.display(),
                inputs.len(),
                outputs.len()
            )));
        }
        let both = inputs.into_iter().zip(outputs);
        return Ok(both
            .map(|((id, input), (_, output))| Pair {
                name: stem(&id),
                input,
                output,
            })
            .collect());
    }
    let mut partners: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (id, path) in outputs {
        if let Some(other) = partners.insert(stem(&id), path) {
            return Err(problem(format!(
                "{id} and {} have the same name",
                other.display()
            )));
        }
    }
    let (mut pairs, mut alone) = (Vec::new(), Vec::new());
    for (id, input) in inputs {
        match partners.remove(&stem(&id)) {
            Some(output) => pairs.push(Pair {
                name: stem(&id),
                input,
                output,
            }),
            None => alone.push(id),
        }
    }
    alone.extend(partners.into_keys());
    if pairing == Pairing::Common && pairs.is_empty() {
        return Err(problem(format!(
            "no image has a partner of the same name in {}",
            input.display()
        )));
    }
    if !alone.is_empty() && pairing == Pairing::Name {
        let shown = alone.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let more = alone.len().saturating_sub(5);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        return Err(problem(format!(
            "{} images have no partner of the same name in the other folder: {shown}{more}; --pair-by order pairs them in sorted order",
            alone.len()
        )));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_imaging::{Rgb8, write_png};

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            write_png(&dir.path().join(name), &Rgb8::filled(4, 4, [9; 3])).unwrap();
        }
        dir
    }

    #[test]
    fn images_are_paired_by_name_and_those_without_partner_are_named() {
        let (a, b) = (folder(&["x.png", "y.png"]), folder(&["y.png", "x.png"]));
        let pairs = pair_up(a.path(), b.path(), Pairing::Name).unwrap();
        assert_eq!(pairs[1].output, b.path().join("y.png"));
        let c = folder(&["x.png", "z.png"]);
        let error = pair_up(a.path(), c.path(), Pairing::Name).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("2 images have no partner") && text.contains("y.png, z"),
            "{text}"
        );
        let n = |pairing| pair_up(a.path(), c.path(), pairing).unwrap().len();
        assert_eq!((n(Pairing::Order), n(Pairing::Common)), (2, 1));
        let d = folder(&["other.png"]);
        assert!(pair_up(a.path(), d.path(), Pairing::Common).is_err());
        let one = folder(&["x.png"]);
        assert!(pair_up(a.path(), one.path(), Pairing::Order).is_err());
    }
}
