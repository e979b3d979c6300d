//! FID between two folders of images, with Inception or with features of your own.

use sdft::candle::Device;
use sdft::data::list_images;
use sdft::eval::{Extractor, View};
use sdft::features::InceptionResize;
use sdft::imaging::{Limits, Rgb8, center_crop, decode_file, to_unit_range};
use sdft::metrics::{Fid, Moments, Statistics, fid};
use std::error::Error;
use std::path::Path;
use std::slice::from_ref;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Mean and covariance of `features` over the images of a folder.
fn statistics(
    folder: &Path,
    dim: usize,
    features: &dyn Fn(&Rgb8) -> Result<Vec<f32>>,
) -> Result<Statistics> {
    let mut moments = Moments::new(dim);
    for (_, path) in list_images(folder)? {
        let image = decode_file(&path, &Limits::default())?;
        moments.push(&features(&image)?)?;
    }
    Ok(moments.statistics()?)
}

/// The distance that papers call FID; `weights` is the file of Inception that pytorch-fid uses.
pub fn fid_of_inception(folders: [&Path; 2], weights: &Path) -> Result<Fid> {
    let view = View::Inception(InceptionResize::default());
    let net = Extractor::read(view, &[weights.to_owned()], &Device::Cpu)?;
    let features = |image: &Rgb8| Ok(net.extract(from_ref(image))?);
    let [a, b] = folders.map(|folder| statistics(folder, net.dim(), &features));
    Ok(fid(&a?, &b?)?)
}

/// The same distance of other features, which needs no weights: the colors of 4x4 pixels.
pub fn fid_of_thumbnails(folders: [&Path; 2]) -> Result<Fid> {
    let features = |image: &Rgb8| Ok(to_unit_range(&center_crop(image, 4)));
    let [a, b] = folders.map(|folder| statistics(folder, 3 * 4 * 4, &features));
    Ok(fid(&a?, &b?)?)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let paths: Vec<&Path> = args.iter().map(Path::new).collect();
    match paths[..] {
        [a, b] => println!("thumbnails: {}", fid_of_thumbnails([a, b])?.value),
        [a, b, weights] => println!("FID: {}", fid_of_inception([a, b], weights)?.value),
        _ => return Err("usage: fid REAL GENERATED [INCEPTION]".into()),
    }
    Ok(())
}
