//! Prompts: weights, chunks, learnt words. What webui does is documented in its wiki ("Features": attention, infinite prompt
//! length, textual inversion); parses are worked out by hand.

use std::slice;

use ldm_nn::conditioners::prompt::{self, Piece, PromptError};
use ldm_nn::conditioners::textual_inversion::MAX_VECTORS;
use ldm_nn::conditioners::{Chunk, ChunkEncoder, ChunkError, Chunker, Emphasis, InversionError, Inversions, TextualInversion};
use ldm_nn::weights::save;
use ldm_nn::{ClipTokenizer, Readout};
use tch::{Device, Kind, Tensor};

use crate::conditioners::{directory, same, tensor};
use crate::goldens::{self, clip, scratch};

/// `None` is BREAK.
type Parsed<'a> = Vec<Option<(&'a str, f64)>>;

fn parse(prompt: &str) -> Result<Vec<Option<(String, f64)>>, PromptError> {
    let pieces = prompt::parse(prompt)?.into_iter().map(|piece| match piece {
        Piece::Text { text, weight } => Some((text, weight)),
        Piece::Break => None,
    });
    Ok(pieces.collect())
}

#[test]
fn weights_are_read_as_webui_reads_them() {
    let low = 1. / 1.1;
    let cases: Vec<(&str, Parsed<'_>)> = vec![
        ("", vec![]),
        ("normal text", vec![Some(("normal text", 1.))]),
        ("an (important) word", vec![Some(("an ", 1.)), Some(("important", 1.1)), Some((" word", 1.))]),
        ("(unbalanced", vec![Some(("unbalanced", 1.1))]),
        (r"\(literal\]", vec![Some(("(literal]", 1.))]),
        ("(unnecessary)(parens)", vec![Some(("unnecessaryparens", 1.1))]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            vec![
                Some(("a ", 1.)),
                Some(("house", 1.573)),
                Some((" ", 1.1)),
                Some(("on", 1.)),
                Some((" a ", 1.1)),
                Some(("hill", 0.55)),
                Some((", sun, ", 1.1)),
                Some(("sky", 1.4641)),
                Some((".", 1.1)),
            ],
        ),
        ("[less] [[least]]", vec![Some(("less", low)), Some((" ", 1.)), Some(("least", low * low))]),
        ("[open", vec![Some(("open", low))]),
        ("closed) and] text", vec![Some(("closed) and] text", 1.))]),
        ("a:1.2) b", vec![Some(("a:1.2) b", 1.))]),
        ("time 12:30 (ratio 16:9)", vec![Some(("time 12:30 ", 1.)), Some(("ratio 16", 9.))]),
        ("(no number: here)", vec![Some(("no number: here", 1.1))]),
        ("(a: 1.5 )", vec![Some(("a", 1.5))]),
        (
            "(a:-0.5) (b:+2) (c:.5) (d:2.)",
            vec![
                Some(("a", -0.5)),
                Some((" ", 1.)),
                Some(("b", 2.)),
                Some((" ", 1.)),
                Some(("c", 0.5)),
                Some((" ", 1.)),
                Some(("d", 2.)),
            ],
        ),
        // No exponents: the colon is text, and the bracket an ordinary one.
        ("(a:1e2)", vec![Some(("a:1e2", 1.1))]),
        // The number closes the round bracket, whatever square one is open in it.
        ("([a:1.5) b", vec![Some(("a", 1.5 * low)), Some((" b", low))]),
        ("((a:1.5):2)", vec![Some(("a", 3.))]),
        ("()x[]", vec![Some(("x", 1.))]),
        (r"a\\b \c \", vec![Some((r"a\b c ", 1.))]),
        (r"(\(deep\):1.2)", vec![Some(("(deep)", 1.2))]),
        ("a BREAK b", vec![Some(("a", 1.)), None, Some(("b", 1.))]),
        (" a  \n BREAK\t b ", vec![Some((" a", 1.)), None, Some(("b ", 1.))]),
        ("aBREAK BREAKb _BREAK BREAK_ break", vec![Some(("aBREAK BREAKb _BREAK BREAK_ break", 1.))]),
        ("BREAK a BREAK BREAK", vec![None, Some(("a", 1.)), None, None]),
        ("(a BREAK b:1.2)", vec![Some(("a", 1.2)), None, Some(("b", 1.2))]),
        ("a,BREAK,b", vec![Some(("a,", 1.)), None, Some((",b", 1.))]),
        ("(日本:1.2)語", vec![Some(("日本", 1.2)), Some(("語", 1.))]),
    ];
    for (prompt, expected) in cases {
        let found = parse(prompt).expect("a prompt");
        let as_expected = found.len() == expected.len()
            && found.iter().zip(&expected).all(|pair| match pair {
                (Some((text, weight)), Some((wanted, at))) => text == wanted && (weight - at).abs() < 1e-12,
                (found, wanted) => found.is_none() && wanted.is_none(),
            });
        assert!(as_expected, "{prompt:?}:\n  found {found:?}\n  not   {expected:?}");
    }
}

#[test]
fn weights_that_cannot_be_used_are_named() {
    assert_eq!(parse("(a:1.2.3)"), Err(PromptError::Weight("1.2.3".into())));
    assert_eq!(parse("(a:.)"), Err(PromptError::Weight(".".into())));
    assert_eq!(parse("(a:-100.5)"), Err(PromptError::Large { found: -100.5 }));
    let digits = "9".repeat(400);
    assert!(matches!(parse(&format!("(a:{digits})")), Err(PromptError::Large { .. })));
    assert!(matches!(parse("((a:20):20)"), Err(PromptError::Large { found: 400. })));
    assert!(matches!(parse(&format!("{}a", "(".repeat(60))), Err(PromptError::Large { .. })));
    assert_eq!(parse(&"(".repeat(101)), Err(PromptError::Depth));
    assert_eq!(parse(&"([".repeat(51)), Err(PromptError::Depth));
    // Long, deep, and read in no time.
    let long = format!("{}{}", "([".repeat(49), "a(b)[c]\\(:1.1)BREAK".repeat(20_000));
    assert!(parse(&long).is_ok());
}

fn tokenizer() -> ClipTokenizer {
    ClipTokenizer::read(&goldens::directory().join("tiny-sd/tokenizer"), 77).expect("the tokenizer")
}

/// The ids between the marks, up to the first mark of the end.
fn text(chunk: &Chunk, tokenizer: &ClipTokenizer) -> Vec<i64> {
    let marks = tokenizer.marks();
    assert_eq!((chunk.ids.len(), chunk.weights.len(), chunk.ids[0]), (77, 77, marks.begin));
    let end = chunk.ids.iter().position(|&id| id == marks.end).expect("an end");
    assert!(chunk.ids[end + 1..].iter().all(|&id| id == marks.pad));
    assert!(chunk.weights[0] == 1. && chunk.weights[end..].iter().all(|&weight| weight == 1.));
    chunk.ids[1..end].to_vec()
}

fn lengths(prompt: &str, backtrack: usize) -> Vec<usize> {
    let (tokenizer, none) = (tokenizer(), Inversions::default());
    let chunker = Chunker { backtrack, ..Chunker::new(&tokenizer, &none) };
    let chunks = chunker.chunks(prompt).expect("chunks");
    let texts: Vec<Vec<i64>> = chunks.iter().map(|chunk| text(chunk, &tokenizer)).collect();
    let whole = tokenizer.words(&prompt.replace("BREAK", " ")).expect("tokens");
    assert_eq!(texts.concat(), whole, "nothing is lost");
    texts.iter().map(Vec::len).collect()
}

#[test]
fn prompts_are_cut_into_chunks_at_commas() {
    let a = |count: usize| "a ".repeat(count);
    assert_eq!(lengths("", 20), [0]);
    assert_eq!(lengths(&a(75), 20), [75]);
    assert_eq!(lengths(&a(76), 20), [75, 1]);
    assert_eq!(lengths(&a(200), 20), [75, 75, 50]);
    // 56 tokens with the comma: 19 behind it move on; with 55, 20 would be one too many.
    assert_eq!(lengths(&format!("{}, {}", a(55), a(30)), 20), [56, 30]);
    assert_eq!(lengths(&format!("{}, {}", a(54), a(30)), 20), [75, 10]);
    assert_eq!(lengths(&format!("{}, {}", a(55), a(30)), 0), [75, 11]);
    // The last comma counts, and a prompt that ends in time is not cut.
    assert_eq!(lengths(&format!("{}, {}, {}", a(55), a(10), a(30)), 20), [67, 30]);
    assert_eq!(lengths(&format!("{}, {}", a(55), a(19)), 20), [75]);
    // A comma that is the 76th token goes on alone.
    assert_eq!(lengths(&format!("{}, {}, b", a(70), a(4)), 20), [75, 2]);
    assert_eq!(lengths(&format!("{}, b", a(75)), 20), [75, 2]);
    assert_eq!(lengths(&format!("{}, b", a(74)), 20), [75, 1]);
    // Commas of one chunk do not count in the next.
    assert_eq!(lengths(&format!("{}, {}", a(60), a(100)), 20), [61, 75, 25]);
    assert_eq!(lengths("a BREAK b", 20), [1, 1]);
    assert_eq!(lengths("BREAK a BREAK BREAK b BREAK", 20), [0, 1, 0, 1]);
}

#[test]
fn pads_are_the_tokenizers_own_and_rows_come_out_even() {
    let none = Inversions::default();
    for (model, pad) in [("tiny-sd", 773), ("variant", 0)] {
        let tokenizer = ClipTokenizer::read(&goldens::directory().join(model).join("tokenizer"), 77).expect("the tokenizer");
        assert_eq!(tokenizer.marks().pad, pad);
        let chunker = Chunker::new(&tokenizer, &none);
        // One chunk is what encoding without chunks is.
        let chunk = chunker.chunks("a photo of a cat").expect("chunks").remove(0);
        assert_eq!(chunk.ids, tokenizer.encode("a photo of a cat").expect("tokens").ids);
        assert_eq!(chunker.empty().ids, tokenizer.encode("").expect("tokens").ids);
        let mut rows = [chunker.chunks("").expect("chunks"), chunker.chunks("a BREAK b BREAK c").expect("chunks")];
        chunker.even_out(&mut rows);
        assert_eq!(rows.each_ref().map(Vec::len), [3, 3]);
        assert_eq!(rows[0][2], chunker.empty());
    }
}

#[test]
fn prompts_that_are_too_long_are_refused() {
    let (tokenizer, none) = (tokenizer(), Inversions::default());
    let chunker = Chunker { limit: 2, ..Chunker::new(&tokenizer, &none) };
    assert!(chunker.chunks(&"a ".repeat(150)).is_ok());
    let refused = Err(ChunkError::TooLong { limit: 2, room: 75 });
    assert_eq!(chunker.chunks(&"a ".repeat(151)), refused);
    assert_eq!(chunker.chunks("BREAK BREAK a"), refused);
    assert!(matches!(chunker.chunks("(a:1.2.3)"), Err(ChunkError::Prompt(_))));
}

fn embeddings() -> Inversions {
    let read = |name: &str| TextualInversion::read(&directory().join("embeddings").join(name), &[32]).expect("embeddings");
    let mut words = read("my-style.safetensors");
    words.extend(read("learned_embeds.safetensors"));
    Inversions::new(words).expect("two names")
}

#[test]
fn weights_chunks_and_learnt_words_are_the_reference() {
    let (tokenizer, inversions, model) = (tokenizer(), embeddings(), clip("tiny-sd", Kind::Float));
    let chunker = Chunker::new(&tokenizer, &inversions);
    let prompt = "a (cat:1.3) by My-Style, [[the] table BREAK (<cat-toy>), in the (((morning)) light";
    let row = chunker.chunks(prompt).expect("chunks");
    let ids: Vec<i64> = row.iter().flat_map(|chunk| chunk.ids.clone()).collect();
    assert_eq!(Tensor::from_slice(&ids).view([2, 77]), tensor("chunks.ids"));
    let weights: Vec<f32> = row.iter().flat_map(|chunk| chunk.weights.clone()).collect();
    same("weights", &Tensor::from_slice(&weights).view([2, 77]), "chunks.weights");

    let encoder = |emphasis, readout| ChunkEncoder {
        model: &model,
        encoder: 0,
        inversions: &inversions,
        readout,
        emphasis,
        kind: Kind::Float,
    };
    let kept = encoder(Emphasis::MeanKept, Readout::LAST);
    same("mean kept", &kept.encode(slice::from_ref(&row)), "chunks.kept");
    same("plain", &encoder(Emphasis::Plain, Readout::LAST).encode(slice::from_ref(&row)), "chunks.plain");
    same("skipped", &encoder(Emphasis::Plain, Readout::LAST.skipping(1)).encode(slice::from_ref(&row)), "chunks.skipped");

    // In a batch with an empty prompt, each row is what it is alone.
    let mut rows = [chunker.chunks("").expect("chunks"), row];
    chunker.even_out(&mut rows);
    let (hidden, pooled) = kept.encode_pooled(&rows);
    assert_eq!(hidden.size(), [2, 154, 32]);
    same("in a batch", &hidden.narrow(0, 1, 1), "chunks.kept");
    same("pooled", &pooled.narrow(0, 1, 1), "chunks.pooled");
    let alone = kept.encode(&[vec![chunker.empty()]]);
    let plain = model.forward(&Tensor::from_slice(&chunker.empty().ids).view([1, 77]));
    assert_eq!(alone, plain, "weights of 1 change nothing");
}

#[test]
fn learnt_words_stand_alone_and_are_never_torn() {
    let (tokenizer, inversions) = (tokenizer(), embeddings());
    let chunker = Chunker::new(&tokenizer, &inversions);
    let count =
        |prompt: &str| chunker.chunks(prompt).expect("chunks").iter().map(|chunk| chunk.vectors.len()).collect::<Vec<_>>();
    assert_eq!(count("MY-STYLE"), [2]);
    assert_eq!(count("my-styles amy-style my-style2"), [0]);
    assert_eq!(count("x<cat-toy>y, (my-style)my-style:"), [5]);
    let chunks = chunker.chunks(&format!("{}my-style b", "a ".repeat(74))).expect("chunks");
    assert_eq!(chunks[0].ids[75], tokenizer.marks().end);
    let places: Vec<(usize, usize)> = chunks[1].vectors.iter().map(|place| (place.position, place.vector)).collect();
    assert_eq!(places, [(1, 0), (2, 1)]);
    // It moves on with what follows the comma.
    let chunks = chunker.chunks(&format!("{}, my-style {}", "a ".repeat(60), "b ".repeat(20))).expect("chunks");
    assert!(chunks[0].vectors.is_empty());
    assert_eq!(chunks[1].vectors.iter().map(|place| place.position).collect::<Vec<_>>(), [1, 2]);

    let short = ClipTokenizer::read(&goldens::directory().join("tiny-sd/tokenizer"), 3).expect("the tokenizer");
    let error = Chunker::new(&short, &inversions).chunks("my-style").expect_err("no room");
    assert_eq!(error, ChunkError::Embedding { name: "my-style".into(), vectors: 2, room: 1 });
}

#[test]
fn learnt_words_of_two_text_encoders_come_in_pairs() {
    let path = directory().join("embeddings/pair.safetensors");
    let words = TextualInversion::read(&path, &[32, 24]).expect("a pair");
    assert_eq!(words[0].name, "pair");
    assert_eq!([words[0].vectors[0].size(), words[0].vectors[1].size()], [[2, 32], [2, 24]]);
    // A refiner has the second one alone.
    assert_eq!(TextualInversion::read(&path, &[24]).expect("half a pair")[0].vectors[0].size(), [2, 24]);
    let message = |widths: &[i64]| TextualInversion::read(&path, widths).expect_err("refused").to_string();
    assert!(message(&[32]).contains("2 text encoder(s), but this model has 1"), "{}", message(&[32]));
    assert!(message(&[32, 32]).contains("`clip_g` have width 24"), "{}", message(&[32, 32]));
}

#[test]
fn embeddings_that_do_not_fit_are_named() {
    let dir = scratch("embeddings");
    let written = |tensors: &[(&str, &Tensor)], widths: &[i64]| {
        let path = dir.join("word.safetensors");
        save(tensors.iter().copied(), Kind::Float, &path).expect("saved");
        TextualInversion::read(&path, widths).expect_err("refused").to_string()
    };
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    assert!(written(&[("emb_params", &zeros(&[2, 8]))], &[32]).contains("width 8, but the text encoder has 32"));
    assert!(written(&[("<a>", &zeros(&[2, 2, 32]))], &[32]).contains("[2, 2, 32]"));
    assert!(written(&[("<a>", &zeros(&[MAX_VECTORS + 1, 32]))], &[32]).contains("76 vectors"));
    assert!(written(&[("<a>", &zeros(&[0, 32]))], &[32]).contains("0 vectors"));
    assert!(written(&[(" ", &zeros(&[32]))], &[32]).contains("without a name"));
    assert!(written(&[("<a>", &zeros(&[32]))], &[32, 24]).contains("but this model has 2"));
    assert!(written(&[("clip_l", &zeros(&[1, 32])), ("clip_g", &zeros(&[2, 24]))], &[32, 24]).contains("[1, 2]"));
    assert!(written(&[("<a>", &(zeros(&[32]) + f64::INFINITY))], &[32]).contains("finite"));
    assert!(written(&[], &[32]).contains("no embedding"));
    let missing = TextualInversion::read(&dir.join("nowhere.safetensors"), &[32]).expect_err("refused");
    assert!(matches!(missing, InversionError::Checkpoint(_)) && missing.to_string().contains("nowhere"));
    let word = |name: &str| TextualInversion { name: name.into(), vectors: vec![zeros(&[1, 32])] };
    let twice = Inversions::new(vec![word("<A>"), word("b"), word("<a>")]).expect_err("refused");
    assert!(twice.to_string().contains("<A>") || twice.to_string().contains("<a>"));
    // The longer name wins.
    let words = Inversions::new(vec![word("cat"), word("cat-toy")]).expect("two names");
    let (range, found) = words.find("a cat-toy").expect("found");
    assert_eq!((range, words.name(found)), (2..9, "cat-toy"));
}
