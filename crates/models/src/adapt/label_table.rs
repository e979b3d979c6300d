//! Other classes of a DiT, whose tables always have a row for the null class.

use super::classes::Source;
use super::{Adapted, Frozen};
use crate::Classes;
use candle_core::{Device, Result, Tensor};
use sdft_dit::DitConfig;
use sdft_nn::Params;

/// The end of the name of a table of classes; every block may have one.
const TABLE: &str = "class_embedder.embedding_table.weight";

/// The network for other classes, and the frozen source next to it.
///
/// The row of a class of the same name stays. Other rows start at the mean of the source's classes, or at the null row if it has none, so
/// that the network computes the same for every label. The null row stays if it was trained, that is if the source names it.
///
/// # Errors
/// A tensor operation fails.
pub(super) fn fitted(
    source: Source<'_>,
    config: &DitConfig,
    target: Option<&Classes>,
) -> Result<Adapted> {
    let n = config.num_embeds_ada_norm;
    let own = source.classes;
    // Rows of a table: the classes, the null class, and after it the mean of the classes.
    let row = |row: usize| u32::try_from(row).map_err(candle_core::Error::wrap);
    let (null, mean) = (row(n)?, row(n + 1)?);
    let has_null = n == 0 || own.is_some_and(|own| own.null.is_some());
    let (of_null, of_new) = match (n, has_null) {
        (0, _) => (null, null),
        (_, true) => (null, mean),
        (_, false) => (mean, mean),
    };
    let names = target.map_or(&[][..], |classes| &classes.names);
    let found: Vec<Option<u32>> = names
        .iter()
        .map(|name| own.and_then(|own| own.label(name)))
        .collect();
    let mut rows: Vec<u32> = found.iter().map(|row| row.unwrap_or(of_new)).collect();
    let architecture = source.architecture.clone().with_classes(target);
    rows.push(of_null);
    let params = with_rows(&source.params, &rows, n)?;
    let kept = found.iter().flatten().count();
    let note = match (n, target) {
        (0, _) => format!(
            "the source model is unconditional: the embedding of {} classes starts at that of its null class",
            names.len()
        ),
        (_, None) => format!(
            "the source model has {n} classes, the run none: it computes with the {}",
            if has_null {
                "null class"
            } else {
                "mean of its classes"
            }
        ),
        (_, Some(_)) => format!(
            "{kept} of {} classes have the name of a class of the source model and start with its embedding{}",
            names.len(),
            if kept < names.len() {
                "; the others start at the mean of its classes"
            } else {
                ""
            }
        ),
    };
    let frozen = match target {
        None => Frozen {
            architecture: architecture.clone(),
            params: params.clone(),
            labels: None,
            channels: None,
        },
        Some(_) if n == 0 => Frozen {
            architecture: source.architecture,
            params: source.params,
            labels: None,
            channels: None,
        },
        Some(classes) if has_null => Frozen {
            architecture: source.architecture,
            params: source.params,
            labels: Some(vec![null; classes.n_labels()]),
            channels: None,
        },
        Some(classes) => {
            // The mean becomes a class of its own.
            let all: Vec<u32> = (0..null).chain([mean, null]).collect();
            let numbered = Classes::numbered(n + 1, false);
            let labels = rows.iter().take(classes.n_labels());
            Frozen {
                architecture: source.architecture.with_classes(Some(&numbered)),
                params: with_rows(&source.params, &all, n)?,
                labels: Some(labels.map(|&row| row.min(null)).collect()),
                channels: None,
            }
        }
    };
    Ok(Adapted {
        architecture,
        params,
        frozen,
        notes: vec![note],
    })
}

/// The parameters with these rows of every table of `n` classes; row `n + 1` is the mean of the classes.
fn with_rows(params: &Params, rows: &[u32], n: usize) -> Result<Params> {
    let rows = Tensor::new(rows, &Device::Cpu)?;
    let entry = |(name, tensor): (&str, &Tensor)| {
        if !name.ends_with(TABLE) {
            return Ok((name.to_owned(), tensor.clone()));
        }
        let all = match n {
            0 => tensor.clone(),
            n => Tensor::cat(&[tensor, &tensor.narrow(0, 0, n)?.mean_keepdim(0)?], 0)?,
        };
        Ok((name.to_owned(), all.index_select(&rows, 0)?))
    };
    params
        .iter()
        .map(entry)
        .collect::<Result<Vec<_>>>()
        .map(Params::new)
}
