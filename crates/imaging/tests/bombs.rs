//! Memory and time that hostile files take.

use std::{
    io::Cursor,
    time::{Duration, Instant},
};

use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use sdft_counting_alloc::CountingAllocator;
use sdft_imaging::{Limits, Reading, decode_bytes};

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image.into().write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let rgb = RgbImage::from_fn(24, 17, |x, y| Rgb([(x * 9) as u8, (y * 13) as u8, 60]));
    let rgba = RgbaImage::from_fn(24, 17, |x, y| Rgba([(x * 9) as u8, 3, (y * 13) as u8, 90]));
    let mut seeds = vec![
        ("png".to_owned(), encoded(rgba.clone(), ImageFormat::Png)),
        ("jpeg".to_owned(), encoded(rgb.clone(), ImageFormat::Jpeg)),
        ("webp".to_owned(), encoded(rgba.clone(), ImageFormat::WebP)),
        ("gif".to_owned(), encoded(rgba, ImageFormat::Gif)),
        ("bmp".to_owned(), encoded(rgb, ImageFormat::Bmp)),
    ];
    for kind in ["tiff", "npy", "npz"] {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");
        for entry in std::fs::read_dir(format!("{corpus}/{kind}")).unwrap() {
            let path = entry.unwrap().path();
            seeds.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    seeds.sort();
    seeds
}

/// Reproducible pseudo-random numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

#[test]
fn no_file_takes_more_memory_or_time_than_its_picture_may() {
    // A small file may claim 16 megapixels: 4 bytes each while decoding and 3 as RGB; others may take 64 MB.
    const PICTURE: usize = (1 << 24) * 16;
    let memory = MEMORY.exclusive();
    let slow = Duration::from_secs(5);
    let mut numbers = Numbers(7);
    let mut read = 0;
    for (name, seed) in seeds() {
        for _ in 0..400 {
            let mut bytes = seed.clone();
            for _ in 0..1 + numbers.below(4) {
                let at = numbers.below(bytes.len());
                bytes[at] = match numbers.below(4) {
                    0 => 0xFF,
                    1 => 0,
                    2 => bytes[at] ^ (1 << numbers.below(8)),
                    _ => numbers.below(256) as u8,
                };
            }
            let started = Instant::now();
            let (pages, _) = memory.peak_of(|| Reading::default().pages(&bytes, "x"));
            let (result, peak) = memory.peak_of(|| Reading::default().decode(&bytes, "x", 0));
            read += usize::from(result.is_ok());
            assert!(result.is_err() || pages.is_ok_and(|n| n > 0), "{name}");
            drop(decode_bytes(&bytes, &Limits::default()));
            assert!(peak <= PICTURE, "{name}: {peak} bytes");
            assert!(started.elapsed() < slow, "{name}: {:?}", started.elapsed());
        }
    }
    assert!(read > 100, "only {read} of the files were read");
}
