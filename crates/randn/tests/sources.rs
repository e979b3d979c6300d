//! The numbers a sample gets, and what happens where there are none.

use candle_core::{DType, Device, Tensor};
use sdft_noise::{Draw, Purpose};
use sdft_randn::{GivenNoise, NoiseSource, NumberedNoise, SeededNoise, randn};

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_sample_has_the_stream_of_its_address() {
    let x = randn(3, Purpose::Test, 5, 10, &[2, 3, 2, 2], &Device::Cpu).unwrap();
    for i in 0..2 {
        let mut stream = vec![0.0; 12];
        Draw::new(3, Purpose::Test, 5, 10 + i as u64).fill_normal(&mut stream);
        assert_eq!(values(&x.get(i).unwrap()), stream);
    }
}

#[test]
fn draws_depend_on_the_sample_and_not_on_the_batch() {
    let like = Tensor::zeros((4, 1, 3, 3), DType::F32, &Device::Cpu).unwrap();
    let half = like.narrow(0, 0, 2).unwrap();
    let draw =
        |first: u64, like: &Tensor| values(&SeededNoise::new(9, first).normal(1, like).unwrap());
    assert_eq!(draw(0, &like), [draw(0, &half), draw(2, &half)].concat());
    let numbered = |numbers: &[u64], like: &Tensor| {
        let mut noise = NumberedNoise::new(9, numbers.to_vec());
        values(&noise.normal(1, like).unwrap())
    };
    let whole = numbered(&[8, 1, 5, 3], &like);
    assert_eq!(
        whole,
        [numbered(&[8, 1], &half), numbered(&[5, 3], &half)].concat()
    );
}

#[test]
fn draws_of_a_sampler_start_noise_and_translations_differ() {
    let like = Tensor::zeros((1, 1, 3, 3), DType::F32, &Device::Cpu).unwrap();
    let start = SeededNoise::new(9, 0);
    let all = [
        values(&start.start(&[1, 1, 3, 3], &Device::Cpu).unwrap()),
        values(&start.clone().normal(0, &like).unwrap()),
        values(&start.clone().normal(1, &like).unwrap()),
        values(&NumberedNoise::new(9, vec![0]).normal(0, &like).unwrap()),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|b| a != b), "{i}");
    }
}

#[test]
fn a_missing_draw_and_a_shape_of_other_samples_are_errors() {
    let draws = Tensor::zeros((2, 1, 1, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let like = draws.get(0).unwrap();
    let mut given = GivenNoise::new(draws);
    assert!(given.normal(1, &like).is_ok());
    let error = given.normal(2, &like).unwrap_err().to_string();
    assert!(
        error.contains("draw 2") && error.contains("only 2"),
        "{error}"
    );
    let mut numbered = NumberedNoise::new(0, vec![1, 2]);
    let error = numbered.normal(0, &like).unwrap_err().to_string();
    assert!(
        error.contains("2 samples") && error.contains("[1, 1, 2, 2]"),
        "{error}"
    );
}
