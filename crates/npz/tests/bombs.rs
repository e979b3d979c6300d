//! Memory and time that hostile archives take.

use std::{
    io::{Cursor, Write as _},
    time::{Duration, Instant},
};

use sdft_counting_alloc::{CountingAllocator, Measurement};
use sdft_npz::{Array, encode_npz, read_npz_bytes};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();

/// An archive of arrays of zeros: type, axes in Fortran's order or not, shape, and bytes.
fn zeros(arrays: &[(&str, bool, &str, usize)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (i, (descr, is_fortran, shape, n)) in arrays.iter().enumerate() {
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(format!("a{i}.npy"), options).unwrap();
        let order = if *is_fortran { "True" } else { "False" };
        let text =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
        zip.write_all(&(text.len() as u16).to_le_bytes()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
        let block = vec![0; 1 << 20];
        let mut left = *n;
        while left > 0 {
            let now = left.min(block.len());
            zip.write_all(&block[..now]).unwrap();
            left -= now;
        }
    }
    zip.finish().unwrap().into_inner()
}

/// Reads within the limits, and returns the error if there is one.
fn read(memory: &Measurement<'_>, name: &str, bytes: &[u8]) -> Option<String> {
    let started = Instant::now();
    let (result, peak) = memory.peak_of(|| read_npz_bytes(bytes, name).map(drop));
    let most = 16 * bytes.len() + (64 << 20);
    assert!(peak <= most, "{name}: {peak} bytes, at most {most}");
    assert!(started.elapsed() < Duration::from_secs(5), "{name}");
    result.err().map(|error| error.to_string())
}

#[test]
fn no_archive_takes_more_than_sixteen_times_its_length_or_five_seconds() {
    use CompressionMethod::{Deflated, Stored};
    let memory = MEMORY.exclusive();
    let read = |name: &str, bytes: &[u8]| read(&memory, name, bytes);
    let small = [("|i1", true, "(1000, 1000)", 1_000_000)];
    assert_eq!(read("stored.npz", &zeros(&small, Stored)), None);
    assert_eq!(read("small.npz", &zeros(&small, Deflated)), None);
    for (name, bomb) in [
        ("order.npz", vec![("|i1", true, "(6000, 6000)", 36_000_000)]),
        ("bytes.npz", vec![("|u1", false, "(90000000,)", 90_000_000)]),
        (
            "many.npz",
            vec![("|u1", false, "(30000000,)", 30_000_000); 3],
        ),
        ("half.npz", vec![("<f2", true, "(4000, 4000)", 32_000_000)]),
    ] {
        let bytes = zeros(&bomb, Deflated);
        assert!(bytes.len() < 200_000, "{name}: {}", bytes.len());
        let error = read(name, &bytes).unwrap();
        assert!(
            error.contains("16 times the file") && error.contains(name),
            "{error}"
        );
    }
    // A directory of very many entries, and changes of every kind.
    let empty: Vec<_> = (0..9000).map(|_| ("|u1", false, "(0,)", 0)).collect();
    assert_eq!(read("entries.npz", &zeros(&empty, Stored)), None);
    let array = Array::f32([30], (0..30).map(|v| v as f32).collect::<Vec<_>>()).unwrap();
    let seed = encode_npz(&[("a", &array), ("b", &array)], true).unwrap();
    let mut refused = 0;
    for at in 0..seed.len() {
        for value in [0, 0x7F, 0xFF, seed[at] ^ 4] {
            let mut bytes = seed.clone();
            bytes[at] = value;
            refused += usize::from(read("changed.npz", &bytes).is_some());
        }
    }
    assert!(refused > 100, "only {refused} were refused");
}
