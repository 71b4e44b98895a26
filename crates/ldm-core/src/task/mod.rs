//! Tasks: what a request asks the model to do. One file each.

mod img2img;
mod txt2img;

pub use img2img::Img2Img;
pub use txt2img::Txt2Img;

use std::fmt;

/// The kind of a task, as catalogues list it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// A picture from a prompt.
    Txt2Img,
    /// A picture from a picture and a prompt.
    Img2Img,
}

impl Task {
    /// Every task, in the order in which they are listed.
    pub const ALL: [Task; 2] = [Task::Txt2Img, Task::Img2Img];

    /// The name that routes, catalogues, metrics and logs use.
    pub fn name(self) -> &'static str {
        match self {
            Task::Txt2Img => "txt2img",
            Task::Img2Img => "img2img",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A task with what only it needs, checked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Work {
    /// See [`Task::Txt2Img`].
    Txt2Img(Txt2Img),
    /// See [`Task::Img2Img`].
    Img2Img(Img2Img),
}

impl Work {
    /// Its kind.
    pub fn task(&self) -> Task {
        match self {
            Work::Txt2Img(_) => Task::Txt2Img,
            Work::Img2Img(_) => Task::Img2Img,
        }
    }
}
