//! Damaged and hostile files: an answer or a clear error, never a panic, never anything executed, never much memory.

mod common;

use sdft_checkpoint::{Error, ReadOptions, read, read_bytes, write_safetensors};
use sdft_counting_alloc::CountingAllocator;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

const SOUND: [&str; 6] = [
    "zip.pt",
    "legacy.pt",
    "zip_nested.pt",
    "legacy_nested.pt",
    "module.pt",
    "evil_zip.pt",
];

fn message(bytes: &[u8]) -> String {
    read_bytes("file", bytes, &ReadOptions::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_pickle_that_wants_to_run_a_command_runs_nothing() {
    let _memory = MEMORY.exclusive();
    for name in ["evil_zip.pt", "evil_legacy.pt"] {
        let error = read(&fixture(name), &ReadOptions::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("posix.system") && error.contains(name),
            "{error}"
        );
    }
    assert!(!Path::new("executed-by-pickle").exists());
}

#[test]
fn every_prefix_of_every_kind_of_file_is_an_error() {
    let _memory = MEMORY.exclusive();
    for name in SOUND {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for len in (0..bytes.len())
            .step_by(7)
            .chain(bytes.len() - 40..bytes.len())
        {
            assert!(
                read_bytes("cut", &bytes[..len], &ReadOptions::default()).is_err(),
                "{name} cut to {len} of {}",
                bytes.len()
            );
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.safetensors");
    let state = read(&fixture("zip.pt"), &ReadOptions::default()).unwrap();
    write_safetensors(&path, state.iter(), &BTreeMap::new(), None).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for len in 0..bytes.len() {
        assert!(
            read_bytes("cut", &bytes[..len], &ReadOptions::default()).is_err(),
            "safetensors cut to {len}"
        );
    }
}

#[test]
fn a_flipped_byte_of_numbers_or_of_the_pickle_is_noticed() {
    let _memory = MEMORY.exclusive();
    // Every byte of a small archive in turn: what is read is what was written, or there is an error.
    let weights = common::dict([
        ("a.weight", common::t(&[3, 4], 0.5)),
        ("a.bias", common::t(&[3], 7.0)),
    ]);
    let sound = common::zip(&weights);
    let values = |bytes: &[u8]| {
        let state = read_bytes("flipped", bytes, &ReadOptions::default()).ok()?;
        let all = state.iter().map(|(name, tensor)| {
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            (name.to_owned(), tensor.dims().to_vec(), values)
        });
        Some((all.collect::<Vec<_>>(), state.notes()))
    };
    let whole = values(&sound).unwrap();
    let mut refused = 0;
    for at in 0..sound.len() {
        for bit in [0x01, 0x10, 0x80] {
            let mut bytes = sound.clone();
            bytes[at] ^= bit;
            match values(&bytes) {
                None => refused += 1,
                Some(found) => assert_eq!(found, whole, "byte {at}"),
            }
        }
    }
    assert!(
        refused > 2 * sound.len(),
        "{refused} of {}",
        3 * sound.len()
    );
}

#[test]
fn flipped_bytes_never_panic_and_never_take_much_memory() {
    let memory = MEMORY.exclusive();
    let mut z = 1u64;
    let mut random = || {
        z = z
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(z >> 33).unwrap()
    };
    for name in SOUND {
        let sound = std::fs::read(fixture(name)).unwrap();
        for _ in 0..3000 {
            let mut bytes = sound.clone();
            for _ in 0..=random() % 4 {
                let at = random() % bytes.len();
                bytes[at] = u8::try_from(random() % 256).unwrap();
            }
            let (_, peak) =
                memory.peak_of(|| drop(read_bytes("flipped", &bytes, &ReadOptions::default())));
            // Buffers of fixed size come on top of a small multiple of the file.
            assert!(peak < 40 * sound.len() + (1 << 20), "{name}: {peak} bytes");
        }
    }
}

#[test]
fn files_of_other_kinds_are_named() {
    let _memory = MEMORY.exclusive();
    for (bytes, words) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"[..],
            "Git LFS pointer",
        ),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b"", "empty"),
        (b"\x80\x04K\x01.", "bare pickle"),
        (b"hello, weights", "found something else"),
    ] {
        let error = message(bytes);
        assert!(error.contains(words), "{error}");
    }
    for (name, words) in [
        ("script.pt", "TorchScript"),
        ("bomb.pt", "compressed"),
        ("list.pt", "found none"),
    ] {
        let error = read(&fixture(name), &ReadOptions::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
    let mut huge = (200u64 << 20).to_le_bytes().to_vec();
    huge.extend(b"{}");
    assert!(message(&huge).contains("something else"));
    let missing = read(&fixture("zpi.pt"), &ReadOptions::default()).unwrap_err();
    assert!(
        matches!(&missing, Error::Missing { .. })
            && missing.to_string().contains("did you mean zip.pt?"),
        "{missing}"
    );
    let other = read(&fixture("x.pt"), &ReadOptions::default()).unwrap_err();
    assert!(!other.to_string().contains("did you mean"), "{other}");
    let folder = read(&fixture(""), &ReadOptions::default())
        .unwrap_err()
        .to_string();
    assert!(folder.contains("found a folder"), "{folder}");
}

#[cfg(unix)]
#[test]
fn a_pipe_and_a_device_are_refused_without_waiting_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("model.pt");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for (path, kind) in [
        (pipe.as_path(), "a pipe"),
        (std::path::Path::new("/dev/zero"), "a device"),
    ] {
        let error = read(path, &ReadOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error}");
        assert!(error.to_string().contains(kind), "{error}");
    }
}

#[test]
fn safetensors_headers_that_lie_are_refused() {
    let _memory = MEMORY.exclusive();
    let file = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        message(&bytes)
    };
    let entry = |shape: &str, from: u64, to: u64| {
        format!("{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    assert!(
        file(&format!("{{\"a\":{}}}", entry("[2]", 0, 12)), 12).contains("does not take 12 bytes")
    );
    assert!(file(&format!("{{\"a\":{}}}", entry("[2]", 0, 8)), 4).contains("cut off"));
    assert!(
        file(
            &format!(
                "{{\"a\":{},\"b\":{}}}",
                entry("[2]", 0, 8),
                entry("[2]", 4, 12)
            ),
            12
        )
        .contains("overlap")
    );
    assert!(
        file(
            &format!("{{\"a\":{}}}", entry("[4611686018427387904,4]", 0, 0)),
            0
        )
        .contains("does not take")
    );
    assert!(
        file(
            "{\"a\":{\"dtype\":\"F8_E8M0\",\"shape\":[4],\"data_offsets\":[0,4]}}",
            4
        )
        .contains("a: numbers of type unknown are not read")
    );
    assert!(
        file(
            "{\"a\":{\"dtype\":\"no type\",\"shape\":[1],\"data_offsets\":[0,4]}}",
            4
        )
        .contains("damaged header: a: unknown variant `no type`")
    );
    assert!(file("{\"a\":{}}", 4).contains("damaged header: a: missing field `dtype`"));
    assert!(file("{\"a\":[]}", 4).contains("damaged header: a:"));
    assert!(file("{\"a\"", 4).contains("damaged header"));
}

#[test]
fn a_large_file_is_held_once() {
    let memory = MEMORY.exclusive();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.safetensors");
    let tensors: Vec<(String, candle_core::Tensor)> = (0..40)
        .map(|i| {
            (
                format!("t{i}"),
                candle_core::Tensor::full(1.5f32, (256, 1024), &candle_core::Device::Cpu).unwrap(),
            )
        })
        .collect();
    let entries = || tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let size = 40 * 256 * 1024 * 4;
    let (result, peak) =
        memory.peak_of(|| write_safetensors(&path, entries(), &BTreeMap::new(), None));
    result.unwrap();
    assert!(peak < size / 8, "writing {size} bytes took {peak}");
    let (state, peak) = memory.peak_of(|| read(&path, &ReadOptions::default()).unwrap());
    assert_eq!(state.len(), 40);
    assert!(peak < size + size / 10, "reading {size} bytes took {peak}");
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
    let _memory = MEMORY.exclusive();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kept");
    std::fs::write(&path, b"old").unwrap();
    let unwritable = dir.path().join("no/such/folder/file");
    let error = write_safetensors(&unwritable, [], &BTreeMap::new(), None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no/such/folder/file") && error.contains("cannot be written"),
        "{error}"
    );
    let i8 =
        candle_core::Tensor::zeros(3, candle_core::DType::U8, &candle_core::Device::Cpu).unwrap();
    let twice = write_safetensors(&path, [("a", &i8), ("a", &i8)], &BTreeMap::new(), None)
        .unwrap_err()
        .to_string();
    assert!(twice.contains("a occurs twice"), "{twice}");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["kept"]);
}

#[cfg(unix)]
#[test]
fn a_socket_is_not_replaced_by_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = write_safetensors(&path, [], &BTreeMap::new(), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("not a regular file"), "{error}");
    assert!(!path.metadata().unwrap().is_file());
}
