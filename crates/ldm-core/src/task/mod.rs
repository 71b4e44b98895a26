//! Tasks: what a request asks the model to do. One file each.

mod class;
mod depth;
mod img2img;
mod inpaint;
mod layout;
mod masking;
mod rdm;
mod semantic;
mod super_resolution;
mod txt2img;
mod unconditional;

pub use class::Class;
pub use depth::Depth;
pub use img2img::Img2Img;
pub use inpaint::Inpaint;
pub use layout::{Bbox, Layout};
pub use masking::{Fill, Masking, MaskingDraft};
pub use rdm::Rdm;
pub use semantic::Semantic;
pub(crate) use super_resolution::Sizes as EnlargedSizes;
pub use super_resolution::SuperResolution;
pub use txt2img::{Hires, HiresDraft, Txt2Img, Upscaler};
pub use unconditional::Unconditional;

use std::fmt;
use std::str::FromStr;

/// The kind of a task, as catalogues list it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// A picture from a prompt.
    Txt2Img,
    /// A picture from a picture and a prompt.
    Img2Img,
    /// A picture with a part of it painted anew.
    Inpaint,
    /// A larger picture from a smaller one.
    SuperResolution,
    /// A picture from a prompt and a map of depths.
    Depth,
    /// A picture of what the model was trained on.
    Unconditional,
    /// A picture of a class.
    Class,
    /// A picture from boxes with labels.
    Layout,
    /// A picture from a map of classes.
    Semantic,
    /// A picture from embeddings of a prompt and its retrieved neighbours.
    Rdm,
}

impl Task {
    /// Every task, in the order in which they are listed.
    pub const ALL: [Task; 10] = [
        Task::Txt2Img,
        Task::Img2Img,
        Task::Inpaint,
        Task::SuperResolution,
        Task::Depth,
        Task::Unconditional,
        Task::Class,
        Task::Layout,
        Task::Semantic,
        Task::Rdm,
    ];

    /// The name that routes, catalogues, metrics and logs use.
    pub fn name(self) -> &'static str {
        match self {
            Task::Txt2Img => "txt2img",
            Task::Img2Img => "img2img",
            Task::Inpaint => "inpaint",
            Task::SuperResolution => "super-resolution",
            Task::Depth => "depth",
            Task::Unconditional => "unconditional",
            Task::Class => "class",
            Task::Layout => "layout",
            Task::Semantic => "semantic",
            Task::Rdm => "rdm",
        }
    }

    /// Whether a prompt has a part in it.
    pub fn takes_prompt(self) -> bool {
        matches!(self, Task::Txt2Img | Task::Img2Img | Task::Inpaint | Task::SuperResolution | Task::Depth)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no task; known: {}", Task::ALL.map(Task::name).join(", "))]
pub struct UnknownTask {
    given: String,
}

impl FromStr for Task {
    type Err = UnknownTask;

    fn from_str(text: &str) -> Result<Self, UnknownTask> {
        Task::ALL.into_iter().find(|task| task.name() == text).ok_or_else(|| UnknownTask { given: text.to_owned() })
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
    /// See [`Task::Inpaint`].
    Inpaint(Inpaint),
    /// See [`Task::SuperResolution`].
    SuperResolution(SuperResolution),
    /// See [`Task::Depth`].
    Depth(Depth),
    /// See [`Task::Unconditional`].
    Unconditional(Unconditional),
    /// See [`Task::Class`].
    Class(Class),
    /// See [`Task::Layout`].
    Layout(Layout),
    /// See [`Task::Semantic`].
    Semantic(Semantic),
    /// See [`Task::Rdm`].
    Rdm(Rdm),
}

impl Work {
    /// Its kind.
    pub fn task(&self) -> Task {
        match self {
            Work::Txt2Img(_) => Task::Txt2Img,
            Work::Img2Img(_) => Task::Img2Img,
            Work::Inpaint(_) => Task::Inpaint,
            Work::SuperResolution(_) => Task::SuperResolution,
            Work::Depth(_) => Task::Depth,
            Work::Unconditional(_) => Task::Unconditional,
            Work::Class(_) => Task::Class,
            Work::Layout(_) => Task::Layout,
            Work::Semantic(_) => Task::Semantic,
            Work::Rdm(_) => Task::Rdm,
        }
    }

    /// Bytes of the pictures and maps that came with the request.
    pub fn bytes(&self) -> usize {
        match self {
            Work::Txt2Img(_) | Work::Unconditional(_) | Work::Class(_) => 0,
            Work::Img2Img(work) => work.init.data().len(),
            Work::Inpaint(work) => work.init.data().len() + work.mask.data().len(),
            Work::SuperResolution(work) => work.low.data().len(),
            Work::Depth(work) => work.init.data().len() + work.depth.data().len(),
            Work::Layout(work) => size_of_val(work.boxes.as_slice()),
            Work::Semantic(work) => work.map.data().len(),
            Work::Rdm(work) => work.neighbors.iter().map(|row| size_of_val(row.as_slice())).sum(),
        }
    }

    /// How much of the schedule is run, for tasks that start from a picture.
    pub fn strength(&self) -> Option<f64> {
        match self {
            Work::Img2Img(work) => Some(work.strength),
            Work::Inpaint(work) => Some(work.strength),
            Work::Depth(work) => Some(work.strength),
            _ => None,
        }
    }
}
