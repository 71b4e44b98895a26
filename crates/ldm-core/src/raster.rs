//! Decoded pictures: 8-bit RGB, row-major, no padding.

use std::fmt;
use std::sync::Arc;

/// An 8-bit RGB picture, `[H, W, 3]` row-major. A clone shares the pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Raster {
    width: u32,
    height: u32,
    data: Arc<[u8]>,
}

/// The number of bytes does not fit the size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a {width}x{height} RGB picture has {expected} bytes, not {got}")]
pub struct RasterError {
    width: u32,
    height: u32,
    expected: usize,
    got: usize,
}

impl Raster {
    /// Wraps `data`, which holds `width * height * 3` bytes.
    pub fn new(width: u32, height: u32, data: impl Into<Arc<[u8]>>) -> Result<Self, RasterError> {
        let data = data.into();
        let expected = width as usize * height as usize * 3;
        if data.len() != expected {
            return Err(RasterError { width, height, expected, got: data.len() });
        }
        Ok(Self { width, height, data })
    }

    /// A picture of one colour.
    pub fn filled(width: u32, height: u32, colour: [u8; 3]) -> Self {
        let data: Vec<u8> = colour.iter().copied().cycle().take(width as usize * height as usize * 3).collect();
        Self { width, height, data: data.into() }
    }

    /// Pixels from left to right.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes, `[H, W, 3]`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }
}

impl fmt::Debug for Raster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raster({}x{})", self.width, self.height)
    }
}
