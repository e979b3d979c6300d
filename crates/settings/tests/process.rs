//! Settings of a diffusion process that its default does not write.

use sdft_diffusion::{Process, Sampling};
use sdft_schedule::Spacing;
use sdft_settings::{plan, set};
use serde::{Deserialize, Serialize};
use toml::Table;

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sampled {
    process: Process,
}

#[test]
fn the_process_of_diffusers_can_be_set_key_by_key() {
    let mut table = Table::new();
    for assignment in [
        "process.noise_schedule=scaled_linear",
        "process.beta_start=0.00085",
        "process.beta_end=1",
        "process.trained_betas=[0.1, 0.2]",
        "process.rescale_betas_zero_snr=true",
        "process.sampling.clip_sample=false",
        "process.sampling.timestep_spacing=trailing",
    ] {
        set::<Sampled>(&mut table, assignment).unwrap();
    }
    let process = plan::<Sampled>(table).unwrap().process;
    let expected = Process {
        noise_schedule: "scaled_linear".to_owned(),
        beta_start: Some(0.00085),
        beta_end: Some(1.0),
        trained_betas: vec![0.1, 0.2],
        rescale_betas_zero_snr: true,
        sampling: Some(Sampling {
            clip_sample: false,
            timestep_spacing: Spacing::Trailing,
            ..Sampling::default()
        }),
        ..Process::default()
    };
    assert_eq!(process, expected);
    for wrong in ["process.beta_middle=0.1", "process.sampling.clip=true"] {
        let error = set::<Sampled>(&mut Table::new(), wrong).unwrap_err();
        assert!(error.to_string().contains("there is no key"), "{error}");
    }
}
