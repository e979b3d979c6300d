//! Which parameters of a network each kind of adapter changes.

use crate::change::{Change, factor_shapes};
use crate::config::{AdapterConfig, AdapterKind};
use crate::error::{Error, Result};
use crate::pattern::{matches, no_match, select};
use sdft_nn::{Init, ParamSpec, TimeAdapter};
use std::collections::BTreeSet;

/// The projections of attention: guided-diffusion's and EDM's `qkv`, `proj_out` and `proj`, diffusers' `to_*`.
///
/// They are what LoRA's paper and diffusers' training scripts change, and every network here has them under one of these names.
const ATTENTION: [&str; 7] = [
    "qkv", "proj_out", "proj", "to_q", "to_k", "to_v", "to_out.0",
];

/// The norms in front of them, which are under the same prefix: guided-diffusion's, diffusers' and EDM's.
const NORMS: [&str; 3] = ["norm", "group_norm", "norm2"];

/// The tables and layers that embed classes.
const CLASSES: [&str; 4] = [
    "label_emb",
    "class_embedding",
    "map_label",
    "embedding_table",
];

/// The prefix of names in peft's files.
const PEFT: &str = "base_model.model.";

/// The changes of an adapter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// The changed parameters in the network's order, with the names of the adapter's tensors.
    pub(crate) entries: Vec<(String, Change<String>)>,
    /// The adapter's tensors. Those of [`Change::Whole`], and those in place of a parameter, start from the parameter of their name.
    pub(crate) trained: Vec<ParamSpec>,
}

impl Changes {
    /// The changes of a network with these parameters that can be trained.
    ///
    /// # Errors
    /// Settings of another kind, patterns that match nothing, or a network without such layers.
    pub(crate) fn of(config: &AdapterConfig, specs: &[ParamSpec]) -> Result<Self> {
        config.check()?;
        let changes = match config.kind {
            AdapterKind::Full => specs.iter().fold(Self::default(), Self::with_whole),
            AdapterKind::Names => {
                let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
                let selected = select("names", &config.names, &names)?;
                let chosen = specs
                    .iter()
                    .filter(|spec| selected.contains(spec.name.as_str()));
                chosen.fold(Self::default(), Self::with_whole)
            }
            AdapterKind::Lora => lora(config, specs)?,
            AdapterKind::Difffit => difffit(specs),
            AdapterKind::TimeAware => time_aware(specs),
        };
        match changes.entries.is_empty() {
            true => Err(Error::config(
                "kind",
                format!("{config}: the network has no parameters for it"),
            )),
            false => Ok(changes),
        }
    }

    fn with_whole(mut self, spec: &ParamSpec) -> Self {
        let change = Change::Whole(spec.name.clone());
        self.entries.push((spec.name.clone(), change));
        self.trained.push(spec.clone());
        self
    }
}

/// The names of A and B of a layer, as in peft's files.
pub(crate) fn factor_names(layer: &str) -> [String; 2] {
    ["A", "B"].map(|factor| format!("{PEFT}{layer}.lora_{factor}.weight"))
}

/// The layer of a factor's name, and whether it is B.
pub(crate) fn layer_of_factor(name: &str) -> Option<(&str, bool)> {
    let name = name.strip_prefix(PEFT).unwrap_or(name);
    let ends = [(".lora_A.weight", false), (".lora_B.weight", true)];
    ends.into_iter()
        .find_map(|(end, is_b)| Some((name.strip_suffix(end)?, is_b)))
}

/// The name of the scales of a layer.
pub(crate) fn gamma_name(layer: &str) -> String {
    format!("{layer}{GAMMA}")
}

/// The end of the names of scales.
pub(crate) const GAMMA: &str = ".gamma";

/// The layer whose weight this is, if LoRA can change it: a linear layer or a convolution.
fn layer(spec: &ParamSpec) -> Option<&str> {
    let layer = spec.name.strip_suffix(".weight")?;
    let tables = ["label_emb", "class_embedding", "embedding_table"];
    let is_table = tables.iter().any(|table| matches(table, layer));
    (spec.shape.len() > 1 && !is_table).then_some(layer)
}

/// The patterns of [`ATTENTION`] that match a layer.
pub(crate) fn default_targets(specs: &[ParamSpec]) -> Vec<String> {
    let names: BTreeSet<&str> = specs.iter().filter_map(layer).collect();
    // Outside of attention, `proj` is another layer: that of patches, or a dense one.
    let is_attention = |layer: &str| match layer.strip_suffix("proj") {
        Some(block) if !layer.ends_with("_proj") => names.contains(format!("{block}qkv").as_str()),
        _ => true,
    };
    let found = |pattern: &&str| {
        let mut layers = names.iter();
        layers.any(|layer| matches(pattern, layer) && is_attention(layer))
    };
    let found = ATTENTION.iter().copied().filter(found);
    found.map(str::to_owned).collect()
}

fn lora(config: &AdapterConfig, specs: &[ParamSpec]) -> Result<Changes> {
    let layers: Vec<&str> = specs.iter().filter_map(layer).collect();
    let default = default_targets(specs);
    let targets = match config.targets.is_empty() {
        true => &default,
        false => &config.targets,
    };
    if targets.is_empty() {
        let all = format!("the default, {}", ATTENTION.join(", "));
        return Err(no_match("targets", &all, &layers));
    }
    let selected = select("targets", targets, &layers)?;
    let mut changes = Changes::default();
    for spec in specs {
        let Some(layer) = layer(spec).filter(|layer| selected.contains(layer)) else {
            continue;
        };
        let [a, b] = factor_names(layer);
        let [shape_a, shape_b] = factor_shapes(&spec.shape, config.rank());
        // Source: peft's `reset_lora_parameters`.
        let init = Init::fan_in(spec.shape[1..].iter().product());
        let factor = |name: &String, shape, init| ParamSpec {
            name: name.clone(),
            shape,
            init,
        };
        changes.trained.push(factor(&a, shape_a, init));
        changes
            .trained
            .push(factor(&b, shape_b, Init::Constant(0.0)));
        let change = Change::LowRank { a, b };
        changes.entries.push((spec.name.clone(), change));
    }
    Ok(changes)
}

/// Source: DiffFit (Xie et al. 2023), read for U-Nets: a block's scale becomes one for each residual branch and each branch of attention.
fn difffit(specs: &[ParamSpec]) -> Changes {
    let layers: BTreeSet<&str> = specs.iter().filter_map(layer).collect();
    let mut changes = Changes::default();
    for spec in specs {
        let (layer, leaf) = spec.name.rsplit_once('.').unwrap_or(("", &spec.name));
        let (is_vector, gamma) = (spec.shape.len() == 1, gamma_name(layer));
        if ends_branch(layer, &layers) && ["weight", "bias"].contains(&leaf) {
            if leaf == "weight" {
                changes.trained.push(ParamSpec {
                    name: gamma.clone(),
                    shape: spec.shape[..1].to_vec(),
                    init: Init::Constant(1.0),
                });
            } else {
                changes.trained.push(spec.clone());
            }
            let own = is_vector.then(|| spec.name.clone());
            let change = Change::Scaled { gamma, own };
            changes.entries.push((spec.name.clone(), change));
        } else if is_vector || (leaf == "weight" && CLASSES.iter().any(|end| matches(end, layer))) {
            changes = changes.with_whole(spec);
        }
    }
    changes
}

/// Source: Moon et al. 2022 (A3FT): the attention blocks and the adapters in them.
fn time_aware(specs: &[ParamSpec]) -> Changes {
    let adapter = format!(".{}.", TimeAdapter::NAME);
    let block = |spec: &'_ ParamSpec| Some(spec.name.split_once(&adapter)?.0.to_owned());
    let blocks: BTreeSet<String> = specs.iter().filter_map(block).collect();
    let is_trained = |spec: &&ParamSpec| {
        let layer = spec.name.rsplit_once('.').map_or("", |(layer, _)| layer);
        let in_block = |own: &&str| {
            let block = layer.strip_suffix(own)?.strip_suffix('.')?;
            blocks.contains(block).then_some(())
        };
        let mut own = ATTENTION.iter().chain(&NORMS);
        spec.name.contains(&adapter) || own.any(|own| in_block(own).is_some())
    };
    let trained = specs.iter().filter(is_trained);
    trained.fold(Changes::default(), Changes::with_whole)
}

/// Whether the output of this layer is added to the input of a block: the last convolution of a residual block, the last projection of
/// attention, or the last dense layer of a transformer block.
fn ends_branch(layer: &str, layers: &BTreeSet<&str>) -> bool {
    let after = |own: &str, other: &str| {
        let block = layer.strip_suffix(own);
        block.is_some_and(|block| layers.contains(format!("{block}{other}").as_str()))
    };
    layers.contains(layer)
        && (["out_layers.3", "proj_out", "to_out.0", "ff.net.2"]
            .iter()
            .any(|end| matches(end, layer))
            || after(".proj", ".qkv")
            || after(".conv2", ".conv1")
            || after(".conv1", ".conv0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(all: &[(&str, &[usize])]) -> Vec<ParamSpec> {
        let spec = |(name, shape): &(&str, &[usize])| ParamSpec {
            name: (*name).to_owned(),
            shape: shape.to_vec(),
            init: Init::Constant(0.0),
        };
        all.iter().map(spec).collect()
    }

    fn network() -> Vec<ParamSpec> {
        specs(&[
            ("class_embedding.weight", &[3, 8]),
            ("res.norm1.weight", &[8]),
            ("res.conv1.weight", &[8, 4, 3, 3]),
            ("res.conv1.bias", &[8]),
            ("res.conv2.weight", &[8, 8, 3, 3]),
            ("res.conv2.bias", &[8]),
            ("attn.qkv.weight", &[24, 8, 1]),
            ("attn.to_out.0.weight", &[8, 8]),
        ])
    }

    #[test]
    fn low_rank_factors_have_the_shapes_of_linear_layers_and_convolutions() {
        let config = AdapterConfig {
            kind: AdapterKind::Lora,
            rank: Some(2),
            ..AdapterConfig::default()
        };
        let changes = Changes::of(&config, &network()).unwrap();
        let shapes: Vec<_> = changes
            .trained
            .iter()
            .map(|spec| (spec.name.as_str(), spec.shape.as_slice()))
            .collect();
        let expected: [(&str, &[usize]); 4] = [
            ("base_model.model.attn.qkv.lora_A.weight", &[2, 8, 1]),
            ("base_model.model.attn.qkv.lora_B.weight", &[24, 2, 1]),
            ("base_model.model.attn.to_out.0.lora_A.weight", &[2, 8]),
            ("base_model.model.attn.to_out.0.lora_B.weight", &[8, 2]),
        ];
        assert_eq!(shapes, expected);
        let convolutions = AdapterConfig {
            targets: vec!["conv*".into()],
            ..config.clone()
        };
        let changes = Changes::of(&convolutions, &network()).unwrap();
        assert_eq!(changes.trained[0].shape, [2, 4, 3, 3]);
        assert_eq!(changes.trained[1].shape, [8, 2, 1, 1]);
        assert_eq!(config.resolved(&network()).targets, ["qkv", "to_out.0"]);
        // A table of embeddings has no layer.
        let table = AdapterConfig {
            targets: vec!["class_embedding".into()],
            ..convolutions
        };
        assert!(Changes::of(&table, &network()).is_err());
    }

    #[test]
    fn difffit_scales_the_ends_of_branches_and_trains_vectors_and_class_embeddings() {
        let config = AdapterConfig {
            kind: AdapterKind::Difffit,
            ..AdapterConfig::default()
        };
        let changes = Changes::of(&config, &network()).unwrap();
        let names: Vec<&str> = changes.trained.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "class_embedding.weight",
                "res.norm1.weight",
                "res.conv1.bias",
                "res.conv2.gamma",
                "res.conv2.bias",
                "attn.to_out.0.gamma",
            ]
        );
        // A DiT's blocks end in attention and in a dense layer; its patches are no block.
        let dit = specs(&[
            ("pos_embed.proj.weight", &[8, 4, 2, 2]),
            ("b.norm1.emb.class_embedder.embedding_table.weight", &[3, 8]),
            ("b.attn1.to_out.0.weight", &[8, 8]),
            ("b.ff.net.0.proj.weight", &[32, 8]),
            ("b.ff.net.2.weight", &[8, 32]),
        ]);
        let changes = Changes::of(&config, &dit).unwrap();
        let names: Vec<&str> = changes.trained.iter().map(|s| s.name.as_str()).collect();
        let expected = [
            "b.norm1.emb.class_embedder.embedding_table.weight",
            "b.attn1.to_out.0.gamma",
            "b.ff.net.2.gamma",
        ];
        assert_eq!(names, expected);
        assert_eq!(default_targets(&dit), ["to_out.0"]);
        // EDM's blocks count from 0, and its attention ends in `proj`.
        let attention = specs(&[
            ("b.qkv.weight", &[24, 8, 1, 1]),
            ("b.proj.weight", &[8, 8, 1, 1]),
        ]);
        assert_eq!(default_targets(&attention), ["qkv", "proj"]);
        let changes = Changes::of(&config, &attention).unwrap();
        assert_eq!(changes.trained[0].name, "b.proj.gamma");
        let edm = specs(&[
            ("b.conv0.weight", &[4, 4, 3, 3]),
            ("b.conv1.weight", &[4, 4, 3, 3]),
        ]);
        let changes = Changes::of(&config, &edm).unwrap();
        assert_eq!(changes.trained[0].name, "b.conv1.gamma");
    }

    #[test]
    fn a_time_aware_adapter_trains_the_blocks_that_have_one() {
        let config = AdapterConfig {
            kind: AdapterKind::TimeAware,
            ..AdapterConfig::default()
        };
        let mut all = vec![
            ("res.norm2.weight", &[8][..]),
            ("res.qkv_layer.weight", &[8, 8]),
            ("res.conv.weight", &[8, 8, 3, 3]),
            ("attn.group_norm.weight", &[8]),
            ("attn.to_q.bias", &[8]),
            ("attn.to_out.0.weight", &[8, 8]),
            ("other.qkv.weight", &[24, 8, 1]),
        ];
        assert!(Changes::of(&config, &specs(&all)).is_err());
        all.insert(5, ("attn.adapter.up.weight", &[8, 1, 1]));
        // EDM has residual block and attention under one prefix.
        all.push(("edm.norm2.bias", &[8]));
        all.push(("edm.norm1.bias", &[8]));
        all.push(("edm.adapter.norm.bias", &[1]));
        let changes = Changes::of(&config, &specs(&all)).unwrap();
        let names: Vec<&str> = changes.trained.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "attn.group_norm.weight",
                "attn.to_q.bias",
                "attn.adapter.up.weight",
                "attn.to_out.0.weight",
                "edm.norm2.bias",
                "edm.adapter.norm.bias",
            ]
        );
    }

    #[test]
    fn a_network_without_attention_names_the_layers_that_it_has() {
        let specs = specs(&[("conv_in.weight", &[4, 3, 3, 3])]);
        let config = AdapterConfig {
            kind: AdapterKind::Lora,
            ..AdapterConfig::default()
        };
        let error = Changes::of(&config, &specs).unwrap_err().to_string();
        assert!(
            error.contains("adapter.targets") && error.contains("conv_in"),
            "{error}"
        );
    }
}
