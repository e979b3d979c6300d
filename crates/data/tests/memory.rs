//! A million images stay out of memory.

use std::fs;

use sdft_counting_alloc::CountingAllocator;
use sdft_data::{FolderOptions, FolderSource, ImageSource};
use sdft_imaging::{Rgb8, write_png};

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();

/// Files in the test; what they take is extrapolated to a million.
const FILES: usize = 20_000;

#[test]
fn a_million_images_take_less_than_a_quarter_of_a_gigabyte() {
    let memory = MEMORY.exclusive();
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first.png");
    write_png(&first, &Rgb8::filled(4, 4, [9; 3])).unwrap();
    for i in 1..FILES {
        let class = folder.path().join(format!("{:04}", i / 500));
        if i == 1 || i % 500 == 0 {
            fs::create_dir(&class).unwrap();
        }
        fs::hard_link(&first, class.join(format!("{i:07}.png"))).unwrap();
    }
    fs::rename(&first, folder.path().join("0000/first.png")).unwrap();
    let mut options = FolderOptions::rgb8(4);
    options.cache_bytes = 0;
    options.classes = Some("folders".parse().unwrap());
    let ((source, report), peak) =
        memory.peak_of(|| FolderSource::open_with(folder.path(), &options, &|_, _| {}).unwrap());
    assert_eq!((source.len(), report.usable), (FILES, FILES));
    assert_eq!(
        (source.classes().len(), source.label(FILES - 1)),
        (FILES / 500, Some(39))
    );
    let for_a_million = peak / FILES * 1_000_000;
    assert!(for_a_million < 256 << 20, "{for_a_million} bytes");
}
