use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::input::Input;
use crate::select::{Prefer, candidates, choose};
use crate::tensors::Place;
use crate::{safetensors_file, torch};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// How a file is read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The part to take, as a dotted path; chosen by `prefer` if not given.
    pub key: Option<String>,
    /// Which weights to take where a file holds both.
    pub prefer: Prefer,
    /// Keep f16, bf16 and f64 instead of reading everything as f32.
    pub keep_dtype: bool,
}

/// The kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// PyTorch, zip archive.
    TorchZip,
    /// PyTorch before 1.6.
    TorchLegacy,
    /// safetensors.
    Safetensors,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TorchZip => "PyTorch (zip)",
            Self::TorchLegacy => "PyTorch (legacy)",
            Self::Safetensors => "safetensors",
        })
    }
}

/// One tensor of a file, without its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The type of its numbers in the file.
    pub dtype: Dtype,
}

/// What a file holds, without its numbers.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The kind of file.
    pub container: Container,
    /// Its length in bytes.
    pub file_size: u64,
    /// The part that was taken, if the weights are not at the top.
    pub nested_under: Option<String>,
    /// Other parts that hold tensors.
    pub alternatives: Vec<String>,
    /// Whether `module.` was taken off every name (`DataParallel`).
    pub unwrapped: bool,
    /// Names of Python objects in the file that were not made, because that would mean executing it.
    pub opaque: Vec<String>,
    /// All tensors, in the order of the file.
    pub tensors: Vec<TensorInfo>,
    /// Number of scalars in floating-point tensors.
    pub n_parameters: u64,
    /// How many tensors there are of each type.
    pub dtypes: BTreeMap<Dtype, usize>,
    /// safetensors' metadata.
    pub metadata: BTreeMap<String, String>,
}

/// Named tensors from a file, on the CPU, in the order of the file.
#[derive(Clone, Debug)]
pub struct StateDict {
    entries: Vec<(String, Tensor)>,
    /// safetensors' metadata.
    pub metadata: BTreeMap<String, String>,
    /// Everything else about the file.
    pub summary: Summary,
}

impl StateDict {
    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, tensor)| tensor)
    }

    /// Names and tensors, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.entries
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Shapes by name.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.iter()
            .map(|(name, tensor)| (name.to_owned(), tensor.dims().to_vec()))
            .collect()
    }

    /// The tensors by name.
    pub fn into_map(self) -> BTreeMap<String, Tensor> {
        self.entries.into_iter().collect()
    }

    /// Sentences about choices that were made in reading.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let (Some(taken), false) = (
            &self.summary.nested_under,
            self.summary.alternatives.is_empty(),
        ) {
            notes.push(format!(
                "took the weights under {taken:?}; there are also {}",
                self.summary.alternatives.join(", ")
            ));
        }
        notes
    }
}

/// Named places of tensors, and the summary.
struct Opened {
    places: Vec<(String, Place)>,
    summary: Summary,
}

/// Reads the weights in a `.pt`, `.pth` or `.safetensors` file; the kind is told by the content. Nothing in the file is executed.
///
/// # Errors
/// No such file; no weights in it; a damaged or hostile one. The message names the file, what was expected and what was found.
pub fn read(path: &Path, options: &ReadOptions) -> Result<StateDict> {
    load(&mut Input::open(path)?, options)
}

/// As [`read`], from bytes in memory; `name` stands for the file in messages.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(name: &str, bytes: &[u8], options: &ReadOptions) -> Result<StateDict> {
    load(&mut Input::bytes(name, bytes), options)
}

/// What a file holds, without reading its numbers.
///
/// # Errors
/// As [`read`].
pub fn describe(path: &Path, options: &ReadOptions) -> Result<Summary> {
    Ok(open(&mut Input::open(path)?, options)?.summary)
}

fn load(input: &mut Input<'_>, options: &ReadOptions) -> Result<StateDict> {
    let Opened { places, summary } = open(input, options)?;
    let mut entries = Vec::with_capacity(places.len());
    for (name, place) in places {
        entries.push((name, place.read(input, options.keep_dtype)?));
    }
    Ok(StateDict {
        entries,
        metadata: summary.metadata.clone(),
        summary,
    })
}

fn open(input: &mut Input<'_>, options: &ReadOptions) -> Result<Opened> {
    let container = detect(input)?;
    let mut nested_under = None;
    let mut alternatives = Vec::new();
    let mut opaque = Vec::new();
    let mut metadata = BTreeMap::new();
    let mut places = if container == Container::Safetensors {
        let (places, found) = safetensors_file::read(input)?;
        metadata = found;
        if let Some(key) = &options.key {
            let available = "its tensors at the top only".to_owned();
            return Err(Error::Key {
                path: input.path.clone(),
                key: key.clone(),
                available,
            });
        }
        places
    } else {
        let file = if container == Container::TorchZip {
            torch::read_zip(input)?
        } else {
            torch::read_legacy(input)?
        };
        opaque = file.pickle.opaque.iter().map(ToString::to_string).collect();
        let mut found = candidates(&file.pickle);
        let names: Vec<String> = found.iter().map(|c| c.path.clone()).collect();
        let chosen = match &options.key {
            Some(key) => names.iter().position(|name| name == key).ok_or_else(|| {
                let list: Vec<String> = found
                    .iter()
                    .map(|c| format!("{:?} ({} tensors)", c.path, c.tensors.len()))
                    .collect();
                Error::Key {
                    path: input.path.clone(),
                    key: key.clone(),
                    available: list.join(", "),
                }
            })?,
            None => choose(&found, options.prefer).ok_or_else(|| {
                let calls = if opaque.is_empty() {
                    String::new()
                } else {
                    format!(
                        "; it holds objects that would have to be executed to be known: {}",
                        opaque.join(", ")
                    )
                };
                input.bad(format!(
                    "expected a dictionary of tensors, found none{calls}"
                ))
            })?,
        };
        let candidate = found.swap_remove(chosen);
        if !candidate.path.is_empty() {
            nested_under = Some(candidate.path.clone());
        }
        alternatives = names
            .into_iter()
            .filter(|name| *name != candidate.path)
            .collect();
        let mut places = Vec::with_capacity(candidate.tensors.len());
        for (name, view) in candidate.tensors {
            let Some(entry) = file.storages.get(&view.storage.key) else {
                return Err(input.bad(format!(
                    "{name}: its storage {} is missing",
                    view.storage.key
                )));
            };
            let dtype = view.storage.dtype;
            if view
                .storage
                .numel
                .checked_mul(dtype.size())
                .is_none_or(|bytes| bytes > entry.len)
            {
                return Err(input.bad(format!(
                    "{name}: {} numbers were promised, the file holds {} bytes",
                    view.storage.numel, entry.len
                )));
            }
            let numel = view.storage.numel;
            places.push((
                name,
                Place {
                    dtype,
                    start: entry.start,
                    numel,
                    offset: view.offset,
                    shape: view.shape,
                    strides: view.strides,
                },
            ));
        }
        places
    };
    check(input, &places)?;
    let unwrapped =
        !places.is_empty() && places.iter().all(|(name, _)| name.starts_with("module."));
    if unwrapped {
        for (name, _) in &mut places {
            name.drain(.."module.".len());
        }
    }
    let mut dtypes = BTreeMap::new();
    for (_, place) in &places {
        *dtypes.entry(place.dtype).or_insert(0) += 1;
    }
    let tensors: Vec<TensorInfo> = places
        .iter()
        .map(|(name, place)| TensorInfo {
            name: name.clone(),
            shape: place.shape.clone(),
            dtype: place.dtype,
        })
        .collect();
    let n_parameters = places
        .iter()
        .filter(|(_, p)| p.dtype.is_float())
        .filter_map(|(_, p)| p.elements())
        .sum();
    let summary = Summary {
        container,
        file_size: input.len,
        nested_under,
        alternatives,
        unwrapped,
        opaque,
        tensors,
        n_parameters,
        dtypes,
        metadata,
    };
    Ok(Opened { places, summary })
}

/// Every tensor lies in the file, no name is there twice, and together they are not much larger than the file.
fn check(input: &Input<'_>, places: &[(String, Place)]) -> Result<()> {
    let mut total = 0u64;
    let mut names = std::collections::HashSet::new();
    for (name, place) in places {
        place.check(input, name)?;
        total = total.saturating_add(
            place
                .elements()
                .unwrap_or(u64::MAX)
                .saturating_mul(place.dtype.size()),
        );
        if !names.insert(name.as_str()) {
            return Err(input.bad(format!("{name} is there twice")));
        }
    }
    // Tensors may share numbers, but a small file must not become a large network.
    if total > input.len.saturating_mul(4) {
        return Err(input.bad(format!(
            "the tensors take {total} bytes, the file has {}",
            input.len
        )));
    }
    Ok(())
}

fn detect(input: &mut Input<'_>) -> Result<Container> {
    if input.len == 0 {
        return Err(input.bad("the file is empty"));
    }
    let head = input.range(0, input.len.min(512))?;
    let starts = |magic: &[u8]| head.starts_with(magic);
    if starts(b"PK\x03\x04") {
        return Ok(Container::TorchZip);
    }
    if starts(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") {
        return Ok(Container::TorchLegacy);
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let text = text.trim_start();
    let problem = if text.starts_with("version https://git-lfs") {
        "this is a Git LFS pointer, not the weights: fetch the file itself (git lfs pull)"
    } else if text.starts_with("<!doctype") || text.starts_with("<html") {
        "this is a web page, not the weights: the download went to an error or log-in page"
    } else if starts(b"\x1f\x8b") {
        "this is a gzip archive; unpack it first"
    } else if head.get(257..262) == Some(b"ustar") {
        "this is a tar archive; unpack it first"
    } else {
        let mut length = [0; 8];
        if head.len() > 8 {
            length.copy_from_slice(&head[..8]);
            let length = u64::from_le_bytes(length);
            let fits = length <= safetensors_file::MOST_HEADER && head[8] == b'{';
            if fits && 8 + length <= input.len {
                return Ok(Container::Safetensors);
            }
            if fits {
                return Err(input.bad(format!("a safetensors file of which the header alone should take {length} bytes: the file is cut off")));
            }
        }
        if starts(b"\x80") {
            "this is a bare pickle, not a PyTorch checkpoint"
        } else {
            "expected a PyTorch checkpoint (.pt, .pth) or a .safetensors file, found something else"
        }
    };
    Err(input.bad(problem))
}
