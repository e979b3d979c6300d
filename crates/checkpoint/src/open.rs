//! Opens a file, selects the weights in it, and reads their numbers.

use crate::detect::detect;
use crate::dtype::Dtype;
use crate::error::{Error, Problem, Result};
use crate::finite::{self, NonFinite};
use crate::input::Input;
use crate::inventory::{Dict, Entry, Inventory};
use crate::module::{CONSTRUCTOR_KEY, constructor};
use crate::parts::Tensors;
use crate::pickle::Node;
use crate::select::take;
use crate::short::{list, short};
use crate::state::{Container, ReadOptions, StateDict, Summary, TensorInfo};
use crate::tensors::{Reader, TensorLocation};
use crate::torch::TorchFile;
use crate::{safetensors_file, shards, torch};
use candle_core::DType;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// The longest name of a tensor.
const MOST_NAME: usize = 1024;
/// Memory of a tensor in addition to its numbers, in bytes.
const TENSOR: u64 = 512;

/// Reads the weights in a `.pt`, `.pth`, `.pkl` or `.safetensors` file, or in the files of an index (`.index.json`). The content determines the
/// kind of file. Nothing in it is executed.
///
/// # Errors
/// The file is missing, has no weights, is damaged or hostile, or has values that are NaN or infinite. The message has the file, what
/// was expected and what was found.
pub fn read(path: &Path, options: &ReadOptions) -> Result<StateDict> {
    Opened::at(path, options)?.load(options)
}

/// Like [`read`], from bytes in memory; messages call them `name`.
///
/// # Errors
/// Those of [`read`].
pub fn read_bytes(name: &str, bytes: &[u8], options: &ReadOptions) -> Result<StateDict> {
    Opened::new(Input::bytes(name, bytes), options)?.load(options)
}

/// The contents of a file, without its numbers.
///
/// # Errors
/// Those of [`read`].
pub fn describe(path: &Path, options: &ReadOptions) -> Result<Summary> {
    Ok(Opened::at(path, options)?.summary)
}

/// Reads all numbers of the weights without keeping them: compares checksums where the file has them, and returns the tensors with values
/// that are not finite.
///
/// # Errors
/// Those of [`read`].
pub fn scan(path: &Path, options: &ReadOptions) -> Result<Vec<NonFinite>> {
    let mut opened = Opened::at(path, options)?;
    let mut found = Vec::new();
    opened.each(options, |reader, name, place| {
        let census = reader.scan(name, place)?;
        found.extend(census.of(name, place.elements().unwrap_or(0)));
        Ok(())
    })?;
    Ok(found)
}

/// Open files, the locations of the weights in them (with the index of the file), and the summary.
pub(crate) struct Opened<'a> {
    inputs: Vec<Input<'a>>,
    places: Vec<(String, usize, TensorLocation)>,
    /// The number that is read in addition.
    number: Option<(&'static str, usize, TensorLocation)>,
    summary: Summary,
}

impl Opened<'static> {
    fn at(path: &Path, options: &ReadOptions) -> Result<Self> {
        Self::new(Input::open(path)?, options)
    }
}

impl<'a> Opened<'a> {
    fn new(mut input: Input<'a>, options: &ReadOptions) -> Result<Self> {
        let container = detect(&mut input)?;
        let path = input.path.clone();
        let mut inputs = vec![input];
        let mut found = Inventory::default();
        let contents = match container {
            Container::TorchZip | Container::TorchLegacy | Container::Pickle => {
                let file = torch::read(&mut inputs[0], container)?;
                let networks = (container == Container::Pickle).then_some(inputs[0].len);
                found = Inventory::in_pickle(&file.pickle, networks);
                Contents::Torch(file)
            }
            Container::Safetensors => {
                let contents = safetensors_file::read(&mut inputs[0])?;
                let all = contents.tensors.into_iter();
                let all = all.map(|(name, place)| (name, 0, place)).collect();
                flat(&mut found, all, contents.metadata)
            }
            Container::Shards => {
                let (files, all) = shards::read(&mut inputs[0])?;
                inputs = files;
                flat(&mut found, all, BTreeMap::new())
            }
        };
        let first = &inputs[0];
        if let Some(Problem(problem)) = &found.problem {
            return Err(first.bad(format!("damaged network: {problem}")));
        }
        if container == Container::Pickle && found.dicts.is_empty() {
            return Err(contents.explained(first.bad(
                "this is a bare pickle without tensors; expected a PyTorch checkpoint, a snapshot of a network, or safetensors",
            )));
        }
        let taken = take(
            first,
            &found,
            &contents,
            options.key.as_deref(),
            options.prefer,
            options.wanted.as_ref(),
        )
        .map_err(|error| contents.explained(error))?;
        let file_size = inputs.iter().map(|input| input.len).sum();
        let places = places(&path, &inputs, file_size, &taken.part.tensors, &contents)?;
        check(&path, file_size, &places, options.keep_dtype)?;
        let number = number(&inputs, &found, taken.part.dict, &contents, options.number)?;
        let constructor = contents
            .constructor(&found, &taken.part.container)
            .map_err(|Problem(problem)| inputs[0].bad(format!("damaged network: {problem}")))?;
        let mut notes = taken.notes;
        notes.extend(contents.unchecked(&places));
        let summary = Summary {
            container,
            file_size,
            nested_under: taken.nested_under,
            alternatives: taken.alternatives,
            left_out: taken.left_out,
            prefix: taken.part.prefix,
            notes,
            opaque: contents.opaque(),
            tensors: places.iter().map(info).collect(),
            n_parameters: n_parameters(&places),
            dtypes: dtypes(&places),
            metadata: contents.metadata(constructor),
        };
        Ok(Self {
            inputs,
            places,
            number,
            summary,
        })
    }

    /// Visits the tensors of every file in turn.
    fn each(
        &mut self,
        options: &ReadOptions,
        mut visit: impl FnMut(&mut Reader<'_, 'a>, &str, &TensorLocation) -> Result<()>,
    ) -> Result<()> {
        for (file, input) in self.inputs.iter_mut().enumerate() {
            let mut reader = Reader::new(input, options.keep_dtype);
            for (name, _, place) in self.places.iter().filter(|(_, of, _)| *of == file) {
                visit(&mut reader, name, place)?;
            }
        }
        Ok(())
    }

    fn load(mut self, options: &ReadOptions) -> Result<StateDict> {
        let mut entries = Vec::with_capacity(self.places.len());
        let mut odd = Vec::new();
        self.each(options, |reader, name, place| {
            let (tensor, census) = reader.read(name, place)?;
            odd.extend(census.of(name, place.elements().unwrap_or(0)));
            entries.push((name.to_owned(), tensor));
            Ok(())
        })?;
        if !odd.is_empty() && !options.allow_non_finite {
            return Err(Error::NotFinite {
                path: self.summary_path(),
                lines: finite::lines(&odd),
                advice: match self.summary.alternatives.as_slice() {
                    [] => "take an earlier checkpoint".to_owned(),
                    others => format!(
                        "take another part of it (--key {}), an earlier checkpoint",
                        list(others, 3)
                    ),
                },
                tensors: odd,
            });
        }
        Ok(StateDict {
            number: self.read_number()?,
            entries,
            summary: self.summary,
        })
    }

    /// The number that is read in addition: the shortest decimal of its f32.
    fn read_number(&mut self) -> Result<Option<f64>> {
        let Some((name, file, place)) = &self.number else {
            return Ok(None);
        };
        let (tensor, _) = Reader::new(&mut self.inputs[*file], false).read(name, place)?;
        let value = tensor.to_dtype(DType::F32)?.flatten_all()?.get(0)?;
        let value = value.to_scalar::<f32>()?;
        match value.is_finite() {
            true => Ok(value.to_string().parse().ok()),
            false => {
                Err(self.inputs[*file].bad(format!("{name}: expected a number, found {value}")))
            }
        }
    }

    fn summary_path(&self) -> PathBuf {
        self.inputs[0].path.clone()
    }
}

/// The tensors of a file, by index.
enum Contents {
    Torch(TorchFile),
    Flat(Vec<(usize, TensorLocation)>, BTreeMap<String, String>),
}

/// The contents of a file that is a single dictionary.
fn flat(
    found: &mut Inventory,
    all: Vec<(String, usize, TensorLocation)>,
    metadata: BTreeMap<String, String>,
) -> Contents {
    let mut entries = Vec::with_capacity(all.len());
    let mut places = Vec::with_capacity(all.len());
    for (name, file, place) in all {
        entries.push(Entry {
            name: name.into(),
            tensor: places.len(),
        });
        places.push((file, place));
    }
    found.is_flat = true;
    found.dicts.push(Dict {
        path: String::new(),
        entries,
    });
    Contents::Flat(places, metadata)
}

impl Tensors for Contents {
    fn shape(&self, tensor: usize) -> &[usize] {
        match self {
            Self::Torch(file) => match file.pickle.nodes.get(tensor) {
                Some(Node::Tensor(view)) => &view.shape,
                _ => &[],
            },
            Self::Flat(places, _) => places.get(tensor).map_or(&[], |(_, place)| &place.shape),
        }
    }

    fn is_float(&self, tensor: usize) -> bool {
        match self {
            Self::Torch(file) => match file.pickle.nodes.get(tensor) {
                Some(Node::Tensor(view)) => view.storage.dtype.is_float(),
                _ => false,
            },
            Self::Flat(places, _) => places
                .get(tensor)
                .is_some_and(|(_, place)| place.dtype.is_float()),
        }
    }
}

impl Contents {
    /// The index of the file and the location of a tensor, or the problem with it.
    fn place(&self, tensor: usize) -> std::result::Result<(usize, TensorLocation), Problem> {
        let file = match self {
            Self::Flat(places, _) => {
                return places
                    .get(tensor)
                    .cloned()
                    .ok_or_else(|| "no tensor".into());
            }
            Self::Torch(file) => file,
        };
        Ok((0, file.place(tensor)?))
    }

    fn opaque(&self) -> Vec<String> {
        match self {
            Self::Torch(file) => file.pickle.opaque.iter().map(|name| short(name)).collect(),
            Self::Flat(..) => Vec::new(),
        }
    }

    /// The constructor of the network at this path.
    fn constructor(
        &self,
        found: &Inventory,
        path: &str,
    ) -> std::result::Result<Option<String>, Problem> {
        let network = found.networks.iter().find(|(known, _)| known == path);
        match (self, network) {
            (Self::Torch(file), Some((_, network))) => constructor(&file.pickle, network),
            _ => Ok(None),
        }
    }

    fn metadata(self, constructor: Option<String>) -> BTreeMap<String, String> {
        match self {
            Self::Flat(_, metadata) => metadata,
            Self::Torch(_) => constructor
                .map(|constructor| (CONSTRUCTOR_KEY.to_owned(), constructor))
                .into_iter()
                .collect(),
        }
    }

    /// Adds the Python objects that may hold weights to an error about missing weights.
    fn explained(&self, error: Error) -> Error {
        let opaque = self.opaque();
        match error {
            Error::Format { path, problem } if !opaque.is_empty() => Error::Format {
                path,
                problem: format!(
                    "{problem}; it holds objects that would have to be executed to be known: {}",
                    list(&opaque, 10)
                ),
            },
            error => error,
        }
    }

    /// A note if the archive has no checksums.
    fn unchecked(&self, places: &[(String, usize, TensorLocation)]) -> Option<String> {
        let Self::Torch(TorchFile { archive: true, .. }) = self else {
            return None;
        };
        let without = |(_, _, place): &&(String, usize, TensorLocation)| {
            place.entry.is_none() && place.elements() != Some(0)
        };
        let n = places.iter().filter(without).count();
        (n > 0).then(|| {
            format!(
                "the archive has no checksums for {n} of {} tensors, so damage would not show",
                places.len()
            )
        })
    }
}

/// The location of the number `name` in the dictionary of the weights, if it is there.
fn number(
    inputs: &[Input<'_>],
    found: &Inventory,
    dict: Option<usize>,
    contents: &Contents,
    name: Option<&'static str>,
) -> Result<Option<(&'static str, usize, TensorLocation)>> {
    let (Some(name), Some(dict)) = (name, dict.and_then(|dict| found.dicts.get(dict))) else {
        return Ok(None);
    };
    let Some(entry) = dict.entries.iter().find(|entry| *entry.name == *name) else {
        return Ok(None);
    };
    let (file, place) = contents
        .place(entry.tensor)
        .map_err(|Problem(problem)| inputs[0].bad(format!("{name}: {problem}")))?;
    place.check(&inputs[file], name)?;
    match place.elements() {
        Some(1) => Ok(Some((name, file, place))),
        _ => Err(inputs[file].bad(format!(
            "{name}: expected one number, found the shape {:?}",
            place.shape
        ))),
    }
}

/// The locations of the tensors of a part.
fn places(
    path: &Path,
    inputs: &[Input<'_>],
    file_size: u64,
    tensors: &[crate::parts::Named],
    contents: &Contents,
) -> Result<Vec<(String, usize, TensorLocation)>> {
    let bad = |problem: String| Error::Format {
        path: path.to_owned(),
        problem,
    };
    if (tensors.len() as u64).saturating_mul(TENSOR) > (16 << 20) + 4 * file_size {
        return Err(bad(format!(
            "{} tensors in a file of {file_size} bytes",
            tensors.len()
        )));
    }
    let mut names = HashSet::with_capacity(tensors.len());
    let mut out = Vec::with_capacity(tensors.len());
    for named in tensors {
        let name = named.name();
        if name.len() > MOST_NAME {
            return Err(bad(format!(
                "a tensor's name of {} bytes: {}",
                name.len(),
                short(name)
            )));
        }
        if !names.insert(name) {
            return Err(bad(format!("{name} occurs twice")));
        }
        let (file, place) = contents
            .place(named.tensor)
            .map_err(|problem| bad(format!("{}: {problem}", short(name))))?;
        place.check(&inputs[file], name)?;
        out.push((name.to_owned(), file, place));
    }
    Ok(out)
}

/// Fails if the tensors together are much larger than the file.
fn check(
    path: &Path,
    file_size: u64,
    places: &[(String, usize, TensorLocation)],
    keep: bool,
) -> Result<()> {
    // Tensors may share numbers, but a small file must not become a large network, nor be read over and over.
    let all = |bytes: &dyn Fn(&TensorLocation) -> u64| {
        let bytes = places.iter().map(|(_, _, place)| bytes(place));
        bytes.fold(0u64, u64::saturating_add)
    };
    let most = file_size.saturating_mul(8).saturating_add(1 << 16);
    let (made, read) = (
        all(&|place| place.bytes_made(keep)),
        all(&|place| place.bytes_read()),
    );
    if made.max(read) > most {
        return Err(Error::Format {
            path: path.to_owned(),
            problem: format!(
                "the tensors take {} bytes, the file has {file_size}",
                made.max(read)
            ),
        });
    }
    Ok(())
}

fn info((name, _, place): &(String, usize, TensorLocation)) -> TensorInfo {
    TensorInfo {
        name: name.clone(),
        shape: place.shape.clone(),
        dtype: place.dtype,
    }
}

fn n_parameters(places: &[(String, usize, TensorLocation)]) -> u64 {
    let floats = places.iter().filter(|(_, _, place)| place.dtype.is_float());
    floats.filter_map(|(_, _, place)| place.elements()).sum()
}

fn dtypes(places: &[(String, usize, TensorLocation)]) -> BTreeMap<Dtype, usize> {
    let mut dtypes = BTreeMap::new();
    for (_, _, place) in places {
        *dtypes.entry(place.dtype).or_insert(0) += 1;
    }
    dtypes
}
