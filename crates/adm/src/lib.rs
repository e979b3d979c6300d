//! The ADM U-Net and its encoder classifier, with configurations inferred from checkpoints.
