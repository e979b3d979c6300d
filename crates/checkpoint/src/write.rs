use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Writes a file aside, flushes it to the disk and renames it, so that at any moment the old or the new one is there, whole.
fn atomically(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    // A rename would put a file in the place of a device or pipe.
    if std::fs::metadata(path).is_ok_and(|old| !old.is_file()) {
        let odd = std::io::Error::other("it is there and is no regular file");
        return Err(io("cannot be written", path)(odd));
    }
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let aside = path.with_file_name(format!(".{name}.{}-{number}.tmp", std::process::id()));
    let write = || {
        let file = File::create(&aside).map_err(io("cannot be written", path))?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        fill(&mut out)?;
        let file = out
            .into_inner()
            .map_err(|e| io("cannot be written", path)(e.into_error()))?;
        file.sync_all()
            .map_err(io("cannot be flushed to the disk", path))?;
        std::fs::rename(&aside, path).map_err(io("cannot be put in place", path))?;
        sync_dir(
            path.parent()
                .filter(|p| !p.as_os_str().is_empty())
                .unwrap_or(Path::new(".")),
        )
    };
    let result = write();
    if result.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    result
}

/// Flushes a folder's list of names, without which a rename may be forgotten in a power cut.
///
/// # Errors
/// Whatever the system refuses.
pub fn sync_dir(dir: &Path) -> Result<()> {
    // Only Unix systems open folders.
    if cfg!(unix) {
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(io("the folder cannot be flushed", dir))?;
    }
    Ok(())
}

/// Writes bytes atomically.
///
/// # Errors
/// Whatever the system refuses; what was at `path` before stays.
pub fn write_bytes_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    atomically(path, |out| {
        out.write_all(bytes).map_err(io("cannot be written", path))
    })
}

/// Writes a `.safetensors` file atomically. The numbers go out a tensor at a time; the same input gives the same bytes.
///
/// `dtype` none keeps each tensor's type; otherwise floating-point tensors are written as f32, f16 or bf16.
///
/// # Errors
/// A name that is there twice, a type that the format does not have; whatever the system refuses. What was at `path` before stays.
pub fn write_safetensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    metadata: &BTreeMap<String, String>,
    dtype: Option<DType>,
) -> Result<()> {
    let bad = |problem: String| Error::Format {
        path: path.to_owned(),
        problem,
    };
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut entries: Vec<(&Tensor, DType)> = Vec::new();
    let mut offset = 0u64;
    for (name, tensor) in tensors {
        let to = match dtype {
            Some(to) if tensor.dtype().is_float() => to,
            _ => tensor.dtype(),
        };
        let type_name = match to {
            DType::F64 => "F64",
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::I64 => "I64",
            DType::U32 => "U32",
            DType::U8 => "U8",
            other => {
                return Err(bad(format!(
                    "{name}: numbers of type {other:?} cannot be written"
                )));
            }
        };
        let end = offset + (tensor.elem_count() * to.size_in_bytes()) as u64;
        let entry =
            json!({ "dtype": type_name, "shape": tensor.dims(), "data_offsets": [offset, end] });
        if name == "__metadata__" || header.insert(name.to_owned(), entry).is_some() {
            return Err(bad(format!("{name} is there twice")));
        }
        entries.push((tensor, to));
        offset = end;
    }
    let mut header = Value::Object(header).to_string();
    // The numbers begin at a multiple of eight.
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    atomically(path, |out| {
        let written = |result: std::io::Result<()>| result.map_err(io("cannot be written", path));
        written(out.write_all(&(header.len() as u64).to_le_bytes()))?;
        written(out.write_all(header.as_bytes()))?;
        for (tensor, to) in entries {
            let flat = tensor
                .to_device(&Device::Cpu)?
                .to_dtype(to)?
                .flatten_all()?;
            written(match to {
                DType::F64 => numbers(out, &flat.to_vec1::<f64>()?, |v| v.to_le_bytes()),
                DType::F32 => numbers(out, &flat.to_vec1::<f32>()?, |v| v.to_le_bytes()),
                DType::F16 => numbers(out, &flat.to_vec1::<f16>()?, |v| v.to_le_bytes()),
                DType::BF16 => numbers(out, &flat.to_vec1::<bf16>()?, |v| v.to_le_bytes()),
                DType::I64 => numbers(out, &flat.to_vec1::<i64>()?, |v| v.to_le_bytes()),
                DType::U32 => numbers(out, &flat.to_vec1::<u32>()?, |v| v.to_le_bytes()),
                _ => numbers(out, &flat.to_vec1::<u8>()?, |v| [v]),
            })?;
        }
        Ok(())
    })
}

fn numbers<T: Copy, const N: usize>(
    out: &mut impl Write,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> std::io::Result<()> {
    values
        .iter()
        .try_for_each(|value| out.write_all(&bytes(*value)))
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    sdft_files::sha256_file(path).map_err(io("cannot be read", path))
}
