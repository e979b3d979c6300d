//! Numbers of the tags that are read.

pub(super) const SUBFILE: u16 = 254;
pub(super) const WIDTH: u16 = 256;
pub(super) const HEIGHT: u16 = 257;
pub(super) const BITS: u16 = 258;
pub(super) const COMPRESSION: u16 = 259;
pub(super) const PHOTOMETRIC: u16 = 262;
pub(super) const FILL_ORDER: u16 = 266;
pub(super) const DESCRIPTION: u16 = 270;
pub(super) const STRIP_OFFSETS: u16 = 273;
pub(super) const ORIENTATION: u16 = 274;
pub(super) const CHANNELS: u16 = 277;
pub(super) const STRIP_ROWS: u16 = 278;
pub(super) const STRIP_LENGTHS: u16 = 279;
pub(super) const PLANAR: u16 = 284;
pub(super) const COLOR_MAP: u16 = 320;
pub(super) const TILE_WIDTH: u16 = 322;
pub(super) const TILE_HEIGHT: u16 = 323;
pub(super) const TILE_OFFSETS: u16 = 324;
pub(super) const TILE_LENGTHS: u16 = 325;
pub(super) const EXTRA: u16 = 338;
pub(super) const SAMPLE_FORMAT: u16 = 339;
pub(super) const SAMPLE_MIN: u16 = 340;
pub(super) const SAMPLE_MAX: u16 = 341;
pub(super) const SUBSAMPLING: u16 = 530;
pub(super) const PROFILE: u16 = 34_675;
pub(super) const DNG: u16 = 50_706;
