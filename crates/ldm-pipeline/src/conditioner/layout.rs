//! Boxes with labels as tokens of a transformer (paper, Section 4.3.1).

use ldm_core::task::Work;
use ldm_core::{Failure, Request};
use ldm_nn::conditioners::{LayoutConfig, LayoutObject, LdmBertModel};
use tch::{Device, Kind, Tensor};

use super::{Conditioner, Given, unsupported, wrong_task};
use crate::run::Guided;

/// Boxes.
pub(crate) struct Boxes {
    pub(crate) layout: LayoutConfig,
    pub(crate) model: LdmBertModel,
    pub(crate) device: Device,
    pub(crate) kind: Kind,
}

impl Conditioner for Boxes {
    fn condition(&mut self, request: &Request, _: bool) -> Result<Guided<Given>, Failure> {
        let Work::Layout(work) = &request.work else { return Err(wrong_task(request)) };
        let objects: Vec<LayoutObject> = work
            .boxes
            .iter()
            .map(|b| LayoutObject {
                category: b.label,
                bbox: b.bbox,
                is_group: b.is_group_of,
                is_occluded: b.is_occluded,
                is_depiction: b.is_depiction,
                is_inside: b.is_inside,
            })
            .collect();
        let ids = self.layout.tokens(&objects, None).map_err(unsupported)?;
        let ids = Tensor::from_slice(&ids).unsqueeze(0).to_device(self.device); // [1, L]
        let tokens = self.model.forward_as(&ids, self.kind); // [1, L, D]
        Ok(Guided::Off(Given { tokens: Some(tokens), ..Given::default() }))
    }

    fn shape(&self, _: &Request, _: bool) -> Result<[u32; 2], Failure> {
        Ok([self.layout.length() as u32, self.model.config().d_model as u32])
    }
}
