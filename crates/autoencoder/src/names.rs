//! Names of parameters in older files, and in CompVis' own.

use std::collections::BTreeMap;

/// The entries of a file under the names that its parameters have here, which are diffusers' current ones.
///
/// Older files of diffusers have other attention layers (`query`, `key`, `value`, `proj_attn`). CompVis' files have other names throughout
/// (`encoder.down.0.block.0`, `mid.attn_1`, `nin_shortcut`), and number the decoder's levels from the highest resolution. Names that are not
/// known stay, and so does the second of two that would get the same name.
///
/// Source: diffusers `_convert_deprecated_attention_blocks`, CompVis/latent-diffusion `Encoder` and `Decoder`.
pub fn current_names<T>(entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
    let levels = compvis_levels(entries.keys());
    let mut out = BTreeMap::new();
    for (name, entry) in entries {
        let new = match levels {
            Some(levels) => compvis_name(&name, levels).unwrap_or_else(|| name.clone()),
            None => modern_name(&name),
        };
        match out.contains_key(&new) {
            true => out.insert(name, entry),
            false => out.insert(new, entry),
        };
    }
    out
}

/// Whether the names of an autoencoder's parameters are CompVis'.
pub fn is_compvis<'a>(mut names: impl Iterator<Item = &'a String>) -> bool {
    names.any(|name| name.starts_with("decoder.mid.block_1."))
}

/// Number of levels of CompVis' names; `None` if they are not CompVis'.
fn compvis_levels<'a>(names: impl Iterator<Item = &'a String> + Clone) -> Option<usize> {
    if !is_compvis(names.clone()) {
        return None;
    }
    let level = |name: &String| -> Option<usize> {
        let rest = name.strip_prefix("decoder.up.")?;
        rest.split('.').next()?.parse().ok()
    };
    names.filter_map(level).max()?.checked_add(1)
}

fn modern_name(old: &str) -> String {
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

/// The current name of a parameter of CompVis' encoder or decoder; `None` for other names.
fn compvis_name(name: &str, levels: usize) -> Option<String> {
    let (coder, rest) = name.split_once('.')?;
    if coder != "encoder" && coder != "decoder" {
        return None;
    }
    let parts: Vec<&str> = rest.split('.').collect();
    let renamed = match *parts.as_slice() {
        ["norm_out", leaf] => format!("conv_norm_out.{leaf}"),
        ["mid", block, ref rest @ ..] => match block {
            "block_1" => format!("mid_block.resnets.0.{}", residual(rest)),
            "block_2" => format!("mid_block.resnets.1.{}", residual(rest)),
            "attn_1" => format!("mid_block.attentions.0.{}", attention(rest)),
            _ => return None,
        },
        [direction @ ("down" | "up"), level, ref rest @ ..] => {
            let level: usize = level.parse().ok()?;
            let level = match direction {
                "down" => level,
                _ => levels.checked_sub(level + 1)?,
            };
            let inside = match *rest {
                ["block", i, ref rest @ ..] => format!("resnets.{i}.{}", residual(rest)),
                ["attn", i, ref rest @ ..] => format!("attentions.{i}.{}", attention(rest)),
                ["downsample", "conv", leaf] => format!("downsamplers.0.conv.{leaf}"),
                ["upsample", "conv", leaf] => format!("upsamplers.0.conv.{leaf}"),
                _ => return None,
            };
            format!("{direction}_blocks.{level}.{inside}")
        }
        _ => return None,
    };
    Some(format!("{coder}.{renamed}"))
}

fn residual(parts: &[&str]) -> String {
    parts.join(".").replace("nin_shortcut", "conv_shortcut")
}

fn attention(parts: &[&str]) -> String {
    let renamed = parts.iter().map(|part| match *part {
        "norm" => "group_norm",
        "q" => "to_q",
        "k" => "to_k",
        "v" => "to_v",
        "proj_out" => "to_out.0",
        part => part,
    });
    renamed.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_compvis_and_of_older_files_become_current_ones() {
        for (old, new) in [
            ("encoder.conv_in.weight", None),
            ("quant_conv.bias", None),
            (
                "encoder.down.1.block.0.nin_shortcut.weight",
                Some("encoder.down_blocks.1.resnets.0.conv_shortcut.weight"),
            ),
            (
                "encoder.down.0.downsample.conv.bias",
                Some("encoder.down_blocks.0.downsamplers.0.conv.bias"),
            ),
            (
                "decoder.up.0.block.2.norm1.weight",
                Some("decoder.up_blocks.3.resnets.2.norm1.weight"),
            ),
            (
                "decoder.up.3.upsample.conv.weight",
                Some("decoder.up_blocks.0.upsamplers.0.conv.weight"),
            ),
            (
                "decoder.up.3.attn.1.proj_out.weight",
                Some("decoder.up_blocks.0.attentions.1.to_out.0.weight"),
            ),
            (
                "decoder.mid.attn_1.norm.weight",
                Some("decoder.mid_block.attentions.0.group_norm.weight"),
            ),
            ("encoder.norm_out.bias", Some("encoder.conv_norm_out.bias")),
            ("decoder.up.4.block.0.norm1.weight", None),
        ] {
            assert_eq!(compvis_name(old, 4).as_deref(), new, "{old}");
        }
        assert_eq!(
            modern_name("decoder.mid_block.attentions.0.proj_attn.bias"),
            "decoder.mid_block.attentions.0.to_out.0.bias"
        );
        assert_eq!(modern_name("key.weight"), "key.weight");
    }
}
