//! Other classes: the table that turns a label into an embedding.

use super::{Adapted, Frozen, label_table};
use crate::error::ModelError;
use crate::{Architecture, Classes};
use candle_core::{DType, Device, Result, Tensor, bail};
use sdft_edm::ModelConfig;
use sdft_nn::Params;

/// A network with its classes.
pub(super) struct Source<'a> {
    pub(super) architecture: Architecture,
    pub(super) params: Params,
    pub(super) classes: Option<&'a Classes>,
}

/// The network for other classes, and the frozen source next to it.
///
/// # Errors
/// Classes that the network cannot have.
pub(super) fn fitted(
    source: Source<'_>,
    target: Option<&Classes>,
) -> std::result::Result<Adapted, ModelError> {
    if let Some(problem) = target.and_then(Classes::problem) {
        return Err(ModelError::Adapt { problem });
    }
    if let Some(config) = source.architecture.dit().cloned() {
        return match source.classes == target {
            true => Ok(unchanged(source)),
            false => Ok(label_table::fitted(source, &config, target)?),
        };
    }
    let unnamed = source.classes.is_none() && source.architecture.n_classes() > 0;
    let Some(head) = Head::of(&source.architecture).filter(|_| !unnamed) else {
        return match source.classes == target && !unnamed {
            true => Ok(unchanged(source)),
            false => Err(ModelError::Adapt {
                problem: "expected a model with a table of up to 65536 classes, or whose classes are those of the data; found another \
                          class embedding"
                    .to_owned(),
            }),
        };
    };
    let adapted = match (source.classes, target) {
        (None, None) => Ok(unchanged(source)),
        (Some(own), Some(other)) if own == other => Ok(unchanged(source)),
        (None, Some(classes)) => with_head(source, classes),
        (Some(own), None) => without_head(&head, &source, own),
        (Some(own), Some(other)) => with_other_rows(&head, &source, own, other),
    }?;
    match adapted.architecture.check() {
        Ok(()) => Ok(adapted),
        Err(error) => Err(ModelError::Adapt {
            problem: error.to_string(),
        }),
    }
}

/// A network whose classes are the target's.
fn unchanged(source: Source<'_>) -> Adapted {
    let labels = source.classes.map(|classes| {
        let own = 0u32..;
        let labels = own.map(|label| classes.null.unwrap_or(label));
        labels.take(classes.n_labels()).collect()
    });
    Adapted {
        architecture: source.architecture.clone(),
        params: source.params.clone(),
        frozen: Frozen {
            architecture: source.architecture,
            params: source.params,
            labels,
            channels: None,
        },
        notes: Vec::new(),
    }
}

/// A class-conditional network that computes the same as its unconditional source for every label.
fn with_head(source: Source<'_>, classes: &Classes) -> Result<Adapted> {
    let architecture = source.architecture.clone().with_classes(Some(classes));
    let params = with(&architecture, &source.params, &[])?;
    let note = format!(
        "the source model is unconditional: the embedding of {} classes starts at zero",
        classes.names.len()
    );
    Ok(Adapted {
        architecture,
        params,
        frozen: Frozen {
            architecture: source.architecture,
            params: source.params,
            labels: None,
            channels: None,
        },
        notes: vec![note],
    })
}

/// An unconditional network that computes as its source does for the null class, or for the mean of its classes.
fn without_head(head: &Head, source: &Source<'_>, own: &Classes) -> Result<Adapted> {
    let (rows, mean) = head.rows(&source.params, own)?;
    let row = match own.null {
        Some(null) => head.row(&rows, null)?,
        None => mean,
    };
    let architecture = source.architecture.clone().with_classes(None);
    let folded = head.folded(&source.params, &row, rows.dim(0)?)?;
    let params = with(&architecture, &source.params, &[folded])?;
    let what = match own.null {
        Some(_) => "null class",
        None => "mean of its classes",
    };
    Ok(Adapted {
        frozen: Frozen {
            architecture: architecture.clone(),
            params: params.clone(),
            labels: None,
            channels: None,
        },
        architecture,
        params,
        notes: vec![format!(
            "the source model has {} classes, the run none: it computes with the {what}",
            own.names.len()
        )],
    })
}

/// A network with the rows of classes of the same name; other rows are the mean.
fn with_other_rows(
    head: &Head,
    source: &Source<'_>,
    own: &Classes,
    other: &Classes,
) -> Result<Adapted> {
    let (rows, mean) = head.rows(&source.params, own)?;
    let n = rows.dim(0)?;
    // The row after the last one is the mean.
    let of_mean = u32::try_from(n).map_err(candle_core::Error::wrap)?;
    let found: Vec<Option<u32>> = other.names.iter().map(|name| own.label(name)).collect();
    let mut wanted: Vec<u32> = found.iter().map(|row| row.unwrap_or(of_mean)).collect();
    let null = other.null.map(|_| own.null.unwrap_or(of_mean));
    let labels: Vec<u32> = wanted.iter().copied().chain(null).collect();
    let mut changed = Vec::new();
    let mut all = Tensor::cat(&[&rows, &mean], 0)?;
    match head {
        Head::Table { .. } => wanted = labels.clone(),
        // The null class is the vector of zeros, so the mean moves into the bias of all labels.
        Head::Song | Head::Dhariwal if null.is_some() && own.null.is_none() => {
            changed.push(head.shifted(&source.params, &mean, n)?);
            all = all.broadcast_sub(&mean)?;
        }
        Head::Song | Head::Dhariwal => {}
    }
    let chosen = all.index_select(&Tensor::new(wanted, &Device::Cpu)?, 0)?;
    changed.push((head.table(), head.table_of(&chosen, n)?));
    let architecture = source.architecture.clone().with_classes(Some(other));
    let params = with(&architecture, &source.params, &changed)?;
    let frozen = match own.null {
        Some(null) => Frozen {
            architecture: source.architecture.clone(),
            params: source.params.clone(),
            labels: Some(vec![null; labels.len()]),
            channels: None,
        },
        None if labels.contains(&of_mean) => {
            let classes = Classes::numbered(n + 1, false);
            let architecture = source.architecture.clone().with_classes(Some(&classes));
            let all = Tensor::cat(&[&rows, &mean], 0)?;
            let table = [(head.table(), head.table_of(&all, n)?)];
            Frozen {
                params: with(&architecture, &source.params, &table)?,
                architecture,
                labels: Some(labels),
                channels: None,
            }
        }
        None => Frozen {
            architecture: source.architecture.clone(),
            params: source.params.clone(),
            labels: Some(labels),
            channels: None,
        },
    };
    let kept = found.iter().flatten().count();
    let mut note = format!(
        "{kept} of {} classes have the name of a class of the source model and start with its embedding",
        found.len()
    );
    if kept < found.len() {
        note.push_str("; the others start at the mean of its classes");
    }
    Ok(Adapted {
        architecture,
        params,
        frozen,
        notes: vec![note],
    })
}

/// The parameters of `architecture`: those in `changed`, others as they are, and zeros where there were none.
fn with(
    architecture: &Architecture,
    params: &Params,
    changed: &[(&'static str, Tensor)],
) -> Result<Params> {
    let specs = architecture.specs()?;
    let entry = |spec: &sdft_nn::ParamSpec| {
        let new = changed.iter().find(|(name, _)| *name == spec.name);
        let tensor = match (new, params.tensor(&spec.name)) {
            (Some((_, tensor)), _) | (None, Some(tensor)) => tensor.clone(),
            (None, None) => Tensor::zeros(spec.shape.as_slice(), DType::F32, &Device::Cpu)?,
        };
        Ok((spec.name.clone(), tensor))
    };
    Ok(Params::new(
        specs.iter().map(entry).collect::<Result<Vec<_>>>()?,
    ))
}

/// How a network turns a label into an embedding.
enum Head {
    /// A row of a table is added to the embedding of time, in which the bias ends.
    Table {
        table: &'static str,
        bias: &'static str,
    },
    /// A dense layer on one-hot vectors of length `sqrt(n)`, before those of time.
    Song,
    /// A dense layer without a bias on one-hot vectors, after those of time.
    Dhariwal,
}

impl Head {
    /// The head that the architecture has, or would have with classes; `None` for classes without a table.
    fn of(architecture: &Architecture) -> Option<Self> {
        match architecture {
            Architecture::Adm(_) | Architecture::AdmEdm(_) => Some(Self::Table {
                table: "label_emb.weight",
                bias: "time_embed.2.bias",
            }),
            Architecture::Unet2d(config) => match config.class_embed_type {
                Some(_) => None,
                None => Some(Self::Table {
                    table: "class_embedding.weight",
                    bias: "time_embedding.linear_2.bias",
                }),
            },
            Architecture::Edm(config) => Some(match config.model {
                ModelConfig::SongUNet(_) => Self::Song,
                ModelConfig::DhariwalUNet(_) => Self::Dhariwal,
            }),
            // Its tables are changed by `label_table`.
            Architecture::Dit(_) | Architecture::DitFlow(..) => None,
        }
    }

    /// The name of the table.
    fn table(&self) -> &'static str {
        match self {
            Self::Table { table, .. } => table,
            Self::Song | Self::Dhariwal => "model.map_label.weight",
        }
    }

    /// The rows of all labels `[n, E]`, and the mean of those of the classes `[1, E]`.
    fn rows(&self, params: &Params, classes: &Classes) -> Result<(Tensor, Tensor)> {
        let table = tensor(params, self.table())?;
        let rows = match self {
            Self::Table { .. } => table.clone(),
            // Labels are columns.
            Self::Song | Self::Dhariwal => table.t()?.contiguous()?,
        };
        let n = classes.names.len();
        let mean = rows.narrow(0, 0, n)?.mean_keepdim(0)?;
        Ok((rows, mean))
    }

    /// The row of a label, `[1, E]`.
    fn row(&self, rows: &Tensor, label: u32) -> Result<Tensor> {
        match self {
            Self::Table { .. } => rows.narrow(0, label as usize, 1),
            // Only the null class is asked for, and is zeros.
            Self::Song | Self::Dhariwal => rows.narrow(0, 0, 1)?.zeros_like(),
        }
    }

    /// The table of these rows, which were those of a network of `n` labels.
    fn table_of(&self, rows: &Tensor, n: usize) -> Result<Tensor> {
        match (self, rows.dim(0)?) {
            (Self::Table { .. }, _) => Ok(rows.clone()),
            (Self::Song, now) if now != n => {
                rows.t()?.contiguous()? * (n as f64 / now as f64).sqrt()
            }
            (Self::Song | Self::Dhariwal, _) => rows.t()?.contiguous(),
        }
    }

    /// The bias of all labels of a network of `n` labels, increased by the embedding of a row.
    fn shifted(&self, params: &Params, row: &Tensor, n: usize) -> Result<(&'static str, Tensor)> {
        let (bias, row) = match self {
            Self::Table { bias, .. } => (*bias, row.clone()),
            Self::Song => ("model.map_label.bias", (row * (n as f64).sqrt())?),
            Self::Dhariwal => ("model.map_layer1.bias", row.clone()),
        };
        Ok((bias, (tensor(params, bias)? + row.squeeze(0)?)?))
    }

    /// A bias of the network without classes that has the effect of a row of a network of `n` labels.
    fn folded(&self, params: &Params, row: &Tensor, n: usize) -> Result<(&'static str, Tensor)> {
        let (_, shifted) = self.shifted(params, row, n)?;
        match self {
            Self::Table { bias, .. } => Ok((bias, shifted)),
            Self::Dhariwal => Ok(("model.map_layer1.bias", shifted)),
            Self::Song => {
                let bias = "model.map_layer0.bias";
                let dense = tensor(params, "model.map_layer0.weight")?;
                let effect = dense.matmul(&shifted.unsqueeze(1)?)?.squeeze(1)?;
                Ok((bias, (tensor(params, bias)? + effect)?))
            }
        }
    }
}

fn tensor<'a>(params: &'a Params, name: &str) -> Result<&'a Tensor> {
    match params.tensor(name) {
        Some(tensor) => Ok(tensor),
        None => bail!("parameter {name} is missing"),
    }
}
