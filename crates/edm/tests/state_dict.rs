//! Names, shapes and order against state dicts that the reference made.

use candle_core::Device;
use sdft_edm::{EdmNet, from_arguments};
use sdft_nn::Params;
use serde_json::Value;

#[test]
fn parameters_and_constants_are_those_of_the_reference_in_its_order() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("state_dicts.json")).unwrap();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let arguments = case["arguments"].as_object().unwrap();
        let config = from_arguments(case["precond"].as_str().unwrap(), arguments).unwrap();
        let expected: Vec<(String, Vec<usize>)> =
            serde_json::from_value(case["state_dict"].clone()).unwrap();
        let specs = EdmNet::specs(&config).unwrap();
        let found: Vec<_> = specs
            .iter()
            .map(|spec| (spec.name.clone(), spec.shape.clone()))
            .collect();
        assert_eq!(found, expected);
        // The initial constants are what loading expects.
        let params = Params::init(&specs, 1, &Device::Cpu).unwrap();
        EdmNet::load(&params, &config).unwrap();
    }
}
