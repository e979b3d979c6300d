//! Operations and memory of a network, counted from its configuration.

use crate::EdmConfig;
use crate::layers::Make;
use crate::plan::{BlockSpec, Change, Kind, Part, Plan};
use sdft_nn::{Cost, Tally};

impl EdmConfig {
    /// The cost of the network for one image of this height and width. Constants of the file are not parameters.
    pub fn cost(&self, sides: [usize; 2]) -> Cost {
        let plan = self.plan();
        let mut tally = Tally::default();
        let (noise, emb) = (plan.noise(), plan.emb());
        tally.conv(noise, emb, 1, 1.0);
        tally.conv(emb, emb, 1, 1.0);
        tally.parameters(plan.augment_dim * noise);
        tally.parameters(match plan.song {
            Some(_) if plan.label_dim > 0 => (plan.label_dim + 1) * noise,
            Some(_) => 0,
            None => plan.label_dim * emb,
        });
        let (encoder, skips) = plan.encoder();
        let decoder = plan.decoder(skips);
        for part in encoder.iter().chain(&plan.middle()).chain(&decoder) {
            let [h, w] = sides.map(|side| (side >> part.level) as f64);
            plan.count(part, h * w, &mut tally);
        }
        tally.cost()
    }
}

impl Plan<'_> {
    fn count(&self, part: &Part, pixels: f64, tally: &mut Tally) {
        match &part.kind {
            Kind::Conv { c_in, c_out } => tally.conv(*c_in, *c_out, 3, pixels),
            Kind::Block(spec) => self.count_block(spec, pixels, tally),
            Kind::AuxDown | Kind::AuxUp => {}
            Kind::AuxSkip { c_in, c_out } => tally.conv(*c_in, *c_out, 1, pixels),
            // Convolved before it is downsampled.
            Kind::AuxResidual { c_in, c_out } => tally.conv(*c_in, *c_out, 3, 4.0 * pixels),
            Kind::Output { channels, .. } => {
                tally.conv(*channels, self.channels, 3, pixels);
                tally.parameters(2 * channels);
            }
        }
    }

    fn count_block(&self, spec: &BlockSpec, pixels: f64, tally: &mut Tally) {
        let song = Make::of(self) == Make::Song;
        let emb_out = if song { spec.c_out } else { 2 * spec.c_out };
        let channels = [spec.c_in, spec.c_out];
        tally.residual(channels, [self.emb(), emb_out], pixels, spec.joined);
        if song && spec.c_in == spec.c_out && spec.change != Change::None {
            tally.conv(spec.c_in, spec.c_out, 1, pixels);
        }
        if spec.attention {
            tally.attention(spec.c_out, spec.c_out, pixels);
            tally.parameters(2 * spec.c_out);
            if let Some(rank) = self.time_adapter_rank {
                tally.time_adapter(spec.c_out, self.emb(), rank, pixels);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::EdmNet;
    use crate::infer::tests::configs;

    #[test]
    fn parameters_are_counted_as_the_network_has_them() {
        for config in configs() {
            let specs = EdmNet::specs(&config).unwrap();
            let parameters = specs.iter().filter(|spec| !EdmNet::is_constant(&spec.name));
            let n: usize = parameters
                .map(|spec| spec.shape.iter().product::<usize>())
                .sum();
            assert_eq!(config.cost([16; 2]).parameters, n, "{config:?}");
        }
    }
}
