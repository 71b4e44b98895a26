//! A file in memory: tensors that point into it keep it there, and give its pages back when the last of them goes.

use std::ffi::c_void;
use std::fs::File;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;

use memmap2::{Mmap, UncheckedAdvice};
use tch::{Kind, Tensor};

// torch/csrc/stable/c/shim.h of libtorch 2.11; 0 is success.
unsafe extern "C" {
    fn torch_from_blob(
        data: *mut c_void,
        dimensions: i64,
        sizes: *const i64,
        strides: *const i64,
        storage_offset: i64,
        dtype: i32,
        device_type: i32,
        device_index: i32,
        out: *mut *mut c_void,
        layout: i32,
        metadata: *const u8,
        metadata_size: i64,
        deleter: extern "C" fn(*mut c_void, *mut c_void),
        context: *mut c_void,
    ) -> i32;
}

/// A file that is mapped read-only.
pub(super) struct MappedFile {
    map: Mmap,
}

/// What a tensor holds of its file.
struct Held {
    file: Arc<MappedFile>,
    offset: usize,
    length: usize,
}

impl MappedFile {
    /// Maps the file, which must have `length` bytes still.
    pub(super) fn open(path: &Path, length: u64) -> std::io::Result<Arc<Self>> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only and private; a file that another process truncates while it is served would raise
        // SIGBUS, which is the documented contract of serving from a mapped file.
        let map = unsafe { Mmap::map(&file) }?;
        if map.len() as u64 != length {
            return Err(std::io::Error::other(format!("it had {length} bytes a moment ago, and now has {}", map.len())));
        }
        Ok(Arc::new(Self { map }))
    }

    /// Bytes from `offset` on.
    pub(super) fn bytes(&self, offset: usize, length: usize) -> &[u8] {
        &self.map[offset..offset + length]
    }

    /// Takes pages out of this process' memory. They stay in the system's cache, and come back when they are read again.
    fn release(&self, offset: usize, length: usize) {
        // SAFETY: the map is of a file and never written to, so that dropped pages are read again as they were. A system that
        // refuses keeps them, which costs memory alone.
        _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, length) };
    }

    /// A tensor at `offset`, pointing into the file where its address allows it.
    pub(super) fn tensor(self: &Arc<Self>, offset: usize, shape: &[i64], kind: Kind) -> Tensor {
        let count: i64 = if shape.contains(&0) { 0 } else { shape.iter().product() };
        let size = kind.elt_size_in_bytes();
        let bytes = self.bytes(offset, count as usize * size);
        let is_aligned = (bytes.as_ptr() as usize).is_multiple_of(size);
        let pointing = (is_aligned && count > 0).then(|| self.pointing(offset, bytes, shape, kind)).flatten();
        pointing.unwrap_or_else(|| Tensor::from_data_size(bytes, shape, kind))
    }

    fn pointing(self: &Arc<Self>, offset: usize, bytes: &[u8], shape: &[i64], kind: Kind) -> Option<Tensor> {
        let dtype = scalar_type(kind)?;
        let mut strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * shape[i];
        }
        let held = Box::into_raw(Box::new(Held { file: Arc::clone(self), offset, length: bytes.len() }));
        let mut out = null_mut();
        // SAFETY: the range lies in the file and fits shape and dtype, the pointer is aligned (both by the caller), and it stays
        // valid because `held` keeps the map until libtorch calls the deleter, once; networks never write to their parameters
        // in place. CPU is device type 0 without an index, strided is layout 0; on success `out` is a new handle that is ours.
        unsafe {
            let code = torch_from_blob(
                bytes.as_ptr().cast_mut().cast(),
                shape.len() as i64,
                shape.as_ptr(),
                strides.as_ptr(),
                0,
                dtype,
                0,
                -1,
                &raw mut out,
                0,
                std::ptr::null(),
                0,
                let_go,
                held.cast(),
            );
            // When libtorch refuses, it is not known whether the deleter ran: `held` is then left alone.
            (code == 0).then(|| Tensor::from_ptr(out.cast()))
        }
    }
}

extern "C" fn let_go(_data: *mut c_void, held: *mut c_void) {
    // SAFETY: `pointing` made it with `Box::into_raw`, and libtorch calls this once for each tensor's storage.
    let held = unsafe { Box::from_raw(held.cast::<Held>()) };
    held.file.release(held.offset, held.length);
}

/// `c10::ScalarType` (c10/core/ScalarType.h).
fn scalar_type(kind: Kind) -> Option<i32> {
    Some(match kind {
        Kind::Uint8 => 0,
        Kind::Int => 3,
        Kind::Int64 => 4,
        Kind::Half => 5,
        Kind::Float => 6,
        Kind::Double => 7,
        Kind::Bool => 11,
        Kind::BFloat16 => 15,
        _ => return None,
    })
}
