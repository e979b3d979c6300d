//! Batches depend only on the source, the seed and the step.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use sdft_data::{Augment, Batch, Batches, DataError, ImageSource, Item, Place, Prefetcher, Result};
use sdft_imaging::{Depth, Image, ImageSpec, Rgb8, Samples};

const SIZE: usize = 4;
const SPEC: ImageSpec = ImageSpec {
    width: SIZE,
    height: SIZE,
    channels: 3,
    depth: Depth::U8,
    range: [0.0, 255.0],
};

/// Images in which all pixels differ: red is the column, green the row, blue the image.
struct Numbered {
    n: usize,
    reads: AtomicUsize,
    broken: Option<usize>,
    panics: Option<usize>,
}

impl Numbered {
    fn new(n: usize) -> Self {
        Self {
            n,
            reads: AtomicUsize::new(0),
            broken: None,
            panics: None,
        }
    }

    fn picture(index: usize) -> Rgb8 {
        let pixels = (0..SIZE * SIZE)
            .flat_map(|i| [(i % SIZE) as u8, (i / SIZE) as u8, index as u8])
            .collect();
        Rgb8::new(SIZE, SIZE, pixels).unwrap()
    }
}

impl ImageSource for Numbered {
    fn len(&self) -> usize {
        self.n
    }

    fn spec(&self) -> &ImageSpec {
        &SPEC
    }

    fn item(&self, index: usize, _: Place) -> Result<Item> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        assert_ne!(self.panics, Some(index), "test panic");
        if self.broken == Some(index) {
            return Ok(Image::from(Rgb8::filled(1, 2, [0; 3])).into());
        }
        Ok(Image::from(Self::picture(index)).into())
    }

    fn id(&self, index: usize) -> String {
        format!("number {index}")
    }
}

const NONE: Augment = Augment {
    flip: false,
    flip_vertical: false,
    shift: 0,
    scale: 0.0,
    edm: 0.0,
};
const BOTH: Augment = Augment {
    flip: true,
    shift: 1,
    ..NONE
};

fn batches(n: usize, seed: u64, batch: usize, augment: Augment) -> Batches {
    Batches::new(Arc::new(Numbered::new(n)), seed, batch, augment).unwrap()
}

/// The pictures of a batch.
fn pictures(batch: &Batch) -> Vec<Rgb8> {
    let images = batch.data.chunks(3 * SIZE * SIZE);
    images
        .map(|x| Rgb8::from_image(SPEC.from_unit_range(x).unwrap()))
        .collect()
}

#[test]
fn a_batch_holds_the_pictures_it_names() {
    let batch = batches(20, 1, 6, NONE).batch(2).unwrap();
    assert_eq!((batch.step, batch.shape), (2, [6, 3, SIZE, SIZE]));
    let expected: Vec<_> = batch
        .indices
        .iter()
        .map(|&i| Numbered::picture(i))
        .collect();
    assert_eq!(pictures(&batch), expected);
}

#[test]
fn the_split_into_batches_changes_nothing() {
    let of = |size: usize| -> (Vec<usize>, Vec<f32>) {
        let batches = batches(11, 5, size, BOTH);
        let all: Vec<Batch> = (0..24 / size as u64)
            .map(|k| batches.batch(k).unwrap())
            .collect();
        (
            all.iter().flat_map(|b| b.indices.clone()).collect(),
            all.iter().flat_map(|b| b.data.clone()).collect(),
        )
    };
    let whole = of(24);
    for size in [1, 2, 4, 8, 12] {
        assert_eq!(of(size), whole, "batches of {size}");
    }
}

#[test]
fn an_epoch_sees_every_image_once_and_small_sets_wrap_around() {
    let large = batches(12, 3, 4, NONE);
    let seen: HashSet<usize> = (3..6)
        .flat_map(|k| large.batch(k).unwrap().indices)
        .collect();
    assert_eq!(seen.len(), 12);
    assert_eq!([0, 2, 3, 6].map(|k| large.epoch(k)), [0, 0, 1, 2]);

    let mut small = batches(3, 3, 9, NONE).batch(0).unwrap().indices;
    small.sort_unstable();
    assert_eq!(small, [0, 0, 0, 1, 1, 1, 2, 2, 2]);
}

#[test]
fn seeds_and_steps_differ() {
    let at = |seed, step| batches(50, seed, 8, NONE).batch(step).unwrap().indices;
    assert_ne!(at(1, 0), at(2, 0));
    assert_ne!(at(1, 0), at(1, 1));
}

#[test]
fn half_of_the_pictures_are_mirrored() {
    let augment = Augment { flip: true, ..NONE };
    let batch = batches(1, 7, 1000, augment).batch(0).unwrap();
    let plain = Numbered::picture(0);
    let flipped = plain.flip_horizontal();
    let mut n_flipped = 0;
    for picture in pictures(&batch) {
        assert!(picture == plain || picture == flipped);
        n_flipped += usize::from(picture == flipped);
    }
    // Four standard deviations of a fair coin are 63.
    assert!((437..=563).contains(&n_flipped), "{n_flipped}");
}

#[test]
fn shifts_reach_every_offset_about_equally_often() {
    let augment = Augment { shift: 1, ..NONE };
    let batch = batches(1, 7, 900, augment).batch(0).unwrap();
    let mut counts = [[0; 3]; 3];
    let plain = Numbered::picture(0);
    for picture in pictures(&batch) {
        let offsets = (0..9).map(|i| (i % 3, i / 3));
        let (x, y) = offsets
            .filter(|&(x, y)| picture == plain.shift(x as isize - 1, y as isize - 1))
            .collect::<Vec<_>>()[0];
        counts[y][x] += 1;
    }
    // 100 each on average; four standard deviations are 38.
    let even = counts.iter().flatten().all(|n| (62..=138).contains(n));
    assert!(even, "{counts:?}");
}

/// An image whose mask is its red channel, at the place it is asked for.
struct Masked;

impl ImageSource for Masked {
    fn len(&self) -> usize {
        2
    }

    fn spec(&self) -> &ImageSpec {
        &SPEC
    }

    fn item(&self, index: usize, place: Place) -> Result<Item> {
        let level = |i: usize| match index {
            0 => (i * 15) as u8,
            _ => (place.x * 100.0) as u8,
        };
        let pixels = (0..SIZE * SIZE).flat_map(|i| [level(i), 7, (place.y * 100.0) as u8]);
        let mask = (index == 0).then(|| {
            let samples = (0..SIZE * SIZE).map(level).collect();
            Image::new(SIZE, SIZE, 1, Samples::U8(samples)).unwrap()
        });
        Ok(Item {
            image: Rgb8::new(SIZE, SIZE, pixels.collect()).unwrap().into(),
            mask,
        })
    }

    fn label(&self, index: usize) -> Option<u32> {
        Some(index as u32 + 4)
    }

    fn id(&self, index: usize) -> String {
        format!("masked {index}")
    }
}

#[test]
fn labels_and_masks_follow_their_images_through_every_augmentation() {
    let every = Augment {
        flip: true,
        flip_vertical: true,
        shift: 1,
        scale: 0.3,
        edm: 0.0,
    };
    for augment in [NONE, BOTH, every] {
        let batches = Batches::new(Arc::new(Masked), 3, 16, augment).unwrap();
        let batch = batches.batch(1).unwrap();
        let labels = batch.labels.unwrap();
        let mask = batch.mask.unwrap();
        assert_eq!(mask.len(), 16 * SIZE * SIZE);
        let n = SIZE * SIZE;
        for i in 0..16 {
            assert_eq!(labels[i], batch.indices[i] as u32 + 4);
            let (mask, red) = (&mask[i * n..][..n], &batch.data[3 * i * n..][..n]);
            for (mask, red) in mask.iter().zip(red) {
                match batch.indices[i] {
                    0 => assert!((mask - (red + 1.0) / 2.0).abs() < 1e-6),
                    _ => assert_eq!(*mask, 1.0),
                }
            }
        }
    }
}

#[test]
fn crops_lie_at_places_that_depend_on_the_sample() {
    let places = |batch: usize, step: u64| -> Vec<[u8; 2]> {
        let batches = Batches::new(Arc::new(Masked), 3, batch, NONE).unwrap();
        let batch = batches.batch(step).unwrap();
        let images = pictures(&batch).into_iter().zip(&batch.indices);
        images
            .filter(|(_, index)| **index == 1)
            .map(|(image, _)| [image.pixels[0], image.pixels[2]])
            .collect()
    };
    let all = places(64, 0);
    let halves = [places(32, 0), places(32, 1)].concat();
    assert_eq!(all, halves);
    let spread = |i: usize| {
        let values: HashSet<u8> = all.iter().map(|place| place[i]).collect();
        values.len()
    };
    assert!(all.len() == 32 && spread(0) > 15 && spread(1) > 15);
    assert!(all.iter().any(|[x, y]| x != y));
}

#[test]
fn edms_augmentation_gives_labels_for_every_image() {
    let augment = Augment { edm: 0.5, ..NONE };
    let batch = batches(4, 1, 6, augment).batch(0).unwrap();
    let labels = batch.augment.unwrap();
    assert_eq!(labels.len(), 6 * 9);
    assert!(labels.iter().any(|v| *v != 0.0));
    assert!(batches(4, 1, 6, BOTH).batch(0).unwrap().augment.is_none());
}

#[test]
fn invalid_options_are_refused() {
    let refused = |n, batch, shift| {
        let augment = Augment { shift, ..NONE };
        let error = Batches::new(Arc::new(Numbered::new(n)), 0, batch, augment).unwrap_err();
        assert!(matches!(error, DataError::Option { .. }), "{error}");
        error.to_string()
    };
    assert!(refused(0, 4, 0).contains("at least one image"));
    assert!(refused(5, 0, 0).contains("batch size"));
    assert!(refused(5, 4, SIZE).contains("less than the image size of 4"));
    for augment in [
        Augment {
            scale: -0.1,
            ..NONE
        },
        Augment {
            scale: f64::NAN,
            ..NONE
        },
        Augment { edm: 1.5, ..NONE },
    ] {
        let error = Batches::new(Arc::new(Numbered::new(5)), 0, 4, augment).unwrap_err();
        assert!(matches!(error, DataError::Option { .. }), "{error}");
    }
}

#[test]
fn a_picture_of_the_wrong_size_is_named() {
    let source = Numbered {
        broken: Some(2),
        ..Numbered::new(3)
    };
    let batches = Batches::new(Arc::new(source), 0, 3, NONE).unwrap();
    let message = batches.batch(0).unwrap_err().to_string();
    assert!(
        message.contains("number 2") && message.contains("4x4") && message.contains("2x1"),
        "{message}"
    );
}

#[test]
fn prefetching_gives_the_same_batches_in_order() {
    let direct = batches(10, 4, 4, BOTH);
    let mut prefetcher = Prefetcher::new(batches(10, 4, 4, BOTH), 17);
    for step in 17..40 {
        assert_eq!(prefetcher.next().unwrap(), direct.batch(step).unwrap());
    }
}

#[test]
fn dropping_a_prefetcher_ends_its_thread() {
    let source = Arc::new(Numbered::new(5));
    let batches = Batches::new(Arc::clone(&source) as Arc<dyn ImageSource>, 0, 4, BOTH).unwrap();
    let mut prefetcher = Prefetcher::new(batches, 0);
    prefetcher.next().unwrap();
    drop(prefetcher);
    // The thread owned the only other reference.
    assert_eq!(Arc::strong_count(&source), 1);
    // One batch taken, two in the queue, one blocked in send, and at most one more in progress.
    assert!(source.reads.load(Ordering::Relaxed) <= 5 * 4);
}

#[test]
fn an_error_arrives_at_its_step_and_ends_the_stream() {
    let source = || {
        Arc::new(Numbered {
            broken: Some(6),
            ..Numbered::new(8)
        })
    };
    let direct = Batches::new(source(), 1, 2, NONE).unwrap();
    let bad = (0..).find(|&k| direct.batch(k).is_err()).unwrap();
    let mut prefetcher = Prefetcher::new(Batches::new(source(), 1, 2, NONE).unwrap(), 0);
    for _ in 0..bad {
        prefetcher.next().unwrap();
    }
    let message = prefetcher.next().unwrap_err().to_string();
    assert!(message.contains("number 6"), "{message}");
    assert!(matches!(prefetcher.next(), Err(DataError::Ended { .. })));
}

#[test]
fn a_panic_while_prefetching_is_an_error() {
    let source = Numbered {
        panics: Some(0),
        ..Numbered::new(1)
    };
    let batches = Batches::new(Arc::new(source), 0, 1, NONE).unwrap();
    let mut prefetcher = Prefetcher::new(batches, 9);
    let message = prefetcher.next().unwrap_err().to_string();
    assert!(
        message.contains("step 9") && message.contains("test panic"),
        "{message}"
    );
    assert!(prefetcher.next().is_err());
}
