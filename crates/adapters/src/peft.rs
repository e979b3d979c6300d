//! peft's folders: `adapter_config.json` and `adapter_model.safetensors`.

use crate::config::{AdapterConfig, AdapterKind};
use crate::error::{Error, Result};
use crate::file::{Adapter, named};
use crate::layers::layer_of_factor;
use sdft_checkpoint::{ReadOptions, read as read_weights, write_safetensors};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// The longest configuration that is read, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// Fields that change what an adapter computes; others than these values are refused.
fn supported() -> [(&'static str, Vec<Value>); 14] {
    let unset = || vec![Value::Null, json!(false), json!({}), json!([])];
    [
        ("peft_type", vec![json!("LORA")]),
        ("bias", vec![json!("none"), Value::Null]),
        ("alpha_pattern", unset()),
        ("fan_in_fan_out", unset()),
        ("layer_replication", unset()),
        ("lora_bias", unset()),
        ("modules_to_save", unset()),
        ("rank_pattern", unset()),
        ("target_parameters", unset()),
        ("trainable_token_indices", unset()),
        ("use_bdlora", unset()),
        ("use_dora", unset()),
        ("use_qalora", unset()),
        ("alora_invocation_tokens", unset()),
    ]
}

/// The folder, if this is one in peft's layout or the weights in it.
pub(crate) fn folder_of(path: &Path) -> Option<&Path> {
    let folder = match path.is_dir() {
        true => path,
        false => path.parent().filter(|_| path.ends_with(WEIGHTS))?,
    };
    folder.join(CONFIG).is_file().then_some(folder)
}

/// Reads a LoRA in peft's layout.
///
/// # Errors
/// Files that cannot be read, settings that are not supported, or tensors that are not LoRA's.
pub(crate) fn read(folder: &Path) -> Result<Adapter> {
    let path = folder.join(CONFIG);
    let bad = |problem: String| Error::file(&path, problem);
    let length = std::fs::metadata(&path).map_err(|e| bad(e.to_string()))?;
    if length.len() > MOST_BYTES {
        return Err(bad(format!(
            "expected at most {MOST_BYTES} bytes, found more"
        )));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| bad(e.to_string()))?;
    let fields: Map<String, Value> = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    for (field, values) in supported() {
        let found = fields.get(field).unwrap_or(&Value::Null);
        if !values.contains(found) {
            return Err(bad(format!(
                "{field}: expected {}, found {found}",
                values[0]
            )));
        }
    }
    let rank = fields.get("r").and_then(Value::as_u64);
    let alpha = fields.get("lora_alpha").and_then(Value::as_f64);
    let (Some(rank), Some(alpha)) = (rank.and_then(|r| usize::try_from(r).ok()), alpha) else {
        return Err(bad("expected the numbers r and lora_alpha".to_owned()));
    };
    let config = AdapterConfig {
        kind: AdapterKind::Lora,
        rank: Some(rank),
        alpha: Some(alpha),
        rank_stabilised: fields.get("use_rslora") == Some(&Value::Bool(true)),
        ..AdapterConfig::default()
    };
    config.check().map_err(|error| bad(error.to_string()))?;
    let path = folder.join(WEIGHTS);
    let tensors = named(read_weights(&path, &ReadOptions::default())?);
    match tensors.keys().find(|name| layer_of_factor(name).is_none()) {
        Some(name) => Err(Error::file(
            path,
            format!("expected tensors lora_A.weight and lora_B.weight, found {name}"),
        )),
        None => Ok(Adapter {
            path,
            config,
            base_sha256: None,
            tensors,
        }),
    }
}

/// Writes a LoRA as the folder that `peft.PeftModel.from_pretrained` loads.
///
/// # Errors
/// - [`Error::File`] for an adapter of another kind, which peft has no layout for
/// - the file system fails
pub fn write_peft(folder: &Path, adapter: &Adapter) -> Result<()> {
    let config = &adapter.config;
    if config.kind != AdapterKind::Lora {
        return Err(Error::file(
            &adapter.path,
            format!("peft's layout is for LoRA, found {config}"),
        ));
    }
    let layers = adapter
        .tensors()
        .filter_map(|(name, _)| layer_of_factor(name));
    let layers: BTreeSet<&str> = layers.map(|(layer, _)| layer).collect();
    let rank = config.rank();
    let fields = json!({
        "peft_type": "LORA",
        "base_model_name_or_path": null,
        "task_type": null,
        "inference_mode": true,
        "r": rank,
        "lora_alpha": config.alpha.unwrap_or(rank as f64),
        "use_rslora": config.rank_stabilised,
        "target_modules": layers,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
    });
    std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error.to_string()))?;
    let path = folder.join(CONFIG);
    // A map of numbers and texts always has JSON.
    let text = serde_json::to_string_pretty(&fields).unwrap_or_default();
    let written = sdft_files::write_atomic(&path, text.as_bytes());
    written.map_err(|error| Error::file(&path, error.to_string()))?;
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(&folder.join(WEIGHTS), adapter.tensors(), &metadata, None)?;
    Ok(())
}
