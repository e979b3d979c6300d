//! diffusers' `UNet2DModel` as an ADM network: every field of its `config.json` is used, or reported as unsupported.

use crate::error::{ModelError, brief};
use crate::siblings::Settings;
use sdft_adm::{AdmConfig, Inferred};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The fields of a file, with diffusers' defaults for missing ones, and the problems found.
struct Fields<'a> {
    json: &'a Map<String, Value>,
    known: BTreeSet<&'static str>,
    problems: Vec<String>,
}

impl Fields<'_> {
    fn get(&mut self, field: &'static str, default: Value) -> Value {
        self.known.insert(field);
        self.json.get(field).cloned().unwrap_or(default)
    }

    fn wrong(&mut self, field: &str, expected: &str, found: &Value) {
        let default = match self.json.contains_key(field) {
            true => "",
            false => " (the default where it is not given)",
        };
        self.problems.push(format!(
            "  {field}: expected {expected}, found {}{default}",
            brief(found)
        ));
    }

    /// A field that ADM has in one way only; `why` says which.
    fn only(&mut self, field: &'static str, default: Value, expected: &[Value], why: &str) {
        let found = self.get(field, default);
        if !expected.iter().any(|value| same(value, &found)) {
            let all: Vec<String> = expected.iter().map(Value::to_string).collect();
            self.wrong(field, &format!("{}{why}", all.join(" or ")), &found);
        }
    }

    /// A field that the shapes of the tensors determine, too.
    fn shown(&mut self, field: &'static str, default: Value, shape: &Value) {
        let found = self.get(field, default);
        if !same(shape, &found) {
            self.wrong(field, &format!("{shape}, which the tensors have"), &found);
        }
    }

    /// A whole number, or none where the field is null.
    fn number(&mut self, field: &'static str, default: Value) -> Option<usize> {
        let found = self.get(field, default);
        match found.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if n > 0 => Some(n),
            _ if found.is_null() => None,
            _ => {
                self.wrong(field, "a whole number above 0", &found);
                None
            }
        }
    }

    /// Types of blocks, all of which ADM has.
    fn blocks(&mut self, field: &'static str, default: Value, levels: usize, known: &[&str]) {
        let found = self.get(field, default);
        let types = found.as_array().map(Vec::as_slice).unwrap_or_default();
        let odd = |value: &&Value| !value.as_str().is_some_and(|name| known.contains(&name));
        if types.len() != levels || types.iter().any(|value| odd(&value)) {
            let expected = format!("{levels} of {}", known.join(", "));
            self.wrong(field, &expected, &found);
        }
    }
}

/// Equal; whole numbers may be written with a fraction.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        _ => a == b || a.as_f64().is_some_and(|a| Some(a) == b.as_f64()),
    }
}

/// The architecture from a `config.json` and the shapes of the tensors; `image_size` is used if the file has none.
///
/// Source: diffusers 0.42 `UNet2DModel`, `UNetMidBlock2D`, `ResnetBlock2D`.
///
/// # Errors
/// All fields that make it another network than ADM's, with what was expected.
pub(crate) fn config(settings: &Settings, inferred: &Inferred) -> Result<AdmConfig, ModelError> {
    let shapes = &inferred.config;
    let problem = |problem: String| ModelError::Problem {
        path: settings.path.clone(),
        problem,
    };
    let class = settings.fields.get("_class_name").and_then(Value::as_str);
    if let Some(class) = class.filter(|class| *class != "UNet2DModel") {
        return Err(problem(format!(
            "expected the settings of a UNet2DModel, found those of a {}",
            brief(class)
        )));
    }
    let mut fields = Fields {
        json: &settings.fields,
        known: BTreeSet::new(),
        problems: Vec::new(),
    };
    let f = &mut fields;
    let widths: Vec<usize> = (0..shapes.levels())
        .map(|level| shapes.width(level))
        .collect();
    f.only("center_input_sample", json!(false), &[json!(false)], "");
    f.only(
        "time_embedding_type",
        json!("positional"),
        &[json!("positional")],
        "",
    );
    f.only(
        "time_embedding_dim",
        Value::Null,
        &[Value::Null, json!(4 * shapes.model_channels)],
        "",
    );
    f.only(
        "flip_sin_to_cos",
        json!(true),
        &[json!(true)],
        ", cosines first",
    );
    f.only("freq_shift", json!(0), &[json!(0)], "");
    f.only(
        "mid_block_type",
        json!("UNetMidBlock2D"),
        &[json!("UNetMidBlock2D")],
        "",
    );
    f.only("mid_block_scale_factor", json!(1), &[json!(1)], "");
    f.only(
        "act_fn",
        json!("silu"),
        &[json!("silu"), json!("swish")],
        "",
    );
    f.only("norm_eps", json!(1e-5), &[json!(1e-5)], "");
    f.only(
        "add_attention",
        json!(true),
        &[json!(true)],
        ", in the middle block",
    );
    f.only(
        "class_embed_type",
        Value::Null,
        &[Value::Null],
        ", an embedding of classes",
    );
    let padding: &[Value] = match shapes.resblock_updown {
        // Residual blocks change the resolution without padding.
        true => &[json!(0), json!(1)],
        false => &[json!(1)],
    };
    f.only("downsample_padding", json!(1), padding, "");
    let conv = [json!("conv"), json!("resnet")];
    f.only("downsample_type", json!("conv"), &conv, "");
    f.only("upsample_type", json!("conv"), &conv, "");
    f.blocks(
        "down_block_types",
        json!([
            "DownBlock2D",
            "AttnDownBlock2D",
            "AttnDownBlock2D",
            "AttnDownBlock2D"
        ]),
        widths.len(),
        &["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"],
    );
    f.blocks(
        "up_block_types",
        json!([
            "AttnUpBlock2D",
            "AttnUpBlock2D",
            "AttnUpBlock2D",
            "UpBlock2D"
        ]),
        widths.len(),
        &["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"],
    );
    f.shown("in_channels", json!(3), &json!(shapes.in_channels));
    f.shown("out_channels", json!(3), &json!(shapes.out_channels));
    f.shown(
        "block_out_channels",
        json!([224, 448, 672, 896]),
        &json!(widths),
    );
    f.shown("layers_per_block", json!(2), &json!(shapes.num_res_blocks));
    let classes = match shapes.num_classes {
        0 => Value::Null,
        n => json!(n),
    };
    f.shown("num_class_embeds", Value::Null, &classes);
    let scale_shift = match shapes.use_scale_shift_norm {
        true => json!("scale_shift"),
        false => json!("default"),
    };
    f.shown("resnet_time_scale_shift", json!("default"), &scale_shift);
    // Of learned embeddings of time, which are refused above.
    f.get("num_train_timesteps", Value::Null);

    let groups = f.number("norm_num_groups", json!(32));
    let in_attention = f.number("attn_norm_num_groups", Value::Null);
    match (in_attention, groups) {
        (None, Some(groups)) if shapes.use_scale_shift_norm => {
            let expected = format!("{groups}: without it the middle attention has no norm");
            f.wrong("attn_norm_num_groups", &expected, &Value::Null);
        }
        (Some(n), Some(groups)) if n != groups => {
            let expected = format!("{groups} as norm_num_groups");
            f.wrong("attn_norm_num_groups", &expected, &json!(n));
        }
        _ => {}
    }
    let head_width = f.number("attention_head_dim", json!(8));
    let dropout = f.get("dropout", json!(0.0));
    let dropout = dropout.as_f64().unwrap_or_else(|| {
        f.wrong("dropout", "a number", &dropout);
        0.0
    });
    let size = f.get("sample_size", Value::Null);
    let side = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    let image_size = match size.as_array().map(Vec::as_slice) {
        Some([a, b]) if a == b => side(a),
        _ => side(&size),
    };
    if image_size.is_none() && !size.is_null() {
        f.wrong("sample_size", "one size, of square images", &size);
    }
    let known = &fields.known;
    let odd = settings.fields.iter().filter(|(field, value)| {
        !field.starts_with('_') && !known.contains(field.as_str()) && !value.is_null()
    });
    let odd: Vec<String> = odd
        .map(|(field, value)| {
            format!(
                "  {}: unsupported field, found {}",
                brief(field),
                brief(value)
            )
        })
        .collect();
    fields.problems.extend(odd.into_iter().take(20));
    if !fields.problems.is_empty() {
        return Err(problem(format!(
            "this UNet2DModel is not computed as an ADM network, the only supported kind\n{}",
            fields.problems.join("\n")
        )));
    }
    Ok(AdmConfig {
        image_size: image_size.unwrap_or(shapes.image_size),
        norm_groups: groups.unwrap_or(32),
        // Without a width there is one head.
        num_heads: 1,
        num_head_channels: head_width.unwrap_or(0),
        num_heads_upsample: 0,
        use_new_attention_order: false,
        dropout,
        ..shapes.clone()
    })
}

/// Whether a `config.json` has the size of the images.
pub(crate) fn says_size(settings: &Settings) -> bool {
    settings
        .fields
        .get("sample_size")
        .is_some_and(|size| !size.is_null())
}
