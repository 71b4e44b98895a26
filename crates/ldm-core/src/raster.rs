//! Decoded pictures and maps: 8-bit RGB or one 8-bit channel, row-major, no padding.

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

/// One 8-bit channel, `[H, W]` row-major: a mask, a map of classes, a map of depths. A clone shares the values.
#[derive(Clone, PartialEq, Eq)]
pub struct Plane {
    width: u32,
    height: u32,
    data: Arc<[u8]>,
}

/// The number of bytes does not fit the size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a {width}x{height} map has {expected} bytes, not {got}")]
pub struct PlaneError {
    width: u32,
    height: u32,
    expected: usize,
    got: usize,
}

impl Plane {
    /// Wraps `data`, which holds `width * height` bytes.
    pub fn new(width: u32, height: u32, data: impl Into<Arc<[u8]>>) -> Result<Self, PlaneError> {
        let data = data.into();
        let expected = width as usize * height as usize;
        if data.len() != expected {
            return Err(PlaneError { width, height, expected, got: data.len() });
        }
        Ok(Self { width, height, data })
    }

    /// The same value everywhere.
    pub fn filled(width: u32, height: u32, value: u8) -> Self {
        Self { width, height, data: vec![value; width as usize * height as usize].into() }
    }

    /// Values from left to right.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Values from top to bottom.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes, `[H, W]`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Every value changed alike.
    pub fn map(&self, change: impl Fn(u8) -> u8) -> Self {
        Self { width: self.width, height: self.height, data: self.data.iter().map(|&value| change(value)).collect() }
    }

    /// The values of another size, each the one of the nearest place (the upper left one of a block, as in
    /// `torch.nn.functional.interpolate` with `nearest`).
    pub fn nearest(&self, width: u32, height: u32) -> Self {
        let at = |i: u32, from: u32, to: u32| (u64::from(i) * u64::from(from) / u64::from(to.max(1))) as usize;
        let row = |y: u32| {
            let start = at(y, self.height, height) * self.width as usize;
            (0..width).map(move |x| self.data[start + at(x, self.width, width)])
        };
        Self { width, height, data: (0..height).flat_map(row).collect() }
    }
}

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plane({}x{})", self.width, self.height)
    }
}
