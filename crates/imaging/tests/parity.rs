//! Loading and resizing compared with the public reference implementations.

use std::{fs, path::PathBuf};

use safetensors::{Dtype, SafeTensors};
use sdft_imaging::{
    Filter, Limits, Rgb8, center_crop, decode_as_pillow, read_image_file, resize, resize_f32,
    resize_short_side, to_unit_range,
};
use serde_json::Value;

/// One fixture folder.
struct Case {
    folder: PathBuf,
    config: Value,
    tensors: Vec<u8>,
}

impl Case {
    fn open(name: &str) -> Self {
        let folder = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/parity/metrics"
        ))
        .join(name);
        let case: Value =
            serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap();
        Self {
            config: case["config"].clone(),
            tensors: fs::read(folder.join("tensors.safetensors")).unwrap(),
            folder,
        }
    }

    /// Bytes and shape of a tensor.
    fn raw(&self, name: &str, dtype: Dtype) -> (Vec<u8>, Vec<usize>) {
        let all = SafeTensors::deserialize(&self.tensors).unwrap();
        let view = all.tensor(name).unwrap();
        assert_eq!(view.dtype(), dtype, "{name}");
        (view.data().to_vec(), view.shape().to_vec())
    }

    fn image(&self, name: &str) -> Rgb8 {
        let (data, shape) = self.raw(name, Dtype::U8);
        Rgb8::new(shape[1], shape[0], data).unwrap()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let (data, _) = self.raw(name, Dtype::F32);
        data.as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect()
    }

    fn decoded(&self) -> Rgb8 {
        let file = self.config["file"].as_str().unwrap();
        let limits = Limits::default();
        let bytes = read_image_file(&self.folder.join(file), &limits).unwrap();
        decode_as_pillow(&bytes, &limits).unwrap()
    }
}

#[test]
fn loading_equals_guided_diffusion_bit_for_bit() {
    for name in ["alpha", "large", "small", "wide_box"] {
        let case = Case::open(&format!("image_load_{name}"));
        let image = case.decoded();
        if case.config["store_decoded"] == Value::Bool(true) {
            assert_eq!(image, case.image("decoded"), "{name}: decoded");
        }
        for size in case.config["resolutions"].as_array().unwrap() {
            let size = size.as_u64().unwrap() as usize;
            let crop = center_crop(&image, size);
            assert_eq!(crop, case.image(&format!("crop_{size}")), "{name}: {size}");
            if name == "small" && size == 32 {
                assert_eq!(to_unit_range(&crop), case.floats("tensor_32"));
            }
        }
    }
}

#[test]
fn loading_equals_torchvision_bit_for_bit() {
    let case = Case::open("image_load_torchvision");
    let size = case.config["image_size"].as_u64().unwrap() as usize;
    let image = resize_short_side(&case.decoded(), size);
    let expected = case.floats("x");
    let (_, shape) = case.raw("x", Dtype::F32);
    assert_eq!(shape[shape.len() - 2..], [image.height, image.width]);
    // ToTensor and 2x - 1 round differently from v / 127.5 - 1, but the levels must be equal.
    let got = to_unit_range(&image);
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(&expected) {
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
    }
}

#[test]
fn resizing_equals_pillow_in_both_modes() {
    for name in ["resize_down", "resize_down_wide", "resize_up"] {
        let case = Case::open(name);
        let image = case.image("image");
        let size = case.config["output_size"].as_u64().unwrap() as usize;
        let [rows, columns] = [0, 1].map(|i| case.config["stride"][i].as_u64().unwrap() as usize);
        let sampled = || {
            (0..size)
                .step_by(rows)
                .flat_map(move |y| (0..size).step_by(columns).map(move |x| (y, x)))
        };

        let out = resize(&image, size, size, Filter::Bicubic);
        let got: Vec<i32> = sampled()
            .flat_map(|(y, x)| out.get(x, y).unwrap().map(i32::from))
            .collect();
        let (data, _) = case.raw("pil_bicubic_uint8", Dtype::I32);
        let expected: Vec<i32> = data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| i32::from_le_bytes(*b))
            .collect();
        assert!(got == expected, "{name}: 8-bit");

        let planes: Vec<Vec<f32>> = (0..3)
            .map(|c| {
                let plane: Vec<f32> = image.pixels[c..]
                    .iter()
                    .step_by(3)
                    .map(|&v| f32::from(v))
                    .collect();
                resize_f32(&plane, image.width, size, size, Filter::Bicubic)
            })
            .collect();
        let (data, shape) = case.raw("clean_bicubic", Dtype::F32);
        assert_eq!(data.len() / 4, 3 * sampled().count(), "{name}: {shape:?}");
        assert_eq!(shape.last(), Some(&3), "{name}");
        let got = sampled().flat_map(|(y, x)| {
            let at = y * size + x;
            [planes[0][at], planes[1][at], planes[2][at]].map(|v| v.clamp(0.0, 255.0))
        });
        let expected = case.floats("clean_bicubic");
        for (got, expected) in got.zip(expected) {
            assert!((got - expected).abs() < 3e-5, "{name}: {got} {expected}");
        }
    }
}
