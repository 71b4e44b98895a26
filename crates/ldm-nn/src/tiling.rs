//! Pictures too large for one pass of a first stage: overlapping tiles, blended (diffusers' `tiled_decode`).

use tch::{Kind, Tensor};

use crate::config::ConfigError;

/// How large a picture's tiles are, in pixels of the latent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    tile: i64,
    overlap: i64,
}

/// The largest tile: beyond that a tile bounds nothing.
const LARGEST: i64 = 1024;

impl Tiling {
    /// Tiles of `tile`×`tile`, each sharing `overlap` with its neighbours.
    pub fn new(tile: i64, overlap: i64) -> Result<Self, ConfigError> {
        if !(1..=LARGEST).contains(&tile) {
            return Err(ConfigError::unsupported("tile", tile, "1 to 1024 pixels of the latent"));
        }
        if !(0..=tile / 2).contains(&overlap) {
            return Err(ConfigError::unsupported("overlap", overlap, "at most half of the tile"));
        }
        Ok(Self { tile, overlap })
    }

    /// What `enable_tiling` of diffusers does for a first stage that was trained on pictures of `sample_size`: tiles of that size
    /// that share a quarter.
    pub fn for_size(sample_size: i64, factor: i64) -> Result<Self, ConfigError> {
        let tile = sample_size / factor.max(1);
        Self::new(tile, tile / 4)
    }

    /// Whether one tile covers a latent of this size.
    pub(crate) fn covers(&self, height: i64, width: i64) -> bool {
        height <= self.tile && width <= self.tile
    }

    /// Applies `run` to each tile of `x`, and blends what it gives. A pixel of the latent is `from`×`from` numbers of `x` and
    /// `to`×`to` of the result: the factor and 1 for encoding, 1 and the factor for decoding.
    ///
    /// What is held at once is the result, one tile, and the edges of one row of tiles. The tiles are those of diffusers, whose
    /// last ones may add nothing to what their neighbours know.
    pub(crate) fn apply(&self, x: &Tensor, from: i64, to: i64, run: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let (_, _, height, width) = x.size4().expect("a picture has four dimensions");
        assert!(height % from == 0 && width % from == 0, "{height}×{width} is no multiple of {from}");
        let (height, width) = (height / from, width / from);
        let stride = self.tile - self.overlap;
        let overlap = self.overlap * to;
        let mut whole: Option<Tensor> = None;
        let mut above: Vec<Tensor> = Vec::new();
        for (row, top) in starts(height, stride) {
            let tall = self.tile.min(height - top);
            let mut edges = Vec::new();
            let mut left: Option<Tensor> = None;
            for (column, start) in starts(width, stride) {
                let wide = self.tile.min(width - start);
                let part = x.narrow(2, top * from, tall * from).narrow(3, start * from, wide * from);
                let mut tile = run(&part);
                if row > 0 {
                    tile = blend(&above[column], tile, 2);
                }
                if let Some(left) = &left {
                    tile = blend(left, tile, 3);
                }
                edges.push(last(&tile, 2, overlap));
                left = Some(last(&tile, 3, overlap));
                let whole = whole.get_or_insert_with(|| {
                    let (batch, channels) = (tile.size()[0], tile.size()[1]);
                    Tensor::zeros([batch, channels, height * to, width * to], (tile.kind(), tile.device()))
                });
                let (tall, wide) = (tall.min(stride) * to, wide.min(stride) * to);
                let mut place = whole.narrow(2, top * to, tall).narrow(3, start * to, wide);
                place.copy_(&tile.narrow(2, 0, tall).narrow(3, 0, wide));
            }
            above = edges;
        }
        whole.expect("a picture has a tile")
    }
}

/// Tiles along one side: their numbers, and where they start.
fn starts(size: i64, stride: i64) -> impl Iterator<Item = (usize, i64)> {
    (0..size).step_by(usize::try_from(stride).expect("a positive number")).enumerate()
}

/// A copy of the last `count` rows (dimension 2) or columns (3), or of all when there are fewer.
fn last(tile: &Tensor, dimension: i64, count: i64) -> Tensor {
    let size = tile.size()[dimension as usize];
    let count = count.min(size);
    tile.narrow(dimension, size - count, count).copy()
}

/// `tile` with its first rows (dimension 2) or columns (3) faded in from `edge`, which lies in the same place.
fn blend(edge: &Tensor, tile: Tensor, dimension: i64) -> Tensor {
    let size = |x: &Tensor| x.size()[dimension as usize];
    let extent = size(edge).min(size(&tile));
    if extent == 0 {
        return tile;
    }
    let mut shape = [1; 4];
    shape[dimension as usize] = extent;
    let ramp = |weight: &dyn Fn(f64) -> f64| {
        let weights: Vec<f64> = (0..extent).map(|i| weight(i as f64 / extent as f64)).collect();
        Tensor::from_slice(&weights).to_kind(Kind::Float).to_device(tile.device()).to_kind(tile.kind()).view(shape)
    };
    let mut start = tile.narrow(dimension, 0, extent);
    let faded = edge.narrow(dimension, size(edge) - extent, extent) * ramp(&|t| 1. - t) + &start * ramp(&|t| t);
    start.copy_(&faded);
    tile
}
