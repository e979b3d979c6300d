//! The names of the official code.

/// The constant of positions in official files, `[1, N, C]`. It is no parameter here.
pub const POSITIONS: &str = "pos_embed";

/// The names here of a parameter of facebookresearch/DiT and willisma/SiT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfficialNames {
    /// The same tensor.
    One(String),
    /// A third of its rows each: queries, keys and values.
    Qkv([String; 3]),
}

impl OfficialNames {
    /// The name that shows an official file.
    pub const MARK: &'static str = "x_embedder.proj.weight";

    /// The names of a parameter; other names are returned as they are.
    pub fn of(official: &str) -> Self {
        let ends = |layer: &str| {
            let leaf = official.strip_prefix(layer)?.strip_prefix('.')?;
            ["weight", "bias"].contains(&leaf).then(|| leaf.to_owned())
        };
        for (theirs, ours) in [
            ("x_embedder.proj", "pos_embed.proj"),
            ("t_embedder.mlp.0", "emb.timestep_embedder.linear_1"),
            ("t_embedder.mlp.2", "emb.timestep_embedder.linear_2"),
            (
                "y_embedder.embedding_table",
                "emb.class_embedder.embedding_table",
            ),
            ("final_layer.adaLN_modulation.1", "proj_out_1"),
            ("final_layer.linear", "proj_out_2"),
        ] {
            if let Some(leaf) = ends(theirs) {
                return Self::One(format!("{ours}.{leaf}"));
            }
        }
        let inside = official
            .strip_prefix("blocks.")
            .and_then(|rest| rest.split_once('.'));
        let Some((block, rest)) = inside else {
            return Self::One(official.to_owned());
        };
        let Some((layer, leaf)) = rest.rsplit_once('.') else {
            return Self::One(official.to_owned());
        };
        let full = |name: &str| format!("transformer_blocks.{block}.{name}.{leaf}");
        match layer {
            "attn.qkv" => Self::Qkv(["attn1.to_q", "attn1.to_k", "attn1.to_v"].map(full)),
            "attn.proj" => Self::One(full("attn1.to_out.0")),
            "mlp.fc1" => Self::One(full("ff.net.0.proj")),
            "mlp.fc2" => Self::One(full("ff.net.2")),
            "adaLN_modulation.1" => Self::One(full("norm1.linear")),
            _ => Self::One(official.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_of_the_official_code_has_its_name_here() {
        for (theirs, ours) in [
            ("x_embedder.proj.bias", "pos_embed.proj.bias"),
            (
                "t_embedder.mlp.2.weight",
                "emb.timestep_embedder.linear_2.weight",
            ),
            (
                "y_embedder.embedding_table.weight",
                "emb.class_embedder.embedding_table.weight",
            ),
            (
                "blocks.11.adaLN_modulation.1.weight",
                "transformer_blocks.11.norm1.linear.weight",
            ),
            (
                "blocks.0.attn.proj.bias",
                "transformer_blocks.0.attn1.to_out.0.bias",
            ),
            (
                "blocks.0.mlp.fc2.weight",
                "transformer_blocks.0.ff.net.2.weight",
            ),
            ("final_layer.linear.weight", "proj_out_2.weight"),
            ("blocks.0.other.weight", "blocks.0.other.weight"),
            ("pos_embed", "pos_embed"),
        ] {
            assert_eq!(OfficialNames::of(theirs), OfficialNames::One(ours.into()));
        }
        let OfficialNames::Qkv(names) = OfficialNames::of("blocks.3.attn.qkv.bias") else {
            panic!("one layer of queries, keys and values");
        };
        assert_eq!(names[1], "transformer_blocks.3.attn1.to_k.bias");
    }
}
