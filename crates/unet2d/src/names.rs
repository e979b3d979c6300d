//! Names of parameters in older files.

/// The name that a parameter of a file has today: the attention layers `query`, `key`, `value` and `proj_attn` of older files are
/// `to_q`, `to_k`, `to_v` and `to_out.0`. Other names are returned as they are.
///
/// Source: diffusers `_convert_deprecated_attention_blocks`.
pub fn modern_name(old: &str) -> String {
    let parts: Vec<&str> = old.split('.').collect();
    let is_attention = |i: usize| i >= 2 && parts[i - 2] == "attentions";
    let renamed = parts.iter().enumerate().map(|(i, part)| match *part {
        "query" if is_attention(i) => "to_q",
        "key" if is_attention(i) => "to_k",
        "value" if is_attention(i) => "to_v",
        "proj_attn" if is_attention(i) => "to_out.0",
        part => part,
    });
    renamed.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_layers_of_attention_blocks_are_renamed() {
        for (old, new) in [
            (
                "mid_block.attentions.0.query.weight",
                "mid_block.attentions.0.to_q.weight",
            ),
            (
                "mid_block.attentions.0.key.bias",
                "mid_block.attentions.0.to_k.bias",
            ),
            (
                "up_blocks.1.attentions.2.value.weight",
                "up_blocks.1.attentions.2.to_v.weight",
            ),
            (
                "down_blocks.1.attentions.0.proj_attn.bias",
                "down_blocks.1.attentions.0.to_out.0.bias",
            ),
            (
                "down_blocks.1.attentions.0.to_out.0.bias",
                "down_blocks.1.attentions.0.to_out.0.bias",
            ),
            (
                "down_blocks.1.attentions.0.group_norm.weight",
                "down_blocks.1.attentions.0.group_norm.weight",
            ),
            ("key.weight", "key.weight"),
        ] {
            assert_eq!(modern_name(old), new);
        }
    }
}
