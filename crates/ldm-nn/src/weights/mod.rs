//! Where parameters come from: mapped safetensors for serving, fresh variables for training, shapes alone for counting.

mod checkpoint;
mod finite;
mod mapped_file;
mod variables;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use crate::adapters::{Layers, Slot, Slots, SlotsInTheMaking};

pub use checkpoint::{Checkpoint, CheckpointError, Mapped};
pub use variables::{SaveError, Variables, save};

/// The memory format of convolution weights and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// NCHW: for training at small sizes, where the backward pass of channels_last is slow.
    Contiguous,
    /// NHWC strides: for serving.
    ChannelsLast,
}

/// How a fresh parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All the same.
    Constant(f64),
    /// Uniform in ±1/√`fan_in`, as torch starts linear and convolution layers.
    FanIn(i64),
    /// Normal with this standard deviation.
    Normal(f64),
}

enum Origin {
    Checkpoint(Checkpoint),
    /// Its names and shapes alone.
    Survey(Checkpoint),
    Fresh(RefCell<Variables>),
    Shapes(RefCell<BTreeMap<String, Vec<i64>>>),
}

struct Source {
    origin: Origin,
    kind: Kind,
    device: Device,
    layout: Layout,
    used: RefCell<BTreeSet<String>>,
    report: RefCell<Report>,
    slots: SlotsInTheMaking,
    /// Adapters that are added to the weights, with their strengths.
    merged: Vec<(Rc<Layers>, f64)>,
}

/// A place in a tree of parameters; module constructors take one. Cheap to clone; lives while a model is built.
#[derive(Clone)]
pub struct Weights {
    source: Rc<Source>,
    path: String,
}

/// What a checkpoint lacked, had too much of, or had in the wrong shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Parameters of the module.
    pub parameters: u64,
    /// The tensors that they are in.
    pub tensors: u64,
    /// Wanted, not there.
    pub missing: Vec<String>,
    /// There, not wanted.
    pub unexpected: Vec<String>,
    /// There, in another shape: name, wanted, found.
    pub wrong_shape: Vec<(String, Vec<i64>, Vec<i64>)>,
}

/// A checkpoint that does not fit the module.
#[derive(Debug, thiserror::Error)]
#[error("the weights do not fit: {0}")]
pub struct LoadError(pub Report);

impl Report {
    /// Whether everything fitted.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.wrong_shape.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let mut parts = Vec::new();
        for (what, names) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !names.is_empty() {
                let more = if names.len() > SHOWN { ", …" } else { "" };
                parts.push(format!("{} {what} ({}{more})", names.len(), names[..names.len().min(SHOWN)].join(", ")));
            }
        }
        for (name, wanted, found) in self.wrong_shape.iter().take(SHOWN) {
            parts.push(format!("{name} is {found:?}, not {wanted:?}"));
        }
        if self.wrong_shape.len() > SHOWN {
            parts.push(format!("{} of the wrong shape in all", self.wrong_shape.len()));
        }
        if parts.is_empty() {
            parts.push(format!("{} parameters, all there", self.parameters));
        }
        f.write_str(&parts.join("; "))
    }
}

impl Weights {
    fn new(origin: Origin, kind: Kind, device: Device, layout: Layout, merged: Vec<(Rc<Layers>, f64)>) -> Self {
        let (used, report, slots) = (RefCell::default(), RefCell::default(), RefCell::default());
        let source = Source { origin, kind, device, layout, used, report, slots, merged };
        Self { source: Rc::new(source), path: String::new() }
    }

    /// Parameters from a checkpoint, as `kind` on `device`: mapped without a copy where kind and layout allow it.
    pub fn from_checkpoint(checkpoint: Checkpoint, kind: Kind, device: Device, layout: Layout) -> Self {
        Self::merging(checkpoint, Vec::new(), kind, device, layout)
    }

    /// The same with adapters added to the weights that they are for, each with its strength. The sum is made in float32.
    pub fn merging(checkpoint: Checkpoint, adapters: Vec<(Rc<Layers>, f64)>, kind: Kind, device: Device, layout: Layout) -> Self {
        Self::new(Origin::Checkpoint(checkpoint), kind, device, layout, adapters)
    }

    /// Fresh float32 variables with gradients, for training on `device`.
    pub fn fresh(device: Device) -> Self {
        Self::new(Origin::Fresh(RefCell::default()), Kind::Float, device, Layout::Contiguous, Vec::new())
    }

    /// Names and shapes of a checkpoint alone: nothing is read or allocated; for the report of [`finish`](Self::finish) before a
    /// network is built.
    pub fn survey(checkpoint: &Checkpoint) -> Self {
        Self::new(Origin::Survey(checkpoint.clone()), Kind::Float, Device::Cpu, Layout::Contiguous, Vec::new())
    }

    /// Shapes alone: nothing is allocated; for counting parameters.
    pub fn shapes() -> Self {
        Self::new(Origin::Shapes(RefCell::default()), Kind::Float, Device::Cpu, Layout::Contiguous, Vec::new())
    }

    /// The child named `name`, or the `name`-th of a list.
    pub fn sub(&self, name: impl fmt::Display) -> Self {
        Self { source: Rc::clone(&self.source), path: self.join(&name.to_string()) }
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The memory format that convolutions shall use.
    pub fn layout(&self) -> Layout {
        self.source.layout
    }

    /// Whether parameters are trained.
    pub fn is_fresh(&self) -> bool {
        matches!(self.source.origin, Origin::Fresh(_))
    }

    /// The place for adapters of the layer here, whose weight has this shape; trained layers have none.
    pub(crate) fn slot(&self, shape: &[i64]) -> Slot {
        if self.is_fresh() {
            return Slot::default();
        }
        let slot = Slot::new(shape);
        self.source.slots.borrow_mut().insert(self.path.clone(), slot.clone());
        slot
    }

    /// The slots of every layer that was built here.
    pub fn slots(&self) -> Slots {
        Slots::of(&self.source.slots, &self.path)
    }

    /// The weight here with the adapters' changes.
    fn with_adapters(&self, name: &str, weight: Tensor) -> Tensor {
        let changes = self.source.merged.iter().filter_map(|(layers, strength)| Some((layers.get(&self.path)?, strength)));
        let changes = changes.filter(|_| name == "weight").map(|(layer, strength)| layer.delta() * *strength);
        let Some(change) = changes.reduce(|sum, change| sum + change) else { return weight };
        weight.to_kind(Kind::Float) + change.view(weight.size().as_slice())
    }

    /// The dtype of parameters.
    pub fn kind(&self) -> Kind {
        self.source.kind
    }

    /// Where parameters live.
    pub fn device(&self) -> Device {
        self.source.device
    }

    /// Whether the origin has a parameter of that name here; `false` for fresh ones.
    pub fn has(&self, name: &str) -> bool {
        match &self.source.origin {
            Origin::Checkpoint(checkpoint) | Origin::Survey(checkpoint) => checkpoint.shape(&self.join(name)).is_some(),
            Origin::Fresh(_) | Origin::Shapes(_) => false,
        }
    }

    /// The parameter `name` of this shape. A parameter that a checkpoint lacks, or has in another shape, goes to the report
    /// and zeros stand in for it; [`finish`](Self::finish) then refuses the whole.
    pub fn tensor(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.placed(self.stored(name, shape, init))
    }

    /// The same in the dtype and order of the file, on the CPU: for kernels that bring it into their own form in one pass.
    pub(crate) fn stored(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let source = &*self.source;
        let path = self.join(name);
        {
            let mut report = source.report.borrow_mut();
            report.parameters += shape.iter().product::<i64>().unsigned_abs();
            report.tensors += 1;
        }
        match &source.origin {
            Origin::Fresh(variables) => variables.borrow_mut().add(path, shape, init, source.device),
            Origin::Shapes(shapes) => {
                shapes.borrow_mut().insert(path, shape.to_vec());
                stand_in(shape)
            }
            Origin::Checkpoint(checkpoint) if self.noted(checkpoint, &path, shape) => {
                self.with_adapters(name, checkpoint.tensor(&path).view(shape))
            }
            Origin::Survey(checkpoint) => {
                self.noted(checkpoint, &path, shape);
                stand_in(shape)
            }
            Origin::Checkpoint(_) => stand_in(shape),
        }
    }

    /// What [`stored`](Self::stored) gave, as networks hold it: in their dtype, on their device, in their memory format.
    pub(crate) fn placed(&self, tensor: Tensor) -> Tensor {
        let source = &*self.source;
        // What stands in for absent numbers is one number expanded: it must not become real.
        if !tensor.is_contiguous() {
            return tensor.to_device(source.device);
        }
        let tensor = tensor.to_device(source.device).to_kind(source.kind);
        if source.layout == Layout::ChannelsLast && tensor.dim() == 4 { channels_last(&tensor) } else { tensor }
    }

    /// Whether the checkpoint has the parameter in this shape; the report has it when not.
    fn noted(&self, checkpoint: &Checkpoint, path: &str, shape: &[i64]) -> bool {
        let mut report = self.source.report.borrow_mut();
        let Some(found) = checkpoint.shape(path) else {
            report.missing.push(path.to_owned());
            return false;
        };
        self.source.used.borrow_mut().insert(path.to_owned());
        let fits = same_without_ones(&found, shape);
        if !fits {
            report.wrong_shape.push((path.to_owned(), shape.to_vec(), found));
        }
        fits
    }

    /// Ends loading: the strict report, or the error when anything was missing, unexpected or of the wrong shape.
    pub fn finish(self) -> Result<Report, LoadError> {
        crate::kernels::scratch::release();
        let mut report = self.source.report.borrow().clone();
        if let Origin::Checkpoint(checkpoint) | Origin::Survey(checkpoint) = &self.source.origin {
            let used = self.source.used.borrow();
            report.unexpected = checkpoint.names().filter(|name| !used.contains(*name)).map(str::to_owned).collect();
        }
        if report.is_clean() { Ok(report) } else { Err(LoadError(report)) }
    }

    /// Names and shapes of the parameters that were asked of [`shapes`](Self::shapes), once every module is built.
    pub fn into_shapes(self) -> BTreeMap<String, Vec<i64>> {
        match &self.source.origin {
            Origin::Shapes(shapes) => shapes.take(),
            Origin::Checkpoint(_) | Origin::Survey(_) | Origin::Fresh(_) => BTreeMap::default(),
        }
    }

    /// The variables that [`fresh`](Self::fresh) made, once every module is built.
    pub fn into_variables(self) -> Variables {
        match &self.source.origin {
            Origin::Fresh(variables) => variables.take(),
            Origin::Checkpoint(_) | Origin::Survey(_) | Origin::Shapes(_) => Variables::default(),
        }
    }
}

/// One zero that looks like a tensor of this shape.
fn stand_in(shape: &[i64]) -> Tensor {
    Tensor::zeros([1], (Kind::Float, Device::Cpu)).expand(shape, false)
}

/// Whether two shapes differ only by dimensions of 1: old checkpoints keep linear layers as 1×1 convolutions.
fn same_without_ones(a: &[i64], b: &[i64]) -> bool {
    a.iter().filter(|&&n| n != 1).eq(b.iter().filter(|&&n| n != 1))
}

/// `[B, C, H, W]` with NHWC strides.
pub fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}
