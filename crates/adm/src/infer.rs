//! Recovering the configuration of a network from its names and shapes.

use crate::{AdmConfig, EncoderConfig, NotAdm, Pool};
use sdft_nn::TimeAdapter;
use std::collections::BTreeMap;

/// Where the value of a configuration field comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The metadata of the file.
    Read,
    /// The user.
    Given,
    /// A list of known files.
    Known,
    /// Names and shapes.
    Inferred,
    /// It cannot be inferred: ADM's default.
    Assumed,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Given => "given",
            Self::Known => "known file",
            Self::Inferred => "inferred",
            Self::Assumed => "assumed",
        })
    }
}

/// A network, as inferred from its names and shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Inferred {
    /// The U-Net, or the encoder of a classifier.
    pub config: AdmConfig,
    /// The classifier's head; none for a U-Net.
    pub pool: Option<Pool>,
    /// The origin of each field, by field name.
    pub origins: BTreeMap<&'static str, Origin>,
}

impl Inferred {
    /// The classifier, if it is one.
    pub fn encoder(&self) -> Option<EncoderConfig> {
        self.pool.map(|pool| EncoderConfig {
            net: self.config.clone(),
            pool,
        })
    }
}

type Shapes = BTreeMap<String, Vec<usize>>;

/// The architecture that a checkpoint's names and shapes imply.
///
/// Fields that cannot be inferred are assumed: 64 channels per head where they fit (else 4 heads), the legacy attention order, 32 norm
/// groups, and, unless `image_size` is given, the size of the public model with the same levels.
///
/// # Errors
/// A key of an ADM network that is missing or has an invalid shape.
pub fn infer(shapes: &Shapes, image_size: Option<usize>) -> Result<Inferred, NotAdm> {
    let mut origins: BTreeMap<&'static str, Origin> = [
        "in_channels",
        "out_channels",
        "model_channels",
        "channel_mult",
        "num_res_blocks",
        "attention_resolutions",
        "use_scale_shift_norm",
        "resblock_updown",
        "num_classes",
    ]
    .into_iter()
    .map(|field| (field, Origin::Inferred))
    .collect();
    let first = dims::<4>(shapes, "input_blocks.0.0.weight")?;
    let time = dims::<2>(shapes, "time_embed.0.weight")?;
    let model_channels = time[1];
    if time[0] != 4 * model_channels || model_channels == 0 {
        return not_adm(format!(
            "time_embed.0.weight: expected [4 n, n], found {time:?}"
        ));
    }
    let (pool, out_channels, pool_side) = head(shapes)?;
    let input = walk(shapes, "input_blocks");
    let n_blocks = input.len();
    let resblock_updown = !input
        .iter()
        .any(|block| matches!(block.kind, Kind::LearnedResize | Kind::Missing));
    let conv_resample = !input.iter().any(|block| block.kind == Kind::Missing);
    let n = match pool {
        None => res_blocks_of_decoder(shapes, &input)?,
        Some(_) => res_blocks_of_encoder(&input)?,
    };
    if n == 0 || !n_blocks.is_multiple_of(n + 1) {
        return not_adm(format!(
            "{n_blocks} input blocks do not form levels of {n} residual blocks and a change of resolution"
        ));
    }
    let levels = n_blocks / (n + 1);
    let mut channel_mult = Vec::new();
    let mut attention_resolutions = Vec::new();
    for level in 0..levels {
        let block = &input[1 + level * (n + 1)];
        channel_mult.push(block.channels as f64 / model_channels as f64);
        if block.attention {
            attention_resolutions.push(1 << level);
        }
    }
    attention_resolutions.reverse();
    let scale_shift = dims::<2>(shapes, "middle_block.0.emb_layers.1.weight")?[0]
        == 2 * dims::<4>(shapes, "middle_block.0.out_layers.3.weight")?[0];
    let with_attention = || {
        (0..levels)
            .filter(|level| *level + 1 == levels || attention_resolutions.contains(&(1 << level)))
    };
    let width = |level: usize| input[1 + level * (n + 1)].channels;
    let heads_of_64 = with_attention().all(|level| width(level).is_multiple_of(64));
    let size = match (image_size, pool_side) {
        (Some(size), _) => (size, Origin::Given),
        (None, Some(side)) => (side << (levels - 1), Origin::Inferred),
        (None, None) => {
            let usual = [64, 128, 256, 512]
                .into_iter()
                .find(|&size| AdmConfig::channel_mult_for(size) == channel_mult);
            (usual.unwrap_or(256.max(1 << (levels - 1))), Origin::Assumed)
        }
    };
    origins.insert("image_size", size.1);
    origins.insert(
        "conv_resample",
        if resblock_updown {
            Origin::Assumed
        } else {
            Origin::Inferred
        },
    );
    for field in [
        "num_heads",
        "num_head_channels",
        "num_heads_upsample",
        "use_new_attention_order",
        "norm_groups",
        "dropout",
    ] {
        origins.insert(field, Origin::Assumed);
    }
    let time_adapter_rank = TimeAdapter::rank_in(shapes);
    if time_adapter_rank.is_some() {
        origins.insert("time_adapter_rank", Origin::Inferred);
    }
    let num_classes = match shapes.get("label_emb.weight").map(Vec::as_slice) {
        Some(&[classes, _]) => classes,
        _ => 0,
    };
    Ok(Inferred {
        config: AdmConfig {
            image_size: size.0,
            in_channels: first[1],
            out_channels,
            model_channels,
            channel_mult,
            num_res_blocks: n,
            attention_resolutions,
            num_heads: 4,
            num_head_channels: if heads_of_64 { 64 } else { 0 },
            num_heads_upsample: 0,
            use_scale_shift_norm: scale_shift,
            resblock_updown,
            conv_resample,
            use_new_attention_order: false,
            num_classes,
            dropout: 0.0,
            norm_groups: 32,
            time_adapter_rank,
        },
        pool,
        origins,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    First,
    Residual,
    LearnedResize,
    /// No parameters under this number: a resize without parameters.
    Missing,
}

#[derive(Clone, Debug)]
struct BlockShape {
    kind: Kind,
    channels: usize,
    attention: bool,
}

fn not_adm<T>(problem: impl Into<String>) -> Result<T, NotAdm> {
    Err(NotAdm(problem.into()))
}

fn dims<const N: usize>(shapes: &Shapes, key: &str) -> Result<[usize; N], NotAdm> {
    let Some(found) = shapes.get(key) else {
        return not_adm(format!("{key} is missing: not an ADM network"));
    };
    match found.as_slice().try_into() {
        Ok(dims) => Ok(dims),
        Err(_) => not_adm(format!("{key}: expected {N} dimensions, found {found:?}")),
    }
}

/// The blocks under `prefix`, in order, with gaps filled as [`Kind::Missing`].
fn walk(shapes: &Shapes, prefix: &str) -> Vec<BlockShape> {
    let number = |key: &String| {
        key.strip_prefix(prefix)?
            .strip_prefix('.')?
            .split('.')
            .next()?
            .parse::<usize>()
            .ok()
    };
    // A hostile name must not make the loop long.
    let count = shapes
        .keys()
        .filter_map(number)
        .filter(|n| *n < 4096)
        .max()
        .map_or(0, |last| last + 1);
    let mut out: Vec<BlockShape> = Vec::with_capacity(count);
    for n in 0..count {
        let width = |leaf: &str| {
            shapes
                .get(&format!("{prefix}.{n}.{leaf}"))
                .and_then(|s| s.first().copied())
        };
        let attention = width("1.qkv.weight").is_some();
        let (kind, channels) = if let Some(channels) = width("0.in_layers.2.weight") {
            (Kind::Residual, channels)
        } else if let Some(channels) = width("0.op.weight") {
            (Kind::LearnedResize, channels)
        } else if let Some(channels) = width("0.weight") {
            (Kind::First, channels)
        } else {
            (Kind::Missing, out.last().map_or(0, |b| b.channels))
        };
        out.push(BlockShape {
            kind,
            channels,
            attention,
        });
    }
    out
}

/// Levels end at the decoder blocks with a second residual block or a resize.
fn res_blocks_of_decoder(shapes: &Shapes, input: &[BlockShape]) -> Result<usize, NotAdm> {
    let output = walk(shapes, "output_blocks");
    if output.len() != input.len() {
        return not_adm(format!(
            "{} input blocks and {} output blocks: an ADM U-Net has equally many",
            input.len(),
            output.len()
        ));
    }
    let ends = |n: usize| {
        (1..=2).any(|i| {
            ["in_layers.2.weight", "conv.weight"]
                .iter()
                .any(|leaf| shapes.contains_key(&format!("output_blocks.{n}.{i}.{leaf}")))
        })
    };
    if let Some(first_end) = (0..output.len()).find(|&n| ends(n)) {
        return Ok(first_end);
    }
    // Resizes without parameters leave gaps among the input blocks instead.
    let gap = input.iter().position(|block| block.kind == Kind::Missing);
    Ok(gap.unwrap_or(input.len()).saturating_sub(1))
}

/// A classifier has no decoder: the levels must agree with where channels change and attention is.
fn res_blocks_of_encoder(input: &[BlockShape]) -> Result<usize, NotAdm> {
    if let Some(resize) = input
        .iter()
        .position(|b| matches!(b.kind, Kind::LearnedResize | Kind::Missing))
    {
        return Ok(resize - 1);
    }
    let fits = |n: usize| {
        input.len().is_multiple_of(n + 1)
            && (0..input.len() / (n + 1)).all(|level| {
                let blocks =
                    &input[1 + level * (n + 1)..(1 + (level + 1) * (n + 1)).min(input.len())];
                let (level_blocks, down) = blocks.split_at(n.min(blocks.len()));
                level_blocks.iter().all(|b| {
                    b.channels == level_blocks[0].channels
                        && b.attention == level_blocks[0].attention
                }) && down
                    .iter()
                    .all(|b| b.channels == level_blocks[0].channels && !b.attention)
            })
    };
    // The fewest levels that fit: more would need changes of resolution without parameters.
    (1..input.len())
        .rev()
        .find(|&n| fits(n))
        .map_or_else(|| not_adm("the input blocks do not form levels"), Ok)
}

/// The kind of head, the output channels, and the side of the deepest feature map where the head determines it.
fn head(shapes: &Shapes) -> Result<(Option<Pool>, usize, Option<usize>), NotAdm> {
    let shape = |key: &str| shapes.get(key).map(Vec::as_slice);
    if shapes.keys().any(|key| key.starts_with("output_blocks.")) {
        return Ok((None, dims::<4>(shapes, "out.2.weight")?[0], None));
    }
    if let (Some(&[_, places]), Some(&[classes, ..])) = (
        shape("out.2.positional_embedding"),
        shape("out.2.c_proj.weight"),
    ) {
        return Ok((
            Some(Pool::Attention),
            classes,
            Some(places.saturating_sub(1).isqrt()),
        ));
    }
    match (
        shape("out.0.weight"),
        shape("out.2.weight"),
        shape("out.3.weight"),
    ) {
        (Some([_]), None, Some(&[classes, _, 1, 1])) => Ok((Some(Pool::Adaptive), classes, None)),
        (Some([_, _]), Some(&[classes, _]), None) => Ok((Some(Pool::Spatial), classes, None)),
        (Some([_, _]), None, Some(&[classes, _])) => Ok((Some(Pool::SpatialV2), classes, None)),
        _ => not_adm(
            "expected output blocks or the head of a classifier, found neither: not an ADM network",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encoder, Unet};

    fn shapes_of(specs: Vec<sdft_nn::ParamSpec>) -> Shapes {
        specs
            .into_iter()
            .map(|spec| (spec.name, spec.shape))
            .collect()
    }

    fn unets() -> Vec<AdmConfig> {
        let light = AdmConfig::default();
        let small = AdmConfig {
            image_size: 32,
            model_channels: 32,
            channel_mult: vec![1.0, 2.0, 3.0],
            attention_resolutions: vec![2],
            num_head_channels: 0,
            ..light.clone()
        };
        vec![
            light.clone(),
            AdmConfig::adm_256(),
            AdmConfig {
                num_classes: 1000,
                ..AdmConfig::adm_256()
            },
            AdmConfig {
                out_channels: 3,
                use_scale_shift_norm: false,
                ..small.clone()
            },
            AdmConfig {
                resblock_updown: false,
                num_res_blocks: 3,
                ..small.clone()
            },
            AdmConfig {
                resblock_updown: false,
                conv_resample: false,
                num_res_blocks: 2,
                ..small.clone()
            },
            AdmConfig {
                channel_mult: vec![0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0],
                image_size: 512,
                attention_resolutions: vec![32, 16, 8],
                ..AdmConfig::adm_256()
            },
            AdmConfig {
                time_adapter_rank: Some(0),
                ..light
            },
            AdmConfig {
                time_adapter_rank: Some(3),
                ..small.clone()
            },
            AdmConfig {
                channel_mult: vec![1.0],
                attention_resolutions: vec![],
                num_res_blocks: 2,
                ..small
            },
        ]
    }

    #[test]
    fn every_kind_of_unet_is_recognised_from_its_names_and_shapes() {
        for config in unets() {
            let shapes = shapes_of(Unet::specs(&config).unwrap());
            let found = infer(&shapes, Some(config.image_size)).unwrap();
            assert_eq!(found.config, config);
            assert_eq!(found.pool, None);
        }
        let light = infer(
            &shapes_of(Unet::specs(&AdmConfig::default()).unwrap()),
            None,
        )
        .unwrap();
        assert_eq!(
            (light.config.image_size, light.origins["image_size"]),
            (256, Origin::Assumed)
        );
    }

    #[test]
    fn every_kind_of_classifier_is_recognised() {
        for pool in [
            Pool::Adaptive,
            Pool::Attention,
            Pool::Spatial,
            Pool::SpatialV2,
        ] {
            let config = EncoderConfig {
                net: AdmConfig::classifier_256(2),
                pool,
            };
            let shapes = shapes_of(Encoder::specs(&config).unwrap());
            assert_eq!(infer(&shapes, None).unwrap().encoder(), Some(config));
        }
    }

    #[test]
    fn foreign_files_are_refused() {
        let foreign = Shapes::from([("conv_in.weight".to_owned(), vec![128, 3, 3, 3])]);
        assert!(
            infer(&foreign, None)
                .unwrap_err()
                .to_string()
                .contains("not an ADM network")
        );
        let mut shapes = shapes_of(Unet::specs(&AdmConfig::default()).unwrap());
        shapes.retain(|key, _| !key.starts_with("output_blocks.11"));
        assert!(
            infer(&shapes, None)
                .unwrap_err()
                .to_string()
                .contains("12 input blocks and 11 output blocks")
        );
    }
}
