//! The readers: each kind of file, and the function that reads it.

use sdft_adapters::AdapterFile;
use sdft_checkpoint::ReadOptions;
use sdft_imaging::{Limits, Reading};
use sdft_models::{AutoencoderOptions, LoadOptions};
use sdft_schedule::{BetaSchedule, Respacing, Schedule, Weighting};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A kind of file.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// The name of the kind, of its corpus and of its cargo-fuzz target.
    pub name: &'static str,
    /// Reads bytes and returns whether they are valid.
    pub read: fn(&[u8]) -> bool,
    /// Corrects the checksums of a mutated file, if the format has any.
    pub repair: Option<fn(&mut [u8])>,
}

/// All readers, by name.
pub const READERS: [Reader; 20] = [
    reader("adapter", adapter),
    Reader {
        repair: Some(crate::fix_zip_checksums),
        ..reader("autoencoder", autoencoder)
    },
    reader("bmp", image),
    reader("direction", direction),
    reader("exclude", exclude),
    reader("gif", image),
    reader("jpeg", image),
    reader("npy", image),
    Reader {
        repair: Some(crate::fix_zip_checksums),
        ..reader("npz", npz)
    },
    reader("parquet", table),
    reader("peft", peft),
    reader("plan", plan),
    Reader {
        repair: Some(crate::fix_png_checksums),
        ..reader("png", image)
    },
    Reader {
        repair: Some(crate::fix_zip_checksums),
        ..reader("pt", weights)
    },
    reader("safetensors", weights),
    Reader {
        repair: Some(crate::fix_tar_checksums),
        ..reader("tar", shard)
    },
    reader("tiff", image),
    reader("tokenizer", tokenizer),
    reader("webp", image),
    Reader {
        repair: Some(crate::fix_zip_checksums),
        ..reader("zip", archive)
    },
];

const fn reader(name: &'static str, read: fn(&[u8]) -> bool) -> Reader {
    Reader {
        name,
        read,
        repair: None,
    }
}

/// Reads bytes with the reader of this name; for the targets of cargo-fuzz.
///
/// # Panics
/// There is no such reader.
pub fn read(name: &str, bytes: &[u8]) {
    let reader = READERS.iter().find(|reader| reader.name == name);
    (reader.expect("a reader of this name").read)(bytes);
}

/// The files that mutations start from, in the order of their names.
///
/// # Errors
/// The folder of the corpus cannot be read.
pub fn corpus(name: &str) -> io::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let mut paths = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    paths.iter().map(fs::read).collect()
}

fn image(bytes: &[u8]) -> bool {
    // As it is stored, and as most programs ask for it.
    let native = Reading::default();
    let pages = native.pages(bytes, "file");
    let stored = native.decode(bytes, "file", 0);
    assert!(
        stored.is_err() || pages.is_ok_and(|n| n > 0),
        "a picture that is not counted"
    );
    for decoded in [
        stored,
        Reading::rgb8(Limits::default()).decode(bytes, "file", 0),
    ] {
        let Ok(decoded) = decoded else {
            return false;
        };
        let image = decoded.image;
        assert_eq!(
            image.samples.len(),
            image.channels * image.width * image.height
        );
        if image.width * image.height <= 1 << 16 {
            drop(sdft_imaging::center_crop(&image, 16));
        }
    }
    true
}

fn weights(bytes: &[u8]) -> bool {
    let options = LoadOptions::default();
    let described = in_file(bytes, "weights", |path| {
        sdft_models::inspect_file(path, &options).is_ok()
    });
    let is_model = sdft_models::load_network_bytes("file", bytes, &options).is_ok();
    let is_read = sdft_checkpoint::read_bytes("file", bytes, &ReadOptions::default()).is_ok();
    assert!(
        !is_model || (is_read && described),
        "a model that cannot be read"
    );
    is_read
}

/// CompVis' files do not show all fields.
fn autoencoder(bytes: &[u8]) -> bool {
    let given = [
        ("norm_num_groups", Value::from(2)),
        ("scaling_factor", Value::from(0.5)),
    ];
    let plain = AutoencoderOptions::default();
    let given = AutoencoderOptions {
        given: given
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect(),
        ..AutoencoderOptions::default()
    };
    let mut read = [plain, given]
        .into_iter()
        .map(|options| sdft_models::load_autoencoder_bytes("file", bytes, &options));
    read.any(|read| read.is_ok())
}

/// The network that the adapters of the corpus were trained on.
const BASE: &[u8] = include_bytes!("../corpus/safetensors/unet.safetensors");

fn adapter(bytes: &[u8]) -> bool {
    in_file(bytes, "adapter.safetensors", is_applied)
}

/// A folder of peft: the bytes are its configuration if they are text, and its weights if not; the other file is undamaged.
fn peft(bytes: &[u8]) -> bool {
    let config = include_bytes!("../corpus/peft/adapter_config.json");
    let weights = include_bytes!("../corpus/peft/adapter_model.safetensors");
    let [config, weights]: [&[u8]; 2] = match bytes.is_ascii() {
        true => [bytes, weights],
        false => [config, bytes],
    };
    in_file(config, "adapter_config.json", |path| {
        let folder = path.parent().expect("the folder of a file");
        fs::write(folder.join("adapter_model.safetensors"), weights).expect("a temporary file");
        is_applied(folder)
    })
}

/// Whether a network loads with this adapter.
fn is_applied(path: &Path) -> bool {
    let adapter = AdapterFile {
        path: path.to_owned(),
        strength: 0.7,
    };
    let options = LoadOptions {
        adapters: vec![adapter],
        ..LoadOptions::default()
    };
    sdft_models::load_network_bytes("file", BASE, &options).is_ok()
}

fn direction(bytes: &[u8]) -> bool {
    in_file(bytes, "direction", |path| {
        let sizes = sdft_diffusion::Bottleneck {
            channels: 8,
            embedding: 32,
        };
        sdft_asyrp::read_direction(path, sizes, 4, &candle_core::Device::Cpu).is_ok()
    })
}

fn npz(bytes: &[u8]) -> bool {
    image(bytes);
    sdft_npz::read_npz_bytes(bytes, "file").is_ok()
}

fn table(bytes: &[u8]) -> bool {
    prepared(bytes, "table.parquet")
}

fn archive(bytes: &[u8]) -> bool {
    prepared(bytes, "archive.zip")
}

fn shard(bytes: &[u8]) -> bool {
    prepared(bytes, "shard.tar")
}

fn prepared(bytes: &[u8], name: &str) -> bool {
    let options = sdft_prepare::Options {
        threads: Some(1),
        ..sdft_prepare::Options::new(16)
    };
    in_file(bytes, name, |path| {
        let out = path.with_file_name("out");
        let report = sdft_prepare::prepare(&[path.to_owned()], &out, &options, &|_, _| {});
        report.is_ok()
    })
}

fn exclude(bytes: &[u8]) -> bool {
    in_file(bytes, "list.txt", |path| {
        sdft_prepare::Exclusions::read(path).is_ok()
    })
}

fn tokenizer(bytes: &[u8]) -> bool {
    in_file(bytes, "tokenizer.json", |path| {
        let Ok(tokenizer) = sdft_features::ClipTokenizer::open(path, 77) else {
            return false;
        };
        for text in ["a smiling face", "", "\u{1f600} é \0 <|endoftext|>"] {
            drop(tokenizer.encode(text));
        }
        true
    })
}

/// Plans of runs, and the small languages of their values.
fn plan(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    if let Ok(respacing) = text.parse::<Respacing>() {
        for n in [1, 10, 1000] {
            let schedule = Schedule::new(BetaSchedule::Linear, n);
            drop(schedule.and_then(|schedule| schedule.respaced(&respacing)));
        }
    }
    if let Ok(weighting) = text.parse::<Weighting>()
        && weighting.check().is_ok()
        && let Ok(schedule) = Schedule::new(BetaSchedule::Cosine, 10)
    {
        drop(weighting.weights(&schedule));
    }
    drop(sdft_assets::HubFile::parse(text));
    let plan = toml::from_str::<sdft_train::Plan<sdft_adm::AdmConfig>>(text);
    plan.is_ok_and(|plan| plan.validate().is_ok())
}

/// Calls `read` with the path of a file of these bytes, in a folder of its own.
fn in_file(bytes: &[u8], name: &str, read: impl FnOnce(&Path) -> bool) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("a temporary file");
    read(&path)
}
