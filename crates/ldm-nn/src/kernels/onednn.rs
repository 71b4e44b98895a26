//! Products with weights packed once, by oneDNN through libtorch's stable C ABI.
//!
//! ATen's `linear` packs the weights at every call, and in float32 leaves them to MKL, which is slow on AMD. All `unsafe`
//! of this way in is here: an `AtenTensorHandle` is the pointer to an `at::Tensor` on the heap that tch keeps as well.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};

/// `AtenTensorHandle`.
type Handle = *mut c_void;
/// `StableListHandle`.
type List = *mut c_void;

// torch/csrc/inductor/aoti_torch/c/shim.h, shim_cpu.h and torch/csrc/stable/c/shim.h of libtorch 2.11; 0 is success.
unsafe extern "C" {
    fn aoti_torch_call_dispatcher(name: *const c_char, overload: *const c_char, stack: *mut u64) -> i32;
    fn torch_new_list_reserve_size(size: usize, list: *mut List) -> i32;
    fn torch_list_push_back(list: List, element: u64) -> i32;
    fn aoti_torch_cpu__linear_pointwise(
        x: Handle,
        weight: Handle,
        bias: *mut Handle,
        attribute: *const c_char,
        scalars: *const *const f64,
        scalars_len: i64,
        algorithm: *const *const c_char,
        out: *mut Handle,
    ) -> i32;
    fn aoti_torch_cpu__linear_pointwise_binary(
        x: Handle,
        other: Handle,
        weight: Handle,
        bias: *mut Handle,
        attribute: *const c_char,
        out: *mut Handle,
    ) -> i32;
    fn aoti_torch_cpu_mkldnn__convolution_pointwise(
        x: Handle,
        weight: Handle,
        bias: *mut Handle,
        padding: *const i64,
        padding_len: i64,
        stride: *const i64,
        stride_len: i64,
        dilation: *const i64,
        dilation_len: i64,
        groups: i64,
        attribute: *const c_char,
        scalars: *const *const f64,
        scalars_len: i64,
        algorithm: *const *const c_char,
        out: *mut Handle,
    ) -> i32;
}

/// What happens to a product before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Post {
    /// Nothing.
    Nothing,
    /// GELU with the error function (Hendrycks & Gimpel 2016).
    Gelu,
}

fn handle(x: &Tensor) -> Handle {
    x.as_ptr().cast_mut().cast()
}

/// Calls an operator of the dispatcher that returns one tensor.
///
/// # Safety
/// `stack` holds as many arguments as the operator `name` takes, each as `StableIValue` of its type, and handed over.
unsafe fn dispatch(name: &CStr, stack: &mut [u64]) -> Option<Tensor> {
    // SAFETY: by the contract; the answer replaces the first argument, as a handle that is ours.
    unsafe {
        let code = aoti_torch_call_dispatcher(name.as_ptr(), c"".as_ptr(), stack.as_mut_ptr());
        (code == 0).then(|| Tensor::from_ptr(stack[0] as *mut _))
    }
}

/// A handle that the dispatcher may take: it deletes what it is given.
fn given(x: &Tensor) -> u64 {
    let clone = std::mem::ManuallyDrop::new(x.shallow_clone());
    handle(&clone) as u64
}

fn list(values: &[i64]) -> u64 {
    let mut list = null_mut();
    // SAFETY: the list is written before it is used; an integer is its own `StableIValue`.
    unsafe {
        assert_eq!(torch_new_list_reserve_size(values.len(), &raw mut list), 0, "libtorch made no list");
        for &value in values {
            assert_eq!(torch_list_push_back(list, value as u64), 0, "libtorch refused a list's element");
        }
    }
    list as u64
}

/// `weight` `[output, input]` packed; `None` where oneDNN does not do it.
pub(crate) fn pack_linear(weight: &Tensor) -> Option<Tensor> {
    // SAFETY: `mkldnn::_reorder_linear_weight(Tensor self, SymInt? batch_size=None)`; null is None.
    able(weight).then(|| unsafe { dispatch(c"mkldnn::_reorder_linear_weight", &mut [given(&weight.contiguous()), 0]) }).flatten()
}

/// `weight` `[output, input, h, w]` packed; `None` where oneDNN does not do it.
pub(crate) fn pack_conv(weight: &Tensor, stride: i64, padding: i64) -> Option<Tensor> {
    if !able(weight) {
        return None;
    }
    let mut stack = [given(weight), list(&[padding; 2]), list(&[stride; 2]), list(&[1; 2]), 1, 0];
    // SAFETY: `mkldnn::_reorder_convolution_weight(Tensor self, SymInt[2] padding=0, SymInt[2] stride=1, SymInt[2] dilation=1,
    // SymInt groups=1, SymInt[]? input_size=None)`.
    unsafe { dispatch(c"mkldnn::_reorder_convolution_weight", &mut stack) }
}

/// Whether weights of this dtype are worth a try here: tried once, on a small product.
fn able(weight: &Tensor) -> bool {
    static FLOAT: OnceLock<bool> = OnceLock::new();
    static BFLOAT16: OnceLock<bool> = OnceLock::new();
    let found = match weight.kind() {
        Kind::Float => &FLOAT,
        Kind::BFloat16 => &BFLOAT16,
        _ => return false,
    };
    weight.device() == Device::Cpu
        && *found.get_or_init(|| {
            let x = Tensor::ones([32, 32], (weight.kind(), Device::Cpu));
            // SAFETY: as in `pack_linear`.
            let packed = unsafe { dispatch(c"mkldnn::_reorder_linear_weight", &mut [given(&x), 0]) };
            packed
                .and_then(|packed| call_linear(&x, &packed, None, Post::Nothing))
                .is_some_and(|y| (y - 32.).abs().max().double_value(&[]) == 0.)
        })
}

/// `post(x Wᵀ + b)` for weights of [`pack_linear`].
///
/// # Panics
/// When libtorch refuses.
pub(crate) fn linear(x: &Tensor, packed: &Tensor, bias: Option<&Tensor>, post: Post) -> Tensor {
    call_linear(x, packed, bias, post).expect("oneDNN's linear layer")
}

fn call_linear(x: &Tensor, packed: &Tensor, bias: Option<&Tensor>, post: Post) -> Option<Tensor> {
    let (mut held, mut out) = (bias.map_or(null_mut(), handle), null_mut());
    let bias = if bias.is_some() { &raw mut held } else { null_mut() };
    let (attribute, exact) = (if post == Post::Gelu { c"gelu" } else { c"none" }, c"none".as_ptr());
    // SAFETY: handles of tensors that live until the call returns; an absent bias is null; `exact` is read for "gelu" alone;
    // on success `out` is a new handle that is ours.
    unsafe {
        let code = aoti_torch_cpu__linear_pointwise(
            handle(x),
            handle(packed),
            bias,
            attribute.as_ptr(),
            null(),
            0,
            &raw const exact,
            &raw mut out,
        );
        (code == 0).then(|| Tensor::from_ptr(out.cast()))
    }
}

/// `(x Wᵀ + b) · other`, element by element.
///
/// # Panics
/// When libtorch refuses.
pub(crate) fn linear_times(x: &Tensor, packed: &Tensor, bias: Option<&Tensor>, other: &Tensor) -> Tensor {
    let (mut held, mut out) = (bias.map_or(null_mut(), handle), null_mut());
    let bias = if bias.is_some() { &raw mut held } else { null_mut() };
    // SAFETY: as in `call_linear`.
    unsafe {
        let code = aoti_torch_cpu__linear_pointwise_binary(
            handle(x),
            handle(other),
            handle(packed),
            bias,
            c"mul".as_ptr(),
            &raw mut out,
        );
        assert_eq!(code, 0, "oneDNN's linear layer");
        Tensor::from_ptr(out.cast())
    }
}

/// A convolution with weights of [`pack_conv`].
///
/// # Panics
/// When libtorch refuses.
pub(crate) fn conv(x: &Tensor, packed: &Tensor, bias: &Tensor, stride: i64, padding: i64) -> Tensor {
    let (mut held, mut out) = (handle(bias), null_mut());
    let (stride, padding, dilation) = ([stride; 2], [padding; 2], [1i64; 2]);
    // SAFETY: handles of tensors and arrays that live until the call returns; `out` is a new handle that is ours.
    unsafe {
        let code = aoti_torch_cpu_mkldnn__convolution_pointwise(
            handle(x),
            handle(packed),
            &raw mut held,
            padding.as_ptr(),
            2,
            stride.as_ptr(),
            2,
            dilation.as_ptr(),
            2,
            1,
            c"none".as_ptr(),
            null(),
            0,
            null(),
            &raw mut out,
        );
        assert_eq!(code, 0, "oneDNN's convolution");
        Tensor::from_ptr(out.cast())
    }
}
