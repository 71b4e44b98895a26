//! Tests of the scenes: the same pictures for the same seed, captions that are true, a checker that can be trusted.

use std::collections::HashSet;

use super::*;

const SIZE: usize = 64;

/// What a decoded picture suffers: a 3 × 3 box blur, repeated, and Gaussian noise.
fn degrade(pixels: &[u8], blurs: usize, deviation: f32, rng: &mut Rng) -> Vec<u8> {
    let mut picture = pixels.to_vec();
    for _ in 0..blurs {
        let source = picture.clone();
        for (at, value) in picture.iter_mut().enumerate() {
            let (row, column, channel) = (at / 3 / SIZE, at / 3 % SIZE, at % 3);
            let around = |v: usize| v.saturating_sub(1)..(v + 2).min(SIZE);
            let pixels = around(row).flat_map(|r| around(column).map(move |c| (r * SIZE + c) * 3 + channel));
            let (sum, count) = pixels.fold((0, 0), |(sum, n), at| (sum + u32::from(source[at]), n + 1));
            *value = (sum / count) as u8;
        }
    }
    for value in &mut picture {
        // Twelve uniforms less six: a normal deviate of variance one.
        let normal = (0..12).map(|_| rng.unit()).sum::<f32>() - 6.0;
        *value = (f32::from(*value) + deviation * normal).round() as u8;
    }
    picture
}

/// The prompt that states everything about a scene of one object.
fn full_prompt(scene: &Scene) -> Prompt {
    let object = &scene.objects[0];
    Prompt {
        text: String::new(),
        background: scene.background,
        color: object.color,
        shape: object.shape,
        size: Some(object.size),
        position: Some(Position::of_center(object.center)),
    }
}

/// Share of one-object scenes read rightly in background, colour and shape; and in size and place, too.
fn accuracy(n: u64, blurs: usize, deviation: f32) -> (f32, f32) {
    let (mut right, mut exact) = (0, 0);
    for index in 0..n {
        let mut rng = Rng::at(11, index);
        let scene = if index % 5 == 0 { Scene::sample_held_out(&mut rng) } else { Scene::sample_one(&mut rng) };
        let picture = degrade(&scene.render(SIZE), blurs, deviation, &mut rng);
        let verdict = inspect(&picture, SIZE);
        let matched = verdict.matches(&full_prompt(&scene));
        right += u64::from(matched.all());
        exact += u64::from(matched.all() && matched.alone && matched.size == Some(true) && matched.position == Some(true));
        if !matched.all() {
            println!("index {index}: {scene:?} read as {verdict:?}");
        }
    }
    let (right, exact) = (right as f32 / n as f32, exact as f32 / n as f32);
    println!("{blurs} blurs, noise {deviation}: {right} right, {exact} with size, place and number");
    (right, exact)
}

#[test]
fn a_seed_and_an_index_make_one_picture() {
    let (pixels, captions) = render_batch(7, 100, 40, 32);
    assert_eq!((pixels.clone(), captions.clone()), render_batch(7, 100, 40, 32));
    let (tail, tail_captions) = render_batch(7, 130, 10, 32);
    assert_eq!(tail, pixels[30 * 3 * 32 * 32..]);
    assert_eq!(tail_captions, captions[30..]);
    assert_ne!(captions, render_batch(8, 100, 40, 32).1);
    assert!(pixels.iter().all(|v| (-1.0..=1.0).contains(v)));
    assert!(render_batch(7, 0, 0, 32).0.is_empty());
}

#[test]
fn a_batch_holds_planes() {
    let (pixels, captions) = render_batch(3, 5, 1, SIZE);
    let mut rng = Rng::at(3, 5);
    let scene = Scene::sample(&mut rng);
    assert_eq!(captions, [scene.caption(&mut rng)]);
    for (at, byte) in scene.render(SIZE).into_iter().enumerate() {
        assert_eq!(pixels[at % 3 * SIZE * SIZE + at / 3], f32::from(byte) / 127.5 - 1.0);
    }
}

#[test]
fn palette_colours_are_far_apart() {
    for (i, a) in Color::ALL.iter().enumerate() {
        for b in &Color::ALL[..i] {
            let squared: i32 = a.rgb().iter().zip(b.rgb()).map(|(&a, b)| (i32::from(a) - i32::from(b)).pow(2)).sum();
            assert!(squared >= 95 * 95, "{a} and {b} are {} apart", (squared as f32).sqrt());
        }
    }
}

#[test]
fn objects_fit_their_bounding_boxes() {
    for &shape in Shape::ALL {
        let [half_x, half_y] = shape.half_extent();
        let mut reach = [0.0f32; 4];
        for step in 0..400 * 400 {
            let (x, y) = ((step % 400) as f32 / 100.0 - 1.995, (step / 400) as f32 / 100.0 - 1.995);
            if shape.distance(x, y, 1.0) <= 0.0 {
                reach = [reach[0].max(-x), reach[1].max(x), reach[2].max(-y), reach[3].max(y)];
            }
        }
        for (seen, told) in reach.iter().zip([half_x, half_x, half_y, half_y]) {
            assert!((seen - told).abs() < 0.03, "{shape}: {reach:?} against {half_x} and {half_y}");
        }
    }
}

#[test]
fn objects_stay_inside_and_apart() {
    for index in 0..3000 {
        let scene = Scene::sample(&mut Rng::at(4, index));
        for object in &scene.objects {
            let half = object.half_extent();
            for axis in [0, 1] {
                assert!(object.center[axis] - half[axis] > 0.02 && object.center[axis] + half[axis] < 0.98, "{scene:?}");
            }
            assert_eq!(Size::of_radius(object.radius), object.size);
        }
        if let [a, b] = scene.objects.as_slice() {
            let (half_a, half_b) = (a.half_extent(), b.half_extent());
            let gap = |axis: usize| (a.center[axis] - b.center[axis]).abs() - half_a[axis] - half_b[axis];
            assert!(gap(0).max(gap(1)) > 0.05, "{scene:?}");
        }
    }
}

#[test]
fn training_never_shows_a_held_out_triple() {
    let (mut triples, mut pairs) = (HashSet::new(), 0);
    for index in 0..5000 {
        let scene = Scene::sample(&mut Rng::at(1, index));
        pairs += usize::from(scene.objects.len() == 2);
        let Scene { background, objects, .. } = scene;
        triples.extend(objects.iter().map(|o| Triple { background, color: o.color, shape: o.shape }));
    }
    assert!((1100..1400).contains(&pairs), "{pairs} scenes of two objects");
    assert!(triples.iter().all(|t| !t.is_held_out()));
    let held_out: Vec<_> = Triple::all().filter(|t| t.is_held_out()).collect();
    println!("{} of {} triples held out", held_out.len(), Triple::all().count());
    assert_eq!(triples.len(), Triple::all().count() - held_out.len(), "training shows every other triple");
    // Every word is both tested and taught.
    for &color in Color::ALL {
        assert!(held_out.iter().any(|t| t.background == color) && held_out.iter().any(|t| t.color == color), "{color}");
        assert!(Color::ALL.iter().all(|&c| c == color || triples.iter().any(|t| t.background == color && t.color == c)));
    }
    assert!(Shape::ALL.iter().all(|&shape| held_out.iter().any(|t| t.shape == shape)));
}

#[test]
fn held_out_prompts_are_held_out_and_varied() {
    let prompts = held_out_prompts(300, 5);
    assert_eq!(prompts, held_out_prompts(300, 5));
    assert_eq!(prompts.len(), 300);
    let texts: HashSet<_> = prompts.iter().map(|p| p.text.as_str()).collect();
    assert_eq!(texts.len(), 300, "no text twice");
    let triple = |p: &Prompt| Triple { background: p.background, color: p.color, shape: p.shape };
    assert!(prompts.iter().all(|p| triple(p).is_held_out()));
    assert!(prompts.iter().any(|p| p.size.is_some()) && prompts.iter().any(|p| p.position.is_some()));
    assert!(seen_prompts(300, 5).iter().all(|p| !triple(p).is_held_out()));
    assert!(held_out_prompts(0, 5).is_empty());
}

#[test]
fn captions_use_the_vocabulary_and_all_of_it() {
    let vocabulary = vocabulary();
    let (_, captions) = render_batch(2, 0, 5000, 4);
    let used: HashSet<&str> = captions.iter().flat_map(|c| words(c)).collect();
    for word in &used {
        assert!(vocabulary.contains(word), "{word:?} is not in the vocabulary");
    }
    for word in &vocabulary {
        assert!(used.contains(word), "{word:?} is never used");
    }
}

#[test]
fn captions_tell_the_truth() {
    for index in 0..5000 {
        let mut rng = Rng::at(6, index);
        let scene = Scene::sample(&mut rng);
        let caption = scene.caption(&mut rng);
        let reading = Reading::parse(&caption).unwrap_or_else(|| panic!("cannot read {caption:?}"));
        assert_eq!(reading.background, scene.background, "{caption:?}");
        assert_eq!(reading.objects.len(), scene.objects.len(), "{caption:?}");
        let mut centers = Vec::new();
        for mention in &reading.objects {
            // Colours tell the objects of a scene apart.
            let object = scene.objects.iter().find(|o| o.color == mention.color);
            let object = object.unwrap_or_else(|| panic!("{caption:?} of {scene:?}"));
            assert_eq!(object.shape, mention.shape, "{caption:?}");
            assert!(mention.size.is_none_or(|size| size == object.size), "{caption:?}");
            assert!(mention.position.is_none_or(|p| p == Position::of_center(object.center)), "{caption:?}");
            centers.push(object.center);
        }
        if let Some(relation) = reading.relation {
            assert_eq!(relation, Relation::between(centers[0], centers[1]), "{caption:?}");
        }
        let spoken = words(&caption).filter(|w| ["left", "right", "top", "bottom", "center"].contains(w)).count();
        assert!(spoken == 0 || reading.relation.is_some() || reading.objects[0].position.is_some(), "{caption:?}");
    }
}

#[test]
fn other_texts_are_not_captions() {
    let caption = "a small orange ring in the top left corner on white";
    let prompt = Prompt::parse(caption).expect("a caption");
    assert_eq!((prompt.background, prompt.color, prompt.shape), (Color::White, Color::Orange, Shape::Ring));
    assert_eq!((prompt.size, prompt.position), (Some(Size::Small), Some(Position::TopLeft)));
    for text in
        ["", "a red circle", "a red background", "a red cat on white", "circle, white background", "red circle on blue on white"]
    {
        assert_eq!(Reading::parse(text), None, "{text:?}");
    }
    assert_eq!(Prompt::parse("red circle and blue ring on white"), None);
}

#[test]
fn the_checker_reads_clean_renders() {
    let (right, exact) = accuracy(600, 0, 0.0);
    assert!(right >= 0.99 && exact >= 0.98);
}

#[test]
fn the_checker_reads_soft_and_noisy_renders() {
    let (right, exact) = accuracy(600, 1, 8.0);
    assert!(right >= 0.95 && exact >= 0.94);
}

#[test]
fn the_checker_reads_very_soft_renders() {
    let (right, exact) = accuracy(600, 2, 12.0);
    assert!(right >= 0.95 && exact >= 0.94);
}

#[test]
fn the_checker_reads_two_objects() {
    let (mut right, n) = (0, 300);
    for index in 0..n {
        let mut rng = Rng::at(12, index);
        let scene = Scene::sample_two(&mut rng);
        let reading = Reading::parse(&scene.caption(&mut rng)).expect("a caption");
        let verdict = inspect(&degrade(&scene.render(SIZE), 1, 8.0, &mut rng), SIZE);
        right += u64::from(verdict.shows(&reading) && verdict.objects.len() == 2);
    }
    println!("two objects: {right} of {n}");
    assert!(right * 100 >= n * 95);
}

#[test]
fn the_checker_fails_a_wrong_picture() {
    let n = 150;
    for index in 0..n {
        let mut rng = Rng::at(13, index);
        let scene = Scene::sample_one(&mut rng);
        let prompt = full_prompt(&scene);
        let verdict = inspect(&scene.render(SIZE), SIZE);
        assert!(verdict.matches(&prompt).all(), "{scene:?}");
        let other = |color: Color| Color::ALL[(color as usize + 1) % Color::ALL.len()];
        let shape = Shape::ALL[(prompt.shape as usize + 1) % Shape::ALL.len()];
        let wrong_ground = verdict.matches(&Prompt { background: other(prompt.background), ..prompt.clone() });
        let wrong_color = verdict.matches(&Prompt { color: other(prompt.color), ..prompt.clone() });
        let wrong_shape = verdict.matches(&Prompt { shape, ..prompt.clone() });
        assert!(!wrong_ground.background && wrong_ground.color && wrong_ground.shape);
        assert!(wrong_color.background && !wrong_color.color && wrong_color.shape);
        assert!(wrong_shape.background && wrong_shape.color && !wrong_shape.shape);
    }
}

#[test]
fn the_checker_sees_no_object_where_there_is_none() {
    let mut rng = Rng::new(1);
    for &background in Color::ALL {
        let scene = Scene { background, background_rgb: background.rgb(), objects: Vec::new() };
        let verdict = inspect(&degrade(&scene.render(SIZE), 0, 8.0, &mut rng), SIZE);
        assert_eq!(verdict, Verdict { background, objects: Vec::new() });
        let prompt = Prompt::parse("red circle on white").expect("a caption");
        assert!(!verdict.matches(&prompt).all());
    }
    // Static is no shape.
    let pixels: Vec<u8> = (0..SIZE * SIZE * 3).map(|_| rng.bits() as u8).collect();
    assert!(inspect(&pixels, SIZE).objects.iter().all(|found| found.shape.is_none()));
}
