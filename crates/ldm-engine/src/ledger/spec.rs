//! A request as a ledger keeps it: JSON, with pictures and other long things beside it as objects; and back to a draft.

use bytes::Bytes;
use ldm_core::task::{MaskingDraft, Task, UnknownTask};
use ldm_core::{Draft, Plane, Raster, Request, Tenant, Terms};

use super::wire::{self, Neighbors, Picture, VERSION, Versioned};

/// What a named job does: pictures `seed`, `seed + 1`, … of one request, under these terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The request of the first picture.
    pub request: Request,
    /// How many pictures.
    pub images: u32,
    /// Under which terms.
    pub terms: Terms,
}

/// A spec as a ledger and an object store keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// For [`NewJob::spec`](super::NewJob::spec).
    pub json: String,
    /// To be put at `in/<job>/<n>`, in this order. Raw: `[H, W, 3]` or `[H, W]` bytes, embeddings as little-endian f32.
    pub objects: Vec<Bytes>,
}

/// Why a spec could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// It was written by another version.
    #[error("the job's spec has version {0}, this program reads {VERSION}")]
    Version(u32),
    /// It is no spec.
    #[error("the job's spec cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// It names a task that is not known.
    #[error("the job's spec: {0}")]
    Task(#[from] UnknownTask),
    /// An object is missing, or has another size than it should.
    #[error("object {object} of the job does not hold `{field}`")]
    Object {
        /// Which object.
        object: usize,
        /// What it should hold.
        field: &'static str,
    },
}

impl Spec {
    /// As JSON and objects.
    pub fn pack(&self) -> Result<Packed, SpecError> {
        let Self { request, images, terms: Terms { tenant, priority, deadline } } = self;
        let mut objects = Objects(Vec::new());
        let work = objects.work(request.draft());
        let wire = wire::Spec {
            version: VERSION,
            tenant: tenant.name().to_owned(),
            priority: *priority,
            deadline: *deadline,
            images: *images,
            task: request.work.task().name().to_owned(),
            model: request.model.clone(),
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone(),
            prompting: request.prompting,
            width: request.width,
            height: request.height,
            steps: request.steps,
            sampler: request.sampler.clone(),
            schedule: request.schedule.clone(),
            guidance: request.guidance,
            eta: request.eta,
            seed: request.seed,
            tuning: request.tuning.into(),
            rounding: request.rounding,
            preview_every: request.preview_every,
            loras: request.loras.iter().cloned().map(Into::into).collect(),
            work,
        };
        Ok(Packed { json: serde_json::to_string(&wire)?, objects: objects.0 })
    }
}

/// Objects that a spec refers to by their number.
struct Objects(Vec<Bytes>);

impl Objects {
    fn push(&mut self, bytes: Bytes) -> usize {
        self.0.push(bytes);
        self.0.len() - 1
    }

    fn raster(&mut self, raster: Option<Raster>) -> Option<Picture> {
        let raster = raster?;
        let object = self.push(Bytes::copy_from_slice(raster.data()));
        Some(Picture { object, width: raster.width(), height: raster.height() })
    }

    fn plane(&mut self, plane: Option<Plane>) -> Option<Picture> {
        let plane = plane?;
        let object = self.push(Bytes::copy_from_slice(plane.data()));
        Some(Picture { object, width: plane.width(), height: plane.height() })
    }

    fn neighbors(&mut self, neighbors: Option<Vec<Vec<f32>>>) -> Option<Neighbors> {
        let neighbors = neighbors?;
        let lengths = neighbors.iter().map(Vec::len).collect();
        let numbers: Vec<u8> = neighbors.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
        Some(Neighbors { object: self.push(numbers.into()), lengths })
    }

    /// What only the task needs. The draft is taken apart whole, so that a new field cannot be forgotten; what every task
    /// has is written by [`Spec::pack`], from the request.
    fn work(&mut self, draft: Draft) -> wire::Work {
        #[rustfmt::skip]
        let Draft {
            init_image, strength, mask, masking, lr_image, scale, noise_level, depth, class, boxes, semantic, neighbors, hires,
            task: _, model: _, prompt: _, negative_prompt: _, prompting: _, width: _, height: _, steps: _, sampler: _,
            schedule: _, guidance: _, eta: _, seed: _, tuning: _, rounding: _, images: _, preview_every: _, loras: _,
        } = draft;
        wire::Work {
            init_image: self.raster(init_image),
            strength,
            mask: self.plane(mask),
            masking: (masking != MaskingDraft::default()).then(|| masking.into()),
            lr_image: self.raster(lr_image),
            scale,
            noise_level,
            depth: self.plane(depth),
            class,
            boxes: boxes.map(|boxes| boxes.into_iter().map(Into::into).collect()),
            semantic: self.plane(semantic),
            neighbors: self.neighbors(neighbors),
            hires: hires.map(Into::into),
        }
    }
}

/// Reads a spec back: a draft, to be checked against the catalogue as it is now, and the terms. `objects` are those that
/// [`Spec::pack`] gave, in order.
pub fn unpack(json: &str, objects: &[Bytes]) -> Result<(Draft, Terms), SpecError> {
    let Versioned { version } = serde_json::from_str(json)?;
    if version != VERSION {
        return Err(SpecError::Version(version));
    }
    let wire: wire::Spec = serde_json::from_str(json)?;
    let task: Task = wire.task.parse()?;
    let work = wire.work;
    let draft = Draft {
        task,
        model: Some(wire.model),
        prompt: Some(wire.prompt),
        negative_prompt: Some(wire.negative_prompt),
        prompting: Some(wire.prompting),
        width: Some(i64::from(wire.width)),
        height: Some(i64::from(wire.height)),
        steps: Some(i64::from(wire.steps)),
        sampler: Some(wire.sampler),
        schedule: Some(wire.schedule),
        guidance: Some(wire.guidance),
        eta: Some(wire.eta),
        seed: i64::try_from(wire.seed).ok(),
        tuning: wire.tuning.into(),
        rounding: Some(wire.rounding),
        images: Some(i64::from(wire.images)),
        preview_every: wire.preview_every.map(i64::from),
        loras: wire.loras.into_iter().map(Into::into).collect(),
        init_image: raster("init_image", work.init_image, objects)?,
        strength: work.strength,
        mask: plane("mask", work.mask, objects)?,
        masking: work.masking.map(Into::into).unwrap_or_default(),
        lr_image: raster("lr_image", work.lr_image, objects)?,
        scale: work.scale,
        noise_level: work.noise_level,
        depth: plane("depth", work.depth, objects)?,
        class: work.class,
        boxes: work.boxes.map(|boxes| boxes.into_iter().map(Into::into).collect()),
        semantic: plane("semantic", work.semantic, objects)?,
        neighbors: work.neighbors.map(|neighbors| numbers(&neighbors, objects)).transpose()?,
        hires: work.hires.map(Into::into),
    };
    Ok((draft, Terms { tenant: Tenant::new(&wire.tenant), priority: wire.priority, deadline: wire.deadline }))
}

fn bytes<'a>(field: &'static str, object: usize, objects: &'a [Bytes]) -> Result<&'a [u8], SpecError> {
    objects.get(object).map(|bytes| &bytes[..]).ok_or(SpecError::Object { object, field })
}

fn raster(field: &'static str, picture: Option<Picture>, objects: &[Bytes]) -> Result<Option<Raster>, SpecError> {
    let Some(Picture { object, width, height }) = picture else { return Ok(None) };
    let raster = Raster::new(width, height, bytes(field, object, objects)?);
    raster.map(Some).map_err(|_| SpecError::Object { object, field })
}

fn plane(field: &'static str, picture: Option<Picture>, objects: &[Bytes]) -> Result<Option<Plane>, SpecError> {
    let Some(Picture { object, width, height }) = picture else { return Ok(None) };
    let plane = Plane::new(width, height, bytes(field, object, objects)?);
    plane.map(Some).map_err(|_| SpecError::Object { object, field })
}

fn numbers(neighbors: &Neighbors, objects: &[Bytes]) -> Result<Vec<Vec<f32>>, SpecError> {
    let Neighbors { object, ref lengths } = *neighbors;
    let damaged = SpecError::Object { object, field: "neighbors" };
    let data = bytes("neighbors", object, objects)?;
    let total = lengths.iter().try_fold(0_usize, |sum, length| sum.checked_add(*length));
    if total.and_then(|total| total.checked_mul(4)) != Some(data.len()) {
        return Err(damaged);
    }
    let mut numbers = data.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number));
    Ok(lengths.iter().map(|length| numbers.by_ref().take(*length).collect()).collect())
}
