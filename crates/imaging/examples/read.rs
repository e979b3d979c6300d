//! Reads pictures as a list of JSON lines asks, and writes each as an array of NumPy; `bench/peer/images.py` compares them with Pillow.

#![expect(clippy::print_stdout, reason = "the output of a program")]

use std::{
    fs,
    io::{BufRead as _, stdin},
    path::PathBuf,
};

use sdft_imaging::{Depth, Filter, Fit, Fitting, Image, ImageSpec, Reading, Samples, fit, resize};
use sdft_npz::{Array, Values, encode_npy};
use serde::Deserialize;

/// One picture to read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    path: PathBuf,
    out: PathBuf,
    #[serde(default)]
    page: usize,
    channels: Option<usize>,
    depth: Option<Depth>,
    range: Option<[f64; 2]>,
    background: Option<[u8; 3]>,
    /// Height and width.
    resize: Option<[usize; 2]>,
    /// Height and width.
    pad: Option<[usize; 2]>,
    /// Encodes the picture again instead.
    #[serde(default)]
    encode: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in stdin().lock().lines() {
        let task: Task = serde_json::from_str(&line?)?;
        let reading = Reading {
            channels: task.channels,
            depth: task.depth,
            range: task.range,
            background: task.background.unwrap_or([255; 3]),
            ..Reading::default()
        };
        let decoded = reading.decode_file(&task.path, task.page);
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                println!("{error}");
                continue;
            }
        };
        let mut image = decoded.image;
        let (channels, depth) = (image.channels, image.depth());
        let spec = |[height, width]: [usize; 2]| ImageSpec {
            range: decoded.range,
            ..ImageSpec::new(channels, depth, width, height)
        };
        if task.encode {
            let spec = spec([image.height, image.width]);
            fs::write(&task.out, spec.encode(&image)?)?;
        } else {
            if let Some([height, width]) = task.resize {
                image = resize(&image, width, height, Filter::Bicubic);
            }
            if let Some(size) = task.pad {
                image = fit(&image, &Fitting::new(spec(size), Fit::Pad)).image;
            }
            fs::write(&task.out, encode_npy(&array(image))?)?;
        }
        println!(
            "{} {} pages {} profile {:?}",
            decoded.format, decoded.channels, decoded.pages, decoded.profile
        );
    }
    Ok(())
}

fn array(image: Image) -> Array {
    Array {
        shape: vec![image.height, image.width, image.channels],
        values: match image.samples {
            Samples::U8(values) => Values::U8(values),
            Samples::U16(values) => Values::U16(values),
            Samples::F32(values) => Values::F32(values),
        },
    }
}
