//! 3×3 convolutions of stride 1 by Winograd's minimal filtering, F(2×2, 3×3) (Lavin & Gray 2016, section 4.1).
//!
//! Four outputs cost 16 products instead of 36. In float32 the result differs from the direct sum by about 1e-6; in bfloat16
//! the transformed operands are rounded once more, which is lost in the rounding of activations (`docs/benchmarks.md`).
//! Products are accumulated in float32 and are transformed back while they are in cache.

#![expect(clippy::needless_range_loop, reason = "rows and columns of tiles are numbered, as in the paper")]

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::avx512::{LANES, Shared, available, product, read, write};
use super::taps::{self, POINTS, TAPS};
use super::team;

/// Tiles that share a pass over the filters.
const TILES: usize = 64;
/// Rows of one product; divides `TILES`.
const ROWS: usize = 8;
/// Output channels of one product.
const GROUP: usize = 2 * LANES;
/// Pieces of work for each thread, at least: what makes them end together.
const PIECES: usize = 4;
/// Words of transformed input that are held at a time: 8 MB, to stay in the last cache.
const HELD: usize = 1 << 21;

thread_local! {
    static INPUT: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static FILTERS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static PRODUCTS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Filters in the order of this kernel.
#[derive(Debug)]
pub(crate) struct Filters {
    /// `[output / 16][words][9][16]` words.
    taps: Tensor,
    input: usize,
    output: usize,
    kind: Kind,
}

impl Filters {
    /// `weight` `[output, input, 3, 3]`, of whatever dtype, as `kind`; `None` where there is no kernel for it.
    pub(crate) fn new(weight: &Tensor, kind: Kind) -> Option<Self> {
        let (output, input, height, width) = weight.size4().ok()?;
        let fits = (height, width) == (3, 3) && output % GROUP as i64 == 0 && input % LANES as i64 == 0;
        if !fits || !available() || weight.device() != Device::Cpu || !matches!(kind, Kind::Float | Kind::BFloat16) {
            return None;
        }
        Some(Self { taps: taps::pack(weight, kind), input: input as usize, output: output as usize, kind })
    }

    /// The dtype of inputs and outputs.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// `[B, input, H, W]` → `[B, output, H, W]` with NHWC strides, padded by 1; `bias` in the dtype of the filters.
    ///
    /// # Panics
    /// When a shape or dtype does not fit.
    pub(crate) fn forward(&self, x: &Tensor, bias: &Tensor) -> Tensor {
        let (b, input, height, width) = x.size4().expect("a feature map has four dimensions");
        assert!(x.kind() == self.kind && bias.kind() == self.kind && x.device() == Device::Cpu && input as usize == self.input);
        assert!(bias.size() == [self.output as i64]);
        let nhwc = x.permute([0, 2, 3, 1]).contiguous();
        let out = Tensor::empty([b, height, width, self.output as i64], (self.kind, Device::Cpu));
        let bias = bias.to_kind(Kind::Float).contiguous();
        let map = Map { height: height as usize, width: width as usize, input: self.input, output: self.output };
        let job = Job {
            map,
            input: Shared(nhwc.data_ptr().cast()),
            taps: Shared(self.taps.data_ptr().cast()),
            stored: self.taps.kind(),
            bias: Shared(bias.data_ptr().cast()),
            output: Shared(out.data_ptr().cast()),
        };
        let tiles = b as usize * map.rows() * map.columns();
        if self.kind == Kind::BFloat16 {
            job.run::<true>(tiles)
        } else {
            job.run::<false>(tiles)
        }
        out.permute([0, 3, 1, 2])
    }
}

/// Sizes of a feature map, and its channels in and out.
#[derive(Clone, Copy)]
struct Map {
    height: usize,
    width: usize,
    input: usize,
    output: usize,
}

impl Map {
    fn rows(self) -> usize {
        self.height.div_ceil(2)
    }

    fn columns(self) -> usize {
        self.width.div_ceil(2)
    }

    /// Picture, upper row and left column of a tile's outputs.
    fn place(self, tile: usize) -> (usize, usize, usize) {
        let (line, column) = (tile / self.columns(), tile % self.columns());
        (line / self.rows(), line % self.rows() * 2, column * 2)
    }
}

/// Words at each point of the transformed domain: where those of the first are, and how far the next are from them.
#[derive(Clone, Copy)]
struct Points {
    first: *const u32,
    apart: usize,
}

/// Numbers of one dtype at these addresses: input and output contiguous NHWC, taps as [`Filters`] says, bias in float32.
struct Job {
    map: Map,
    input: Shared<u8>,
    taps: Shared<u8>,
    /// Dtype of the taps.
    stored: Kind,
    bias: Shared<f32>,
    output: Shared<u8>,
}

impl Job {
    fn run<const PAIRS: bool>(&self, tiles: usize) {
        let words = self.map.input / if PAIRS { 2 } else { 1 };
        let most = (HELD / (POINTS * words)).next_multiple_of(TILES).min(tiles.next_multiple_of(ROWS));
        INPUT.with_borrow_mut(|held| {
            if held.len() < POINTS * words * most {
                held.resize(POINTS * words * most, 0);
            }
            let held = Shared(held.as_mut_ptr());
            for first in (0..tiles).step_by(most) {
                let count = most.min(tiles - first);
                team::each(count.div_ceil(ROWS), &|piece| {
                    for tile in piece * ROWS..((piece + 1) * ROWS).min(count) {
                        // SAFETY: `Filters::forward` checked processor, shapes and dtypes; tile `first + tile` exists; its row
                        // at each of the 16 points lies in `held`, and no other tile writes there.
                        unsafe { self.transform::<PAIRS>(first + tile, held.get().add(tile * words), most * words) };
                    }
                });
                let (blocks, groups) = (count.div_ceil(TILES), self.map.output / GROUP);
                // A group's filters are transformed once for each span of blocks: as few as keep all threads at work.
                let spans = (PIECES * team::size()).div_ceil(groups).min(blocks);
                let span = blocks.div_ceil(spans);
                let spans = blocks.div_ceil(span);
                team::each(spans * groups, &|piece| {
                    let (group, first_block) = (piece / spans, piece % spans * span);
                    let tiles = first_block * TILES..(first_block + span).saturating_mul(TILES).min(count);
                    // SAFETY: as above; rows up to the next multiple of `ROWS` exist in `held` (`most` is one), and pieces
                    // write different tiles or channels.
                    unsafe { self.group::<PAIRS>(held.get(), most * words, first, tiles, group) };
                });
            }
        });
    }

    /// A span of tiles, counted from `first`, with a group of filters.
    ///
    /// # Safety
    /// As of [`block`](Self::block), with `held` the rows of tile `first`.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn group<const PAIRS: bool>(&self, held: *const u32, apart: usize, first: usize, tiles: Range<usize>, group: usize) {
        let words = self.map.input / if PAIRS { 2 } else { 1 };
        // Points lie an odd number of registers apart, so that they do not share a set of the cache.
        let filters_apart = (2 * words + 1) * LANES;
        FILTERS.with_borrow_mut(|filters| {
            if filters.len() < POINTS * filters_apart {
                filters.resize(POINTS * filters_apart, 0);
            }
            for half in 0..2 {
                // SAFETY: taps `[output / 16][words][9][16]` of a group that exists, and room for both halves at each point.
                unsafe {
                    let size = taps::word_size(self.stored, PAIRS);
                    let from = self.taps.get().add((2 * group + half) * words * TAPS * LANES * size);
                    let to = filters.as_mut_ptr().add(half * words * LANES);
                    taps::transform::<PAIRS>(from, self.stored, words, to, filters_apart);
                }
            }
            let filters = Points { first: filters.as_ptr(), apart: filters_apart };
            for block in tiles.clone().step_by(TILES) {
                let count = TILES.min(tiles.end - block);
                let input = Points { first: held.wrapping_add(block * words), apart };
                // SAFETY: by the contract; the filters were just made.
                unsafe { self.block::<PAIRS>(input, filters, first + block, count, group) };
            }
        });
    }

    /// Bᵀ d B of one tile, all channels: 16 rows, `apart` words from one to the next.
    ///
    /// # Safety
    /// The processor is [`available`]; the tile exists; `to` has room for the rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn transform<const PAIRS: bool>(&self, tile: usize, to: *mut u32, apart: usize) {
        let map = self.map;
        let (picture, top, left) = map.place(tile);
        let size = if PAIRS { 2 } else { 4 };
        let mut pixels = [[std::ptr::null::<u8>(); 4]; 4];
        for (i, row) in pixels.iter_mut().enumerate() {
            for (j, pixel) in row.iter_mut().enumerate() {
                let (y, x) = (top + i, left + j); // one more than the place: the padding
                if (1..=map.height).contains(&y) && (1..=map.width).contains(&x) {
                    let index = ((picture * map.height + y - 1) * map.width + x - 1) * map.input;
                    // SAFETY: a pixel of the map.
                    *pixel = unsafe { self.input.get().add(index * size) };
                }
            }
        }
        for channel in (0..map.input).step_by(LANES) {
            let mut d = [[_mm512_setzero_ps(); 4]; 4];
            for i in 0..4 {
                for j in 0..4 {
                    if !pixels[i][j].is_null() {
                        // SAFETY: 16 channels from `channel` on exist.
                        d[i][j] = unsafe { read::<PAIRS>(pixels[i][j].add(channel * size)) };
                    }
                }
            }
            let mut t = d;
            for j in 0..4 {
                [t[0][j], t[1][j], t[2][j], t[3][j]] = differences([d[0][j], d[1][j], d[2][j], d[3][j]]);
            }
            for (i, t) in t.iter().enumerate() {
                for (j, v) in differences(*t).into_iter().enumerate() {
                    // SAFETY: room for 16 channels from `channel` on.
                    unsafe { write::<PAIRS>(to.add((4 * i + j) * apart).cast::<u8>().add(channel * size), v) };
                }
            }
        }
    }

    /// Products of a block of tiles with a group of filters, and Aᵀ m A of them into the output.
    ///
    /// # Safety
    /// The processor is [`available`]; `input` are the transformed rows of `count` tiles from `first` on, rounded up to `ROWS`;
    /// `filters` those of the group, `[2][words][16]` at each point; the group exists.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn block<const PAIRS: bool>(&self, input: Points, filters: Points, first: usize, count: usize, group: usize) {
        let words = self.map.input / if PAIRS { 2 } else { 1 };
        PRODUCTS.with_borrow_mut(|products| {
            products.resize(POINTS * TILES * GROUP, 0.);
            for point in 0..POINTS {
                for row in (0..count).step_by(ROWS) {
                    // SAFETY: by the contract; the products of `ROWS` tiles from `row` on lie in the scratch.
                    unsafe {
                        let rows = input.first.add(point * input.apart + row * words);
                        let columns = filters.first.add(point * filters.apart);
                        let to = products.as_mut_ptr().add((point * TILES + row) * GROUP);
                        product::<ROWS, PAIRS>(rows, words, columns, words, to, GROUP);
                    }
                }
            }
            for tile in 0..count {
                // SAFETY: the tile and the group exist, and its products were just written.
                unsafe { self.finish::<PAIRS>(products.as_ptr().add(tile * GROUP), first + tile, group) };
            }
        });
    }

    /// Aᵀ m A + b of one tile and a group of channels.
    ///
    /// # Safety
    /// The processor is [`available`]; `products` points to 32 numbers at each point, `TILES · 32` apart; tile and group exist.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn finish<const PAIRS: bool>(&self, products: *const f32, tile: usize, group: usize) {
        let map = self.map;
        let (picture, top, left) = map.place(tile);
        let size = if PAIRS { 2 } else { 4 };
        for half in 0..2 {
            let channel = group * GROUP + half * LANES;
            // SAFETY: by the contract.
            let m = |i: usize, j: usize| unsafe { _mm512_loadu_ps(products.add((4 * i + j) * TILES * GROUP + half * LANES)) };
            // SAFETY: `output` numbers of bias.
            let bias = unsafe { _mm512_loadu_ps(self.bias.get().add(channel)) };
            let mut t = [[_mm512_setzero_ps(); 4]; 2];
            for j in 0..4 {
                [t[0][j], t[1][j]] = sums([m(0, j), m(1, j), m(2, j), m(3, j)]);
            }
            for (i, t) in t.iter().enumerate() {
                for (j, y) in sums(*t).into_iter().enumerate() {
                    if top + i < map.height && left + j < map.width {
                        let index = ((picture * map.height + top + i) * map.width + left + j) * map.output + channel;
                        // SAFETY: a pixel of the output, 16 channels from `channel` on.
                        unsafe { write::<PAIRS>(self.output.get().add(index * size), _mm512_add_ps(y, bias)) };
                    }
                }
            }
        }
    }
}

/// Bᵀ d.
#[inline]
#[target_feature(enable = "avx512f")]
fn differences(d: [__m512; 4]) -> [__m512; 4] {
    [_mm512_sub_ps(d[0], d[2]), _mm512_add_ps(d[1], d[2]), _mm512_sub_ps(d[2], d[1]), _mm512_sub_ps(d[1], d[3])]
}

/// Aᵀ m.
#[inline]
#[target_feature(enable = "avx512f")]
fn sums(m: [__m512; 4]) -> [__m512; 2] {
    let (sum, difference) = (_mm512_add_ps(m[1], m[2]), _mm512_sub_ps(m[1], m[2]));
    [_mm512_add_ps(m[0], sum), _mm512_sub_ps(difference, m[3])]
}
