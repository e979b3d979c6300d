use crate::Process;
use crate::diffusers::Layout;
use crate::error::ModelError;
use crate::known::SMALLEST_KNOWN;
use crate::resolve::{MODEL_KEY, PROCESS_KEY, PROVENANCE_PREFIX, Resolved, hints, resolve};
use candle_core::{DType, Tensor};
use sdft_adm::{AdmConfig, Encoder, EncoderConfig, Origin, Unet};
use sdft_checkpoint::{Prefer, ReadOptions, StateDict, Summary, sha256_file, write_safetensors};
use sdft_nn::{Mismatch, ParamSpec, Params};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

type Shapes = BTreeMap<String, Vec<usize>>;

/// How a model file is read.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Fields of the architecture that the user gave, by name.
    pub given: Map<String, Value>,
    /// Fields of the process that the user gave, by name.
    pub given_process: Map<String, Value>,
    /// The part of the file to take where it holds several.
    pub key: Option<String>,
    /// Which weights to take where a file holds both.
    pub prefer: Prefer,
}

impl LoadOptions {
    fn read(&self) -> ReadOptions {
        ReadOptions {
            key: self.key.clone(),
            prefer: self.prefer,
            ..ReadOptions::default()
        }
    }
}

/// A U-Net's parameters and everything known about them.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// The architecture.
    pub config: AdmConfig,
    /// The diffusion process.
    pub process: Process,
    /// The weights, f32 on the CPU.
    pub params: Params,
    /// How each field of the architecture is known.
    pub origins: BTreeMap<&'static str, Origin>,
    /// SHA-256 of the file.
    pub sha256: String,
    /// What the user should know about how it was read.
    pub notes: Vec<String>,
}

impl LoadedModel {
    /// SHA-256 of the network itself, its architecture and its weights: the same for every file and part of a file that holds it.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn network_sha256(&self) -> Result<String, ModelError> {
        let problem = |problem: String| ModelError::Problem {
            path: "the network".into(),
            problem,
        };
        let config = serde_json::to_string(&self.config).map_err(|e| problem(e.to_string()))?;
        // Hashes of the parts, so that no second copy of the weights is made.
        let mut parts = config;
        for (name, tensor) in self.params.iter() {
            let values = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
            let values = values.map_err(|e| problem(format!("{name}: {e}")))?;
            let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
            let hash = sdft_checkpoint::sha256_bytes(&bytes);
            parts.push_str(&format!("\n{name} {hash}"));
        }
        Ok(sdft_checkpoint::sha256_bytes(parts.as_bytes()))
    }
}

/// Reads a U-Net.
///
/// # Errors
/// A file that cannot be read, that holds something else, or that does not fit its configuration completely.
pub fn load_unet(path: &Path, options: &LoadOptions) -> Result<LoadedModel, ModelError> {
    let state = sdft_checkpoint::read(path, &options.read())?;
    assemble(path, state, options, sha256_file(path)?)
}

/// Reads a U-Net from bytes in memory; `name` stands for the file in messages.
///
/// # Errors
/// As [`load_unet`].
pub fn load_unet_bytes(
    name: &str,
    bytes: &[u8],
    options: &LoadOptions,
) -> Result<LoadedModel, ModelError> {
    let state = sdft_checkpoint::read_bytes(name, bytes, &options.read())?;
    assemble(
        Path::new(name),
        state,
        options,
        sdft_checkpoint::sha256_bytes(bytes),
    )
}

/// Reads parameters from bytes in memory and fits them to `specs`.
///
/// # Errors
/// Bytes that are no weights, or that do not fit completely.
pub fn read_params_bytes(
    name: &str,
    bytes: &[u8],
    specs: &[ParamSpec],
) -> Result<Params, ModelError> {
    let state = sdft_checkpoint::read_bytes(name, bytes, &ReadOptions::default())?;
    let tensors = state.into_map().into_iter().collect();
    Params::fit(specs, tensors).map_err(|mismatch| ModelError::Misfit {
        path: name.into(),
        mismatch: Box::new(mismatch),
        hints: String::new(),
    })
}

/// All tensors as guidance has them.
fn tensors(
    path: &Path,
    entries: BTreeMap<String, Tensor>,
    config: &AdmConfig,
) -> Result<HashMap<String, Tensor>, ModelError> {
    let entries = match Layout::of(&entries) {
        Some(layout) => {
            let joined = layout.tensors(entries, config);
            joined.map_err(|e| ModelError::Problem {
                path: path.to_owned(),
                problem: format!("diffusers' layout: {e}"),
            })?
        }
        None => official(entries),
    };
    Ok(entries.into_iter().collect())
}

/// Names and shapes of all tensors as guidance has them.
fn official_shapes(entries: Shapes) -> Shapes {
    match Layout::of(&entries) {
        Some(layout) => layout.shapes(entries),
        None => official(entries),
    }
}

/// What should be known about a file in diffusers' layout, if it is one.
fn layout_note<T>(entries: &BTreeMap<String, T>) -> Option<String> {
    Layout::of(entries).map(|_| {
        "diffusers' layout, read by its names; the same network only if its time embedding has cosines first (flip_sin_to_cos, freq_shift 0) and its convolutions pad by 1 (downsample_padding)"
            .to_owned()
    })
}

/// The entries under guidance's names. EGSDE's classifiers keep their head under another than `out`, which takes its place.
fn official<T>(mut entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
    const THEIRS: &str = "I2Iout.";
    if entries.keys().any(|name| name.starts_with(THEIRS)) {
        entries.retain(|name, _| !name.starts_with("out."));
    }
    let named = entries.into_iter().map(|(name, entry)| {
        let leaf = name.strip_prefix(THEIRS).map(|leaf| format!("out.{leaf}"));
        (leaf.unwrap_or(name), entry)
    });
    named.collect()
}

fn assemble(
    path: &Path,
    state: StateDict,
    options: &LoadOptions,
    sha256: String,
) -> Result<LoadedModel, ModelError> {
    let shapes = official_shapes(state.shapes());
    let resolved = resolve(path, &shapes, &state.metadata, options, Some(&sha256))?;
    if let Some(pool) = resolved.pool {
        return Err(ModelError::Problem {
            path: path.to_owned(),
            problem: format!("this is a classifier ({pool:?} pool), a U-Net is needed"),
        });
    }
    let specs = Unet::specs(&resolved.config).map_err(|e| ModelError::Problem {
        path: path.to_owned(),
        problem: e.to_string(),
    })?;
    let mut notes = state.notes();
    let entries = state.into_map();
    notes.extend(layout_note(&entries));
    notes.extend(assumed(&resolved.origins));
    let Resolved {
        config,
        process,
        origins,
        ..
    } = resolved;
    match Params::fit(&specs, tensors(path, entries, &config)?) {
        Ok(params) => Ok(LoadedModel {
            config,
            process,
            params,
            origins,
            sha256,
            notes,
        }),
        Err(mismatch) => Err(ModelError::Misfit {
            path: path.to_owned(),
            mismatch: Box::new(mismatch),
            hints: hints(&config, &shapes),
        }),
    }
}

/// A classifier's parameters and everything known about them.
#[derive(Clone, Debug)]
pub struct LoadedEncoder {
    /// The architecture.
    pub config: EncoderConfig,
    /// The diffusion process whose noised images it knows.
    pub process: Process,
    /// The weights, f32 on the CPU.
    pub params: Params,
    /// How each field of the architecture is known.
    pub origins: BTreeMap<&'static str, Origin>,
    /// SHA-256 of the file.
    pub sha256: String,
    /// What the user should know about how it was read.
    pub notes: Vec<String>,
}

/// Reads a time-dependent classifier: this project's, guided-diffusion's, or EGSDE's.
///
/// # Errors
/// A file that cannot be read, that holds something else, or that does not fit its configuration completely.
pub fn load_encoder(path: &Path, options: &LoadOptions) -> Result<LoadedEncoder, ModelError> {
    let problem = |problem: String| ModelError::Problem {
        path: path.to_owned(),
        problem,
    };
    let state = sdft_checkpoint::read(path, &options.read())?;
    let sha256 = sha256_file(path)?;
    let shapes = official_shapes(state.shapes());
    let resolved = resolve(path, &shapes, &state.metadata, options, Some(&sha256))?;
    let Some(config) = resolved.encoder() else {
        return Err(problem("this is a U-Net, a classifier is needed".into()));
    };
    let specs = Encoder::specs(&config).map_err(|e| problem(e.to_string()))?;
    let mut notes = state.notes();
    notes.extend(assumed(&resolved.origins));
    match Params::fit(&specs, tensors(path, state.into_map(), &config.net)?) {
        Ok(params) => Ok(LoadedEncoder {
            config,
            process: resolved.process,
            params,
            origins: resolved.origins,
            sha256,
            notes,
        }),
        Err(mismatch) => Err(ModelError::Misfit {
            path: path.to_owned(),
            mismatch: Box::new(mismatch),
            hints: hints(&resolved.config, &shapes),
        }),
    }
}

/// What a file holds, without its numbers.
#[derive(Debug)]
pub struct Inspected {
    /// Container, tensors, metadata.
    pub summary: Summary,
    /// The network, or why it is not recognised.
    pub resolved: Result<Resolved, ModelError>,
    /// What does not fit the network, if anything.
    pub misfit: Option<Mismatch>,
}

/// Looks into a file without reading its numbers.
///
/// # Errors
/// A file that is no container of weights.
pub fn inspect_file(path: &Path, options: &LoadOptions) -> Result<Inspected, ModelError> {
    let summary = sdft_checkpoint::describe(path, &options.read())?;
    let shapes = official_shapes(
        summary
            .tensors
            .iter()
            .map(|t| (t.name.clone(), t.shape.clone()))
            .collect(),
    );
    let sha256 = if summary.file_size >= SMALLEST_KNOWN {
        Some(sha256_file(path)?)
    } else {
        None
    };
    let resolved = resolve(path, &shapes, &summary.metadata, options, sha256.as_deref());
    let misfit = resolved.as_ref().ok().and_then(|resolved| {
        let specs = match resolved.encoder() {
            Some(encoder) => Encoder::specs(&encoder),
            None => Unet::specs(&resolved.config),
        };
        let mismatch = Mismatch::between(&specs.ok()?, &shapes);
        (!mismatch.is_empty()).then_some(mismatch)
    });
    Ok(Inspected {
        summary,
        resolved,
        misfit,
    })
}

/// Writes a U-Net with its configuration and how it came to be; `dtype` none writes f32.
///
/// # Errors
/// Whatever the file system refuses; what was at `path` before stays.
pub fn save_unet(
    path: &Path,
    config: &AdmConfig,
    process: &Process,
    params: &Params,
    provenance: &BTreeMap<String, String>,
    dtype: Option<DType>,
) -> Result<(), ModelError> {
    let metadata = unet_metadata(config, process, provenance)?;
    write_safetensors(path, params.iter(), &metadata, dtype)?;
    Ok(())
}

/// What a file of a U-Net says about itself in its metadata.
///
/// # Errors
/// Never in practice.
pub fn unet_metadata(
    config: &AdmConfig,
    process: &Process,
    provenance: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ModelError> {
    metadata("unet", config, process, provenance)
}

/// What a file of a classifier says about itself in its metadata; its pool is seen in the names of its tensors.
///
/// # Errors
/// Never in practice.
pub fn encoder_metadata(
    config: &EncoderConfig,
    process: &Process,
    provenance: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ModelError> {
    metadata("classifier", &config.net, process, provenance)
}

fn metadata(
    kind: &str,
    config: &AdmConfig,
    process: &Process,
    provenance: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ModelError> {
    let json = |value: serde_json::Result<String>| {
        value.map_err(|e| ModelError::Problem {
            path: "metadata".into(),
            problem: e.to_string(),
        })
    };
    let mut metadata = BTreeMap::from([
        ("sdft.kind".to_owned(), kind.to_owned()),
        (MODEL_KEY.to_owned(), json(serde_json::to_string(config))?),
        (
            PROCESS_KEY.to_owned(),
            json(serde_json::to_string(process))?,
        ),
    ]);
    metadata.extend(
        provenance
            .iter()
            .map(|(key, value)| (format!("{PROVENANCE_PREFIX}{key}"), value.clone())),
    );
    Ok(metadata)
}

/// Turns any readable file into `.safetensors`, with the configuration in its metadata where the network is recognised.
/// Returns what the user should know.
///
/// # Errors
/// A file that cannot be read or written.
pub fn convert_file(
    input: &Path,
    output: &Path,
    options: &LoadOptions,
    dtype: Option<DType>,
) -> Result<Vec<String>, ModelError> {
    let state = sdft_checkpoint::read(
        input,
        &ReadOptions {
            keep_dtype: true,
            ..options.read()
        },
    )?;
    let sha256 = sha256_file(input)?;
    let mut notes = state.notes();
    let shapes = official_shapes(state.shapes());
    let mut as_adm = None;
    let mut all = match resolve(input, &shapes, &state.metadata, options, Some(&sha256)) {
        Ok(resolved) => {
            let fits = match Unet::specs(&resolved.config) {
                Ok(specs) if resolved.pool.is_none() => {
                    Mismatch::between(&specs, &shapes).is_empty()
                }
                _ => false,
            };
            if fits {
                notes.extend(assumed(&resolved.origins));
                as_adm = Some(resolved.config.clone());
                unet_metadata(&resolved.config, &resolved.process, &BTreeMap::new())?
            } else {
                notes.push(
                    "no configuration written: the tensors are not those of a U-Net".to_owned(),
                );
                BTreeMap::new()
            }
        }
        Err(conflict @ ModelError::Conflict { .. }) => return Err(conflict),
        Err(problem) => {
            notes.push(format!("no configuration written: {problem}"));
            BTreeMap::new()
        }
    };
    all.extend(
        state
            .metadata
            .iter()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    all.insert(
        format!("{PROVENANCE_PREFIX}converted_from"),
        input
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    );
    all.insert(format!("{PROVENANCE_PREFIX}converted_sha256"), sha256);
    let mut entries = state.into_map();
    if let (Some(note), Some(config)) = (layout_note(&entries), as_adm) {
        notes.push(note);
        entries = tensors(input, entries, &config)?.into_iter().collect();
    }
    if dtype == Some(DType::F16) {
        for (name, tensor) in entries
            .iter()
            .filter(|(_, t)| t.dtype().is_float() && t.elem_count() > 0)
        {
            let largest = tensor
                .to_dtype(DType::F64)?
                .abs()?
                .max_all()?
                .to_scalar::<f64>()?;
            if largest.is_finite() && largest > f64::from(half::f16::MAX) {
                let problem =
                    format!("{name} holds {largest:e}, beyond the range of f16; take bf16 or f32");
                return Err(ModelError::Problem {
                    path: output.to_owned(),
                    problem,
                });
            }
        }
    }
    let entries = entries.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_safetensors(output, entries, &all, dtype)?;
    Ok(notes)
}

/// A sentence about fields that nothing shows, if there are any that matter.
fn assumed(origins: &BTreeMap<&'static str, Origin>) -> Option<String> {
    let matters = [
        "image_size",
        "norm_groups",
        "num_head_channels",
        "use_new_attention_order",
    ];
    let fields: Vec<&str> = matters
        .into_iter()
        .filter(|field| origins.get(field) == Some(&Origin::Assumed))
        .collect();
    let list = fields.join(", ");
    (!fields.is_empty()).then(|| format!("nothing in the file shows {list}; ADM's defaults are assumed (--set model.FIELD=VALUE changes them)"))
}
