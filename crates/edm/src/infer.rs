//! The fields of a network that the names and shapes in its file determine.

use crate::{
    DecoderType, DhariwalConfig, EdmConfig, EmbeddingType, EncoderType, ModelConfig, NotEdm,
    SongUnetConfig,
};
use sdft_nn::TimeAdapter;
use std::collections::BTreeMap;

/// A network, as inferred from its names and shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Inferred {
    /// The network.
    pub config: EdmConfig,
    /// The fields that names and shapes do not determine; `config` has the reference's defaults for them.
    pub assumed: Vec<&'static str>,
}

type Shapes = BTreeMap<String, Vec<usize>>;

/// The network that a state dict's names and shapes imply.
///
/// Not determined, and returned as assumed: the preconditioning with its numbers, `dropout`, `label_dropout`, with a single level the
/// branches of encoder and decoder, and the values of a filter that has neither two nor four taps. [`EdmNet::load`](crate::EdmNet::load)
/// compares the values of a filter with the file's.
///
/// # Errors
/// A key of an EDM network that is missing or has an invalid shape.
pub fn infer(shapes: &Shapes) -> Result<Inferred, NotEdm> {
    let (resolution, first) = first_convolution(shapes)?;
    let song = shapes.contains_key(&format!(
        "model.dec.{resolution}x{resolution}_aux_norm.weight"
    ));
    if !song && !shapes.contains_key("model.out_norm.weight") {
        return not_edm("neither model.out_norm nor an aux_norm: not an EDM network");
    }
    let [emb, noise] = dims::<2>(shapes, "model.map_layer0.weight")?;
    // The first convolution of SongUNet has the basic width; DhariwalUNet's sinusoids have it.
    let model_channels = if song { first[0] } else { noise };
    if model_channels == 0
        || !emb.is_multiple_of(model_channels)
        || !noise.is_multiple_of(model_channels)
    {
        return not_edm(format!(
            "model.map_layer0.weight: expected multiples of {model_channels}, found [{emb}, {noise}]"
        ));
    }
    let side = |level: usize| resolution >> level;
    let enc = |level: usize, what: &str| format!("model.enc.{0}x{0}_{what}", side(level));
    let has = |key: String| shapes.contains_key(&key);
    let levels = (1..12)
        .take_while(|&level| side(level) > 0 && has(enc(level, "down.norm0.weight")))
        .count()
        + 1;
    let num_blocks = (0..256)
        .take_while(|i| has(enc(0, &format!("block{i}.norm0.weight"))))
        .count();
    let mut channel_mult = Vec::new();
    let mut attn_resolutions = Vec::new();
    for level in 0..levels {
        let [width, ..] = dims::<4>(shapes, &enc(level, "block0.conv0.weight"))?;
        if width == 0 || !width.is_multiple_of(model_channels) {
            return not_edm(format!(
                "{}: expected a multiple of {model_channels}, found {width}",
                enc(level, "block0.conv0.weight")
            ));
        }
        channel_mult.push(width / model_channels);
        if has(enc(level, "block0.qkv.weight")) {
            attn_resolutions.push(side(level));
        }
    }
    let columns = |key: &str| match shapes.get(key).map(Vec::as_slice) {
        Some(&[_, n]) => n,
        _ => 0,
    };
    let augment_dim = columns("model.map_augment.weight");
    let channel_mult_emb = emb / model_channels;
    let mut assumed = vec!["precond", "dropout", "label_dropout"];
    let model = if song {
        if levels == 1 {
            assumed.extend(["encoder_type", "decoder_type", "resample_filter"]);
        }
        let resample_filter = filter(shapes, &enc(1, "down.conv0.resample_filter"), &mut assumed)?;
        ModelConfig::SongUNet(SongUnetConfig {
            augment_dim,
            model_channels,
            channel_mult,
            channel_mult_emb,
            num_blocks,
            attn_resolutions,
            embedding_type: match has("model.map_noise.freqs".into()) {
                true => EmbeddingType::Fourier,
                false => EmbeddingType::Positional,
            },
            channel_mult_noise: noise / model_channels,
            encoder_type: if has(enc(1, "aux_skip.weight")) {
                EncoderType::Skip
            } else if has(enc(1, "aux_residual.weight")) {
                EncoderType::Residual
            } else {
                EncoderType::Standard
            },
            decoder_type: match has(format!("model.dec.{0}x{0}_aux_norm.weight", side(1))) {
                true => DecoderType::Skip,
                false => DecoderType::Standard,
            },
            resample_filter,
            ..SongUnetConfig::default()
        })
    } else {
        ModelConfig::DhariwalUNet(DhariwalConfig {
            augment_dim,
            model_channels,
            channel_mult,
            channel_mult_emb,
            num_blocks,
            attn_resolutions,
            ..DhariwalConfig::default()
        })
    };
    let config = EdmConfig {
        img_resolution: resolution,
        img_channels: first[1],
        label_dim: columns("model.map_label.weight"),
        time_adapter_rank: TimeAdapter::rank_in(shapes),
        model,
        ..EdmConfig::default()
    };
    match config.validate() {
        Ok(()) => Ok(Inferred { config, assumed }),
        Err(error) => not_edm(error.to_string()),
    }
}

/// The side of the images, and the shape of the first convolution: the one of `model.enc.{res}x{res}_conv`.
fn first_convolution(shapes: &Shapes) -> Result<(usize, [usize; 4]), NotEdm> {
    let side = |key: &String| {
        let name = key.strip_prefix("model.enc.")?;
        let (a, b) = name.strip_suffix("_conv.weight")?.split_once('x')?;
        (a == b).then(|| a.parse::<usize>().ok())?
    };
    match shapes.keys().find_map(|key| Some((side(key)?, key))) {
        Some((resolution @ 1..=4096, key)) => Ok((resolution, dims(shapes, key)?)),
        _ => not_edm("model.enc.{res}x{res}_conv.weight is missing: not an EDM network"),
    }
}

/// The filter of a change of resolution.
fn filter(shapes: &Shapes, key: &str, assumed: &mut Vec<&'static str>) -> Result<Vec<f64>, NotEdm> {
    if !shapes.contains_key(key) {
        return Ok(SongUnetConfig::default().resample_filter);
    }
    match dims::<4>(shapes, key)? {
        [1, 1, 2, 2] => Ok(vec![1.0, 1.0]),
        [1, 1, 4, 4] => Ok(vec![1.0, 3.0, 3.0, 1.0]),
        [1, 1, n @ 1..=16, m] if n == m => {
            assumed.push("resample_filter");
            Ok(vec![1.0; n])
        }
        found => not_edm(format!("{key}: expected [1, 1, n, n], found {found:?}")),
    }
}

fn not_edm<T>(problem: impl Into<String>) -> Result<T, NotEdm> {
    Err(NotEdm(problem.into()))
}

fn dims<const N: usize>(shapes: &Shapes, key: &str) -> Result<[usize; N], NotEdm> {
    let Some(found) = shapes.get(key) else {
        return not_edm(format!("{key} is missing: not an EDM network"));
    };
    match found.as_slice().try_into() {
        Ok(dims) => Ok(dims),
        Err(_) => not_edm(format!("{key}: expected {N} dimensions, found {found:?}")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::EdmNet;

    /// Networks with every choice.
    pub(crate) fn configs() -> Vec<EdmConfig> {
        let song = SongUnetConfig {
            model_channels: 16,
            channel_mult: vec![1, 2, 2],
            num_blocks: 2,
            attn_resolutions: vec![8],
            ..SongUnetConfig::default()
        };
        let ncsn = SongUnetConfig {
            embedding_type: EmbeddingType::Fourier,
            channel_mult_noise: 2,
            encoder_type: EncoderType::Residual,
            resample_filter: vec![1.0, 3.0, 3.0, 1.0],
            ..song.clone()
        };
        let skip = SongUnetConfig {
            encoder_type: EncoderType::Skip,
            decoder_type: DecoderType::Skip,
            augment_dim: 9,
            channel_mult_emb: 2,
            ..ncsn.clone()
        };
        let wide = SongUnetConfig {
            channel_mult: vec![2, 3],
            num_blocks: 1,
            attn_resolutions: vec![16, 8],
            ..song.clone()
        };
        let dhariwal = DhariwalConfig {
            model_channels: 32,
            channel_mult: vec![1, 2, 4],
            num_blocks: 1,
            attn_resolutions: vec![8, 4],
            augment_dim: 6,
            ..DhariwalConfig::default()
        };
        let models = [
            ModelConfig::SongUNet(song),
            ModelConfig::SongUNet(ncsn),
            ModelConfig::SongUNet(skip),
            ModelConfig::SongUNet(wide),
            ModelConfig::DhariwalUNet(dhariwal),
        ];
        let all = models.into_iter().enumerate();
        all.map(|(i, model)| EdmConfig {
            img_resolution: 16,
            label_dim: if i % 2 == 0 { 0 } else { 7 },
            time_adapter_rank: [None, Some(0), None, Some(3), Some(0)][i],
            model,
            ..EdmConfig::default()
        })
        .collect()
    }

    fn shapes_of(config: &EdmConfig) -> Shapes {
        let specs = EdmNet::specs(config).unwrap().into_iter();
        specs.map(|spec| (spec.name, spec.shape)).collect()
    }

    #[test]
    fn every_kind_of_network_is_recognised_from_its_names_and_shapes() {
        let public = [
            EdmConfig::default(),
            EdmConfig {
                label_dim: 1000,
                model: ModelConfig::DhariwalUNet(DhariwalConfig::default()),
                ..EdmConfig::default()
            },
        ];
        for config in configs().into_iter().chain(public) {
            let found = infer(&shapes_of(&config)).unwrap();
            assert_eq!(found.config, config);
            assert_eq!(found.assumed, ["precond", "dropout", "label_dropout"]);
        }
    }

    #[test]
    fn what_shapes_leave_open_is_assumed() {
        let one_level = EdmConfig {
            model: ModelConfig::SongUNet(SongUnetConfig {
                channel_mult: vec![1],
                ..SongUnetConfig::default()
            }),
            ..EdmConfig::default()
        };
        let assumed = infer(&shapes_of(&one_level)).unwrap().assumed;
        assert!(assumed.contains(&"encoder_type"), "{assumed:?}");
        let unusual = EdmConfig {
            img_resolution: 65,
            model: ModelConfig::SongUNet(SongUnetConfig {
                resample_filter: vec![1.0, 2.0, 1.0],
                ..SongUnetConfig::default()
            }),
            ..EdmConfig::default()
        };
        let assumed = infer(&shapes_of(&unusual)).unwrap().assumed;
        assert!(assumed.contains(&"resample_filter"), "{assumed:?}");
    }

    #[test]
    fn foreign_and_damaged_files_are_refused() {
        let foreign = Shapes::from([("conv_in.weight".to_owned(), vec![128, 3, 3, 3])]);
        let text = infer(&foreign).unwrap_err().to_string();
        assert!(text.contains("not an EDM network"), "{text}");
        let mut shapes = shapes_of(&EdmConfig::default());
        shapes.insert("model.map_layer0.weight".into(), vec![512, 100]);
        let text = infer(&shapes).unwrap_err().to_string();
        assert!(text.contains("map_layer0"), "{text}");
    }
}
