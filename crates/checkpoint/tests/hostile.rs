//! Damaged and hostile files: an answer or a clear error, never a panic, never anything executed, never much memory.

mod common;

use sdft_checkpoint::{
    Error, ReadOptions, Wanted, read, read_bytes, write_bytes_atomic, write_safetensors,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is allocated, to see that a small file stays small and a large one is not held twice.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One measurement at a time: the counters are global.
static ALONE: Mutex<()> = Mutex::new(());

fn peak_of<R>(f: impl FnOnce() -> R) -> (R, usize) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = f();
    (result, PEAK.load(Ordering::Relaxed) - before)
}

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What any reader may take: 16 times the file and 64 MB, and 5 s for a file under 1 MB.
fn assert_bounded(what: &str, bytes: &[u8]) {
    for wanted in [None, Some(WANTED)] {
        let options = ReadOptions {
            wanted,
            ..ReadOptions::default()
        };
        let started = std::time::Instant::now();
        let (result, peak) = peak_of(|| read_bytes(what, bytes, &options).map(drop));
        let taken = started.elapsed().as_secs_f64();
        let most = 16 * bytes.len() + (64 << 20);
        assert!(
            peak < most,
            "{what}: {} bytes took {peak} of {most}",
            bytes.len()
        );
        assert!(
            taken < 5.0 * (bytes.len() as f64 / 1e6).max(1.0),
            "{what}: {taken} s"
        );
        if let Err(error) = result {
            let text = error.to_string();
            assert!(
                text.len() < 4000,
                "{what}: a message of {} bytes",
                text.len()
            );
        }
    }
}

const WANTED: Wanted = Wanted {
    marks: &["w"],
    fits: |shapes| shapes.len() > 1,
};

/// An old container around the opcodes of a pickle.
fn around(pickle: &[u8]) -> Vec<u8> {
    let mut out = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    out.extend(b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x04");
    out.extend(pickle);
    out.extend(b".\x80\x02](X\x01\0\0\x000e.");
    out.extend(1u64.to_le_bytes());
    out.extend(1f32.to_le_bytes());
    out
}

/// A text of `len` bytes, remembered as `key`.
fn text(len: usize, key: u8) -> Vec<u8> {
    let mut out = vec![b'X'];
    out.extend((len as u32).to_le_bytes());
    out.extend(vec![b'k'; len]);
    out.extend([b'q', key, b'0']);
    out
}

/// A tensor of one number with `rank` axes, remembered as 5; what it is made of as 1, its storage's identifier as 2.
fn tensor(rank: usize) -> Vec<u8> {
    let mut out = b"ctorch._utils\n_rebuild_tensor_v2\nq\x00((".to_vec();
    out.extend(
        b"X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tq\x02QK\0(",
    );
    out.extend(b"K\x01".repeat(rank));
    out.extend(b"t(");
    out.extend(b"K\x01".repeat(rank));
    out.extend(b"t\x89}tq\x01Rq\x050");
    out
}

/// Small files that would take much time or memory if anything in them were copied as often as it is named.
fn bombs(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let join = |parts: &[&[u8]]| around(&parts.concat());
    let many = |opcodes: &[u8], bytes: usize| opcodes.repeat(bytes / opcodes.len());
    let numbered = |i: usize, rest: &[u8]| {
        let name = format!("{i:x}");
        let mut out = vec![0x8c, name.len() as u8];
        out.extend(name.as_bytes());
        out.extend(rest);
        out
    };
    let half = size / 2;
    let dictionary = b"ccollections\nOrderedDict\nq\x07";
    let pair = b"K\x01K\x01\x86q\x080";
    let entries = |rest: &[u8]| {
        (0..size / 10)
            .flat_map(|i| numbered(i, rest))
            .collect::<Vec<u8>>()
    };
    let list = many(b"h\x08", half);
    let json = |header: String| {
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header.into_bytes());
        out
    };
    let repeated = |unit: &str| unit.repeat(size / unit.len());
    vec![
        (
            "a list that is copied by every call",
            join(&[
                dictionary,
                pair,
                b"](",
                &list,
                b"eq\x090",
                &many(b"h\x07h\x09\x85R0", half),
                b"N",
            ]),
        ),
        (
            "arguments that are copied by every call",
            join(&[
                b"(",
                &many(b"N", half),
                b"tq\x01cx\ny\nq\x02",
                &many(b"h\x02h\x01R0", half),
                b"N",
            ]),
        ),
        (
            "a long key on the way to every dictionary",
            join(&[
                &tensor(1),
                &text(half, 6),
                b"}(",
                &many(b"h\x06}h\x06h\x05s", half),
                b"u",
            ]),
        ),
        (
            "long keys inside each other",
            join(&[
                &tensor(1),
                &text(half, 6),
                &many(b"}h\x06", half),
                b"h\x05",
                &many(b"s", half / 3),
            ]),
        ),
        (
            "a long name of a function",
            join(&[&text(half, 6), &many(b"h\x06h\x06\x93)R0", half), b"N"]),
        ),
        ("empty dictionaries", join(&[&many(b"}", size)])),
        (
            "empty dictionaries in a list",
            join(&[b"](", &many(b"}", size), b"e"]),
        ),
        (
            "nested lists",
            join(&[&many(b"]", half), &many(b"a", half)]),
        ),
        ("marks", join(&[&many(b"(", size), b"N"])),
        ("small numbers", join(&[b"](", &many(b"K\x01", size), b"e"])),
        ("nothing over and over", join(&[&many(b"N", size)])),
        ("a memo of nothing", join(&[b"N", &many(&[0x94], size)])),
        (
            "storages with a long key",
            join(&[
                &text(half, 6),
                b"(X\x07\0\0\0storagectorch\nFloatStorage\nh\x06NK\x01tq\x07",
                &many(b"h\x07Q0", half),
                b"N",
            ]),
        ),
        (
            "one tensor made again and again",
            join(&[&tensor(16), &many(b"h\x00h\x01R0", size), b"N"]),
        ),
        (
            "one tensor under many names",
            join(&[
                &tensor(16),
                b"}(",
                &entries(b"h\x05"),
                b"X\x01\0\0\0wh\x05X\x03\0\0\0x.wh\x05u",
            ]),
        ),
        (
            "one tensor in many lists",
            join(&[&tensor(4), b"](", &many(b"]h\x05a", size), b"e"]),
        ),
        (
            "the mark behind many prefixes",
            join(&[
                &tensor(1),
                b"}(",
                &(0..size / 12)
                    .flat_map(|i| {
                        let name = format!("{i:x}.w");
                        let mut out = vec![0x8c, name.len() as u8];
                        out.extend(name.as_bytes());
                        out.extend(b"h\x05");
                        out
                    })
                    .collect::<Vec<u8>>(),
                b"u",
            ]),
        ),
        ("a long text of broken letters", {
            let mut body = vec![b'X'];
            body.extend((size as u32).to_le_bytes());
            body.extend(vec![0xff; size]);
            around(&body)
        }),
        (
            "a shape of many sizes",
            json(format!(
                "{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{}1],\"data_offsets\":[0,0]}}}}",
                repeated("1,")
            )),
        ),
        ("metadata of many fields", {
            let fields: String = (0..size / 10).map(|i| format!("\"{i:x}\":\"\",")).collect();
            json(format!("{{\"__metadata__\":{{{fields}\"z\":\"\"}}}}"))
        }),
        (
            "lists in lists in a header",
            json(format!("{{\"a\":{}", repeated("["))),
        ),
        ("many tensors of nothing", {
            let fields: String = (0..size / 60)
                .map(|i| {
                    format!("\"{i:x}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}},")
                })
                .collect();
            json(format!(
                "{{{fields}\"w\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}}}"
            ))
        }),
        ("bytes that become long integers", {
            let header = format!(
                "{{\"w\":{{\"dtype\":\"I8\",\"shape\":[{size}],\"data_offsets\":[0,{size}]}}}}"
            );
            let mut out = json(header);
            out.extend(vec![1; size]);
            out
        }),
        ("an index of many tensors", {
            let fields: String = (0..size / 10)
                .map(|i| format!("\"{i:x}\":\"f\","))
                .collect();
            format!("{{\"weight_map\":{{{fields}\"z\":\"f\"}}}}").into_bytes()
        }),
        ("an archive of many entries", {
            let entry = |i: usize| (format!("a/data/{i}"), Vec::new());
            let count = (size / 110).min(60_000);
            let mut all = vec![("a/data.pkl".to_owned(), b"\x80\x02}.".to_vec())];
            all.extend((0..count).map(entry));
            common::archive(&all)
        }),
    ]
}

#[test]
fn small_files_never_take_much_time_or_memory() {
    let _alone = alone();
    for (what, bytes) in bombs(900_000) {
        assert_bounded(what, &bytes);
    }
}

#[test]
fn larger_ones_take_a_multiple_of_their_size() {
    let _alone = alone();
    for (what, bytes) in bombs(4_000_000) {
        assert_bounded(what, &bytes);
    }
}

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
    let _alone = alone();
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
    let _alone = alone();
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
    let _alone = alone();
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
    let _alone = alone();
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
                peak_of(|| drop(read_bytes("flipped", &bytes, &ReadOptions::default())));
            // Buffers of fixed size come on top of a small multiple of the file.
            assert!(peak < 40 * sound.len() + (1 << 20), "{name}: {peak} bytes");
        }
    }
}

#[test]
fn files_of_other_kinds_are_told_apart() {
    let _alone = alone();
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

#[test]
fn safetensors_headers_that_lie_are_refused() {
    let _alone = alone();
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
            "{\"a\":{\"dtype\":\"X9\",\"shape\":[1],\"data_offsets\":[0,4]}}",
            4
        )
        .contains("a: numbers of type unknown are not read")
    );
    assert!(
        file(
            "{\"a\":{\"dtype\":\"no type\",\"shape\":[1],\"data_offsets\":[0,4]}}",
            4
        )
        .contains("unknown dtype")
    );
    assert!(file("{\"a\":{}}", 4).contains("no dtype"));
    assert!(file("{\"a\":[]}", 4).contains("damaged header: a:"));
    assert!(file("{\"a\"", 4).contains("damaged header"));
}

#[test]
fn a_large_file_is_held_once() {
    let _alone = alone();
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
    let (result, peak) = peak_of(|| write_safetensors(&path, entries(), &BTreeMap::new(), None));
    result.unwrap();
    assert!(peak < size / 8, "writing {size} bytes took {peak}");
    let (state, peak) = peak_of(|| read(&path, &ReadOptions::default()).unwrap());
    assert_eq!(state.len(), 40);
    assert!(peak < size + size / 10, "reading {size} bytes took {peak}");
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kept");
    write_bytes_atomic(&path, b"old").unwrap();
    let unwritable = dir.path().join("no/such/folder/file");
    let error = write_bytes_atomic(&unwritable, b"new")
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
    assert!(twice.contains("a is there twice"), "{twice}");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["kept"]);
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_replaced_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = write_bytes_atomic(&path, b"new").unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");
    assert!(!path.metadata().unwrap().is_file());
}
