//! The weights in a prompt, as stable-diffusion-webui reads them:
//!
//! - `(words)` weighs 1.1, `[words]` 1/1.1, `(words:1.3)` 1.3; nested brackets multiply; brackets that nobody closes reach to the
//!   end, and closing ones that nobody opened are text;
//! - `\(`, `\)`, `\[`, `\]` and `\\` are text, any other backslash is nothing;
//! - `BREAK`, in capitals and alone, starts the next chunk of tokens. (In webui brackets around it make it a word; here it stays
//!   what it says.)

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text that is emphasised as one.
    Text {
        /// Without brackets and weights.
        text: String,
        /// What its tokens' vectors are multiplied by.
        weight: f64,
    },
    /// The chunk ends here.
    Break,
}

/// A prompt whose weights cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PromptError {
    /// The characters of a weight that are no number.
    #[error("the weight `{0}` in the prompt is not a number")]
    Weight(String),
    /// A weight that is too large, alone or multiplied.
    #[error("{found} in the prompt is not a weight between -{MAX_WEIGHT} and {MAX_WEIGHT}")]
    Large {
        /// The weight.
        found: f64,
    },
    /// Brackets in brackets in brackets.
    #[error("the prompt's brackets are nested more than {MAX_DEPTH} deep")]
    Depth,
}

/// The largest weight.
pub const MAX_WEIGHT: f64 = 100.;

/// Open brackets at most.
pub const MAX_DEPTH: usize = 100;

/// What round brackets without a number multiply by.
const MORE: f64 = 1.1;

/// What square ones do.
const LESS: f64 = 1. / 1.1;

/// Splits a prompt into pieces of one weight each. No piece is empty; an empty prompt has none.
pub fn parse(prompt: &str) -> Result<Vec<Piece>, PromptError> {
    let mut parser = Parser::default();
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '\\' => parser.escape(&rest[1..]),
            '(' | '[' => parser.open(first, &rest[1..])?,
            ')' => parser.close(Parser::round, MORE, rest),
            ']' => parser.close(Parser::square, LESS, rest),
            ':' => match number(rest) {
                Some((number, after)) => parser.close_with(number, rest, after)?,
                None => parser.text(rest, 1),
            },
            _ => parser.text(rest, rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len())),
        };
    }
    parser.finish()
}

/// `:`, a number's characters and `)`, with spaces between: the number's characters, and what follows the bracket.
fn number(rest: &str) -> Option<(&str, &str)> {
    let start = rest.strip_prefix(':')?.trim_start();
    let unsigned = start.strip_prefix(['+', '-']).unwrap_or(start);
    let after = unsigned.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    if after.len() == unsigned.len() {
        return None;
    }
    let after_bracket = after.trim_start().strip_prefix(')')?;
    Some((&start[..start.len() - after.len()], after_bracket))
}

#[derive(Default)]
struct Parser {
    pieces: Vec<Piece>,
    /// Of each open bracket, the number of pieces before it.
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Parser {
    fn round(&mut self) -> &mut Vec<usize> {
        &mut self.round
    }

    fn square(&mut self) -> &mut Vec<usize> {
        &mut self.square
    }

    fn push(&mut self, text: &str) {
        self.pieces.push(Piece::Text { text: text.to_owned(), weight: 1. });
    }

    /// Takes `length` bytes as text; every `BREAK` in them ends a chunk, and takes the spaces around it along.
    fn text<'a>(&mut self, rest: &'a str, length: usize) -> &'a str {
        let (text, rest) = rest.split_at(length);
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let mut start = 0;
        for (at, word) in text.match_indices("BREAK") {
            let after = &text[at + word.len()..];
            if !is_word(text[..at].chars().next_back()) && !is_word(after.chars().next()) {
                self.push(text[start..at].trim_end());
                self.pieces.push(Piece::Break);
                start = text.len() - after.trim_start().len();
            }
        }
        self.push(&text[start..]);
        rest
    }

    fn escape<'a>(&mut self, rest: &'a str) -> &'a str {
        let escaped = usize::from(rest.starts_with(['(', ')', '[', ']', '\\']));
        self.push(&rest[..escaped]);
        &rest[escaped..]
    }

    fn open<'a>(&mut self, bracket: char, rest: &'a str) -> Result<&'a str, PromptError> {
        if self.round.len() + self.square.len() >= MAX_DEPTH {
            return Err(PromptError::Depth);
        }
        let before = self.pieces.len();
        if bracket == '(' {
            self.round.push(before)
        } else {
            self.square.push(before)
        }
        Ok(rest)
    }

    /// Closes the innermost bracket of its kind; without one the bracket is text.
    fn close<'a>(&mut self, stack: impl Fn(&mut Self) -> &mut Vec<usize>, factor: f64, rest: &'a str) -> &'a str {
        match stack(self).pop() {
            Some(start) => {
                self.multiply(start, factor);
                &rest[1..]
            }
            None => self.text(rest, 1),
        }
    }

    fn close_with<'a>(&mut self, number: &str, rest: &'a str, after: &'a str) -> Result<&'a str, PromptError> {
        let Some(start) = self.round.pop() else {
            return Ok(self.text(rest, rest.len() - after.len()));
        };
        let found: f64 = number.parse().map_err(|_| PromptError::Weight(number.to_owned()))?;
        if found.abs() > MAX_WEIGHT {
            return Err(PromptError::Large { found });
        }
        self.multiply(start, found);
        Ok(after)
    }

    fn multiply(&mut self, start: usize, factor: f64) {
        for piece in &mut self.pieces[start..] {
            if let Piece::Text { weight, .. } = piece {
                *weight *= factor;
            }
        }
    }

    /// Ends open brackets, joins neighbours of one weight, and drops what is empty.
    fn finish(mut self) -> Result<Vec<Piece>, PromptError> {
        for start in std::mem::take(&mut self.round) {
            self.multiply(start, MORE);
        }
        for start in std::mem::take(&mut self.square) {
            self.multiply(start, LESS);
        }
        let mut joined: Vec<Piece> = Vec::new();
        for piece in self.pieces {
            match (joined.last_mut(), piece) {
                (Some(Piece::Text { text, weight }), Piece::Text { text: more, weight: same }) if *weight == same => {
                    text.push_str(&more);
                }
                (_, piece) => joined.push(piece),
            }
        }
        joined.retain(|piece| !matches!(piece, Piece::Text { text, .. } if text.is_empty()));
        let large = joined.iter().find_map(|piece| match piece {
            Piece::Text { weight, .. } if weight.abs() > MAX_WEIGHT => Some(*weight),
            _ => None,
        });
        large.map_or(Ok(joined), |found| Err(PromptError::Large { found }))
    }
}
