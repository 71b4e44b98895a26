//! Masks, regions and pictures laid over others, against cases computed by hand.

use ldm_core::task::Masking;

use super::*;

/// Pixels that are not all alike.
fn pattern(width: u32, height: u32) -> Raster {
    let bytes: Vec<u8> = (0..width * height * 3).map(|i| (i * 37 % 251) as u8).collect();
    Raster::new(width, height, bytes).expect("its own size")
}

/// 255 in a rectangle: left, top, width, height.
fn rectangle(width: u32, height: u32, [left, top, across, down]: [u32; 4]) -> Plane {
    Region { left, top, width: across, height: down }.covered([width, height])
}

fn inpaint(init: Raster, mask: Plane, masking: Masking) -> Inpaint {
    Inpaint { init, mask, masking, strength: 1.0 }
}

fn row(plane: &Plane, y: u32) -> Vec<u8> {
    let from = (y * plane.width()) as usize;
    plane.data()[from..from + plane.width() as usize].to_vec()
}

fn pixel(picture: &Raster, x: u32, y: u32) -> [u8; 3] {
    let at = (y * picture.width() + x) as usize * 3;
    [picture.data()[at], picture.data()[at + 1], picture.data()[at + 2]]
}

fn of([left, top, width, height]: [u32; 4]) -> Region {
    Region { left, top, width, height }
}

#[test]
fn a_blur_is_the_gaussian_cut_at_two_and_a_half_deviations() {
    let point = rectangle(21, 21, [10, 10, 1, 1]);
    // exp(−k²/8) / 4.9858 of 255, k from −5 to 5.
    let line = [0, 0, 0, 0, 0, 2, 7, 17, 31, 45, 51, 45, 31, 17, 7, 2, 0, 0, 0, 0, 0];
    let across = blur::gaussian(&point, [2., 0.]);
    assert_eq!(row(&across, 10), line);
    assert!((0..21).filter(|&y| y != 10).all(|y| row(&across, y).iter().all(|&value| value == 0)));
    let down = blur::gaussian(&point, [0., 2.]);
    assert_eq!((0..21).map(|y| row(&down, y)[10]).collect::<Vec<_>>(), line);
    assert_eq!(blur::gaussian(&point, [0., 0.]), point);
    // All around a block the same, whichever way it is looked at.
    let block = blur::gaussian(&rectangle(21, 21, [8, 8, 5, 5]), [3., 3.]);
    for y in 0..21 {
        for x in 0..21 {
            let value = row(&block, y)[x as usize];
            for (x, y) in [(20 - x, y), (x, 20 - y), (20 - x, 20 - y)] {
                assert_eq!(row(&block, y)[x as usize], value, "{x}, {y}");
            }
        }
    }
    // Mirrored at the edges: what is the same everywhere stays so, however wide the blur is.
    for (width, height) in [(1, 1), (1, 7), (7, 2), (30, 30)] {
        for value in [0, 77, 255] {
            let flat = Plane::filled(width, height, value);
            assert_eq!(blur::gaussian(&flat, [64., 64.]), flat, "{width}x{height} of {value}");
        }
    }
}

#[test]
fn the_masked_area_is_padded_and_brought_to_the_request_s_shape() {
    let size = [100, 80];
    let masked = |rectangle_: [u32; 4]| Region::of(&rectangle(100, 80, rectangle_)).expect("an area");
    assert_eq!(masked([40, 30, 10, 20]), of([40, 30, 10, 20]));
    assert_eq!(masked([99, 79, 1, 1]), of([99, 79, 1, 1]));
    assert_eq!(Region::of(&Plane::filled(100, 80, 0)), None);
    assert_eq!(masked([40, 30, 10, 20]).padded(5, size), of([35, 25, 20, 30]));
    assert_eq!(masked([2, 70, 10, 8]).padded(5, size), of([0, 65, 17, 15]));
    assert_eq!(masked([0, 0, 100, 80]).padded(256, size), of([0, 0, 100, 80]));
    let table = [
        // 20 of 30: ten more across, five on either side.
        ([35, 25, 20, 30], [64, 64], [30, 25, 30, 30]),
        // 60 across: 40 more.
        ([35, 25, 20, 30], [128, 64], [15, 25, 60, 30]),
        // 40 down: 20 over 15 is wider than a half.
        ([35, 25, 20, 15], [64, 128], [35, 13, 20, 40]),
        // 15 more, seven on the left and eight on the right, pushed back from the edge.
        ([85, 25, 15, 30], [64, 64], [70, 25, 30, 30]),
        ([0, 10, 4, 20], [64, 64], [0, 10, 20, 20]),
        // As far as the picture allows.
        ([10, 0, 80, 2], [64, 64], [10, 0, 80, 80]),
        ([0, 40, 100, 2], [64, 64], [0, 0, 100, 80]),
        ([35, 25, 30, 30], [64, 64], [35, 25, 30, 30]),
        // 4.5 more is four.
        ([50, 50, 9, 9], [96, 64], [48, 50, 13, 9]),
    ];
    for (region, request, expected) in table {
        assert_eq!(of(region).expanded(request, size), of(expected), "{region:?} for {request:?}");
    }
}

#[test]
fn what_a_mask_leaves_out_keeps_its_bytes() {
    let (picture, mask) = (pattern(24, 16), rectangle(24, 16, [12, 4, 8, 8]));
    let drawn = Raster::filled(24, 16, [200, 1, 99]);
    for blur in [0., 1.5] {
        let masking = Masking { blur: [blur; 2], ..Masking::default() };
        let canvas = Canvas::of(&inpaint(picture.clone(), mask.clone(), masking), 24, 16).expect("a canvas");
        assert_eq!((&canvas.picture, &canvas.mask), (&picture, &mask));
        let out = canvas.overlay.expect("it is laid over").over(&drawn).expect("a picture");
        let (mut kept, mut whole) = (0, 0);
        for y in 0..16u32 {
            for x in 0..24u32 {
                let away = [12i32 - x as i32, x as i32 - 19, 4 - y as i32, y as i32 - 11].into_iter().max().unwrap_or(0);
                let (out, own) = (pixel(&out, x, y), pixel(&picture, x, y));
                // The kernel reaches four pixels for a deviation of 1.5.
                if away > if blur == 0. { 0 } else { 4 } {
                    assert_eq!(out, own, "{x}, {y}");
                    kept += 1;
                }
                if blur == 0. && away <= 0 || away <= -3 {
                    assert_eq!(out, [200, 1, 99], "{x}, {y}");
                    whole += 1;
                }
            }
        }
        assert!(kept >= 128 && whole >= 4, "{kept} kept, {whole} drawn");
    }
    let bare = Masking { composite: false, ..Masking::default() };
    assert!(Canvas::of(&inpaint(picture, mask, bare), 24, 16).expect("a canvas").overlay.is_none());
}

#[test]
fn an_edge_fades_from_what_is_drawn_to_what_was_there() {
    let masking = Masking { blur: [2., 2.], ..Masking::default() };
    let work = inpaint(Raster::filled(32, 32, [0; 3]), rectangle(32, 32, [16, 0, 16, 32]), masking);
    let overlay = Canvas::of(&work, 32, 32).expect("a canvas").overlay.expect("it is laid over");
    let out = overlay.over(&Raster::filled(32, 32, [255; 3])).expect("a picture");
    let line: Vec<u8> = (0..32).map(|x| pixel(&out, x, 16)[0]).collect();
    assert!(line.is_sorted() && line[10] == 0 && line[16] == 255, "{line:?}");
    // Beyond the edge the drawn picture shows twice as much as the blurred mask says.
    assert_eq!(line[15], blur::gaussian(&work.mask, [2., 0.]).data()[15] * 2);
}

#[test]
fn only_the_masked_area_is_drawn_and_laid_back() {
    let (picture, mask) = (pattern(64, 48), rectangle(64, 48, [20, 30, 8, 8]));
    let masking = |composite| Masking { only_masked: Some(4), composite, ..Masking::default() };
    // 8 and twice 4 are 16: nothing has to be resized.
    let canvas = Canvas::of(&inpaint(picture.clone(), mask.clone(), masking(true)), 16, 16).expect("a canvas");
    assert_eq!((canvas.picture.width(), canvas.picture.height()), (16, 16));
    assert_eq!(canvas.mask, rectangle(16, 16, [4, 4, 8, 8]));
    for (x, y) in [(0, 0), (15, 0), (0, 15), (15, 15), (7, 9)] {
        assert_eq!(pixel(&canvas.picture, x, y), pixel(&picture, 16 + x, 26 + y));
    }
    let drawn = Raster::filled(16, 16, [9, 8, 7]);
    let changed = |out: &Raster| {
        let places = (0..48).flat_map(|y| (0..64).map(move |x| (x, y)));
        let changed: Vec<(u32, u32)> = places.filter(|&(x, y)| pixel(out, x, y) != pixel(&picture, x, y)).collect();
        assert!(changed.iter().all(|&(x, y)| pixel(out, x, y) == [9, 8, 7]));
        let span = |side: fn(&(u32, u32)) -> u32| (changed.iter().map(side).min(), changed.iter().map(side).max());
        (changed.len(), span(|at| at.0), span(|at| at.1))
    };
    let out = canvas.overlay.expect("it is laid over").over(&drawn).expect("a picture");
    assert_eq!((out.width(), out.height()), (64, 48));
    assert_eq!(changed(&out), (64, (Some(20), Some(27)), (Some(30), Some(37))));
    let bare = Canvas::of(&inpaint(picture.clone(), mask.clone(), masking(false)), 16, 16).expect("a canvas");
    let out = bare.overlay.expect("it is laid over").over(&drawn).expect("a picture");
    assert_eq!(changed(&out), (256, (Some(16), Some(31)), (Some(26), Some(41))));
    // Twice as large, and back.
    let canvas = Canvas::of(&inpaint(picture.clone(), mask, masking(true)), 32, 32).expect("a canvas");
    assert_eq!(canvas.mask.data().iter().filter(|&&value| value == 255).count(), 256);
    let out = canvas.overlay.expect("it is laid over").over(&Raster::filled(32, 32, [9, 8, 7])).expect("a picture");
    assert_eq!(changed(&out), (64, (Some(20), Some(27)), (Some(30), Some(37))));
}

#[test]
fn an_area_that_cannot_have_the_shape_stands_in_the_middle() {
    let picture = pattern(80, 40);
    let masking = Masking { only_masked: Some(0), ..Masking::default() };
    // All of 80×40 in 64×64: 64×32 of it, from line 16 on.
    let work = inpaint(picture.clone(), rectangle(80, 40, [0, 0, 80, 40]), masking);
    let canvas = Canvas::of(&work, 64, 64).expect("a canvas");
    assert_eq!((0..64).map(|y| pixel(&canvas.picture, 5, y)).filter(|&at| at == pixel(&canvas.picture, 5, 0)).count(), 17);
    let mut lines = vec![[1, 1, 1]; 16 * 64];
    lines.extend(vec![[50, 60, 70]; 32 * 64]);
    lines.extend(vec![[2, 2, 2]; 16 * 64]);
    let out = canvas.overlay.expect("it is laid over").over(&Raster::new(64, 64, lines.concat()).expect("its own size"));
    assert_eq!(out.expect("a picture"), Raster::filled(80, 40, [50, 60, 70]), "the margins are left away");
}

#[test]
fn an_inverted_mask_is_the_mask_inverted() {
    let picture = pattern(32, 32);
    let mask = Plane::new(32, 32, (0..1024u32).map(|i| (i * 29 % 256) as u8).collect::<Vec<u8>>()).expect("its own size");
    let drawn = Raster::filled(32, 32, [255, 0, 128]);
    for only_masked in [None, Some(3)] {
        let with = |mask: Plane, invert| {
            let masking = Masking { invert, only_masked, blur: [1., 2.], ..Masking::default() };
            let canvas = Canvas::of(&inpaint(picture.clone(), mask, masking), 32, 32).expect("a canvas");
            (canvas.mask, canvas.overlay.expect("it is laid over").over(&drawn).expect("a picture"))
        };
        assert!(with(mask.clone(), true) == with(mask.map(|value| 255 - value), false));
        assert!(with(mask.clone(), true).0 != with(mask.clone(), false).0);
    }
}

#[test]
fn colours_around_a_mask_are_smeared_into_it() {
    // Red on the left, blue on the right, a hole in the middle that holds green.
    let colour = |x: u32, y: u32| match (x, y) {
        (24..40, 24..40) => [0, 255, 0],
        (0..32, _) => [255, 0, 0],
        _ => [0, 0, 255],
    };
    let bytes: Vec<u8> = (0..64).flat_map(|y| (0..64).flat_map(move |x| colour(x, y))).collect();
    let picture = Raster::new(64, 64, bytes).expect("its own size");
    let mask = rectangle(64, 64, [24, 24, 16, 16]);
    let smeared = smear::smeared(&picture, &mask);
    for y in 0..64 {
        for x in 0..64 {
            let [red, green, blue] = pixel(&smeared, x, y);
            if !(24..40).contains(&x) || !(24..40).contains(&y) {
                assert_eq!([red, green, blue], pixel(&picture, x, y));
                continue;
            }
            assert_eq!(green, 0, "{x}, {y}: what is hidden is not seen");
            assert!(red.abs_diff(255 - blue) <= 2, "{x}, {y}: {red}, {blue}");
        }
    }
    let [left, right] = [pixel(&smeared, 25, 32), pixel(&smeared, 38, 32)];
    assert!(left[0] > 200 && right[2] > 200, "{left:?}, {right:?}");
    let masking = Masking { fill: Fill::Smear, ..Masking::default() };
    let canvas = Canvas::of(&inpaint(picture.clone(), mask.clone(), masking), 64, 64).expect("a canvas");
    assert!(canvas.filled == smeared && canvas.picture == picture);
    // Nothing to smear: black, and no failure.
    assert_eq!(smear::smeared(&picture, &Plane::filled(64, 64, 255)), Raster::filled(64, 64, [0; 3]));
    assert_eq!(smear::smeared(&picture, &Plane::filled(64, 64, 0)), picture);
}

#[test]
fn a_mask_that_its_blur_hides_is_taken_as_it_is() {
    let masking = Masking { only_masked: Some(0), blur: [64., 64.], ..Masking::default() };
    let work = inpaint(pattern(64, 64), rectangle(64, 64, [30, 30, 1, 1]), masking);
    let canvas = Canvas::of(&work, 16, 16).expect("a canvas");
    let out = canvas.overlay.expect("it is laid over").over(&Raster::filled(16, 16, [1, 2, 3])).expect("a picture");
    assert_eq!(pixel(&out, 30, 30), [1, 2, 3]);
    assert_eq!(pixel(&out, 31, 30), pixel(&work.init, 31, 30));
}
