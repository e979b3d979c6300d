//! Cases that read and resize images.

use super::Outputs;
use anyhow::{Result, anyhow};
use sdft_imaging::{
    Limits, Rgb8, center_crop, decode_as_pillow, read_image_file, resize_short_side, to_unit_range,
};
use sdft_testing::{Array, Case};

fn picture(case: &Case) -> Result<Rgb8> {
    let file = case
        .get("file")?
        .as_str()
        .ok_or_else(|| anyhow!("file is no text"))?;
    let limits = Limits::default();
    let bytes = read_image_file(&case.dir.join(file), &limits)?;
    // The reference implementations drop transparency, which this project composes on white.
    Ok(decode_as_pillow(&bytes, &limits)?)
}

fn bytes(image: &Rgb8) -> Array {
    Array::bytes(&image.pixels, &[image.height, image.width, 3])
}

fn unit(image: &Rgb8) -> Array {
    let data = to_unit_range(image).into_iter().map(f64::from).collect();
    Array {
        shape: vec![3, image.height, image.width],
        data,
    }
}

pub(super) fn image_load(case: &Case) -> Result<Outputs> {
    let image = picture(case)?;
    let mut out = Outputs::from([("decoded".to_owned(), bytes(&image))]);
    let sizes = case
        .get("resolutions")?
        .as_array()
        .ok_or_else(|| anyhow!("resolutions is no list"))?;
    for size in sizes.iter().filter_map(serde_json::Value::as_u64) {
        let crop = center_crop(&image, usize::try_from(size)?);
        out.insert(format!("tensor_{size}"), unit(&crop));
        out.insert(format!("crop_{size}"), bytes(&crop));
    }
    Ok(out)
}

pub(super) fn image_load_torchvision(case: &Case) -> Result<Outputs> {
    let image = resize_short_side(&picture(case)?, case.count("image_size")?);
    Ok(Outputs::from([("x".to_owned(), unit(&image))]))
}
