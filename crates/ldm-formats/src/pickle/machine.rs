//! The stack machine. Opcodes and their meaning: CPython, `Lib/pickletools.py`.

use std::collections::HashMap;

use super::{Callable, Id, Limits, Pickle, PickleError, StorageRef, TensorRef, Value};
use crate::Dtype;

/// Reads one pickle (protocols 2 to 5) from the start of `data`; what follows it is left alone.
///
/// # Errors
/// When an opcode is not on the list, something is malformed or more than `limits` allow. A call of an unknown function is no
/// error: its result is a [`Value::Opaque`] that names it.
pub fn read<'d>(data: &'d [u8], limits: &Limits) -> Result<Pickle<'d>, PickleError> {
    let (values, stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { data, at: 0, start: 0, limits, values, stack, marks, memo, copied: 0 };
    let mut opcodes = 0;
    loop {
        machine.start = machine.at;
        opcodes += 1;
        if opcodes > limits.opcodes {
            return Err(machine.limit("opcodes", limits.opcodes));
        }
        if let Some(root) = machine.step()? {
            return Ok(Pickle { values: machine.values, root, length: machine.at });
        }
    }
}

struct Machine<'d, 'l> {
    data: &'d [u8],
    at: usize,
    /// Where the current opcode started.
    start: usize,
    limits: &'l Limits,
    values: Vec<Value<'d>>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Pairs copied out of lists by `OrderedDict`: the one opcode whose work is not bounded by what it takes off the stack.
    copied: u64,
}

impl<'d> Machine<'d, '_> {
    /// Runs one opcode; the root when it was the last.
    fn step(&mut self) -> Result<Option<Id>, PickleError> {
        let code = self.bytes(1, "an opcode")?[0];
        match code {
            // PROTO
            0x80 => {
                if !(2..=5).contains(&self.bytes(1, "PROTO")?[0]) {
                    return Err(self.malformed("the protocol is not 2, 3, 4 or 5"));
                }
            }
            // FRAME: a hint for readers of streams; the bytes that it announces must be there.
            0x95 => {
                let length = self.number(8, "FRAME")?;
                if length > (self.data.len() - self.at) as u64 {
                    return Err(self.truncated("a frame"));
                }
            }
            // STOP
            b'.' => {
                let root = self.pop()?;
                if !self.stack.is_empty() || !self.marks.is_empty() {
                    return Err(self.malformed("STOP leaves values on the stack"));
                }
                return Ok(Some(root));
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            // BININT, BININT1, BININT2, LONG1, LONG4
            b'J' => {
                let value = self.number(4, "BININT")? as u32;
                self.push(Value::Int(i64::from(value.cast_signed())))?;
            }
            b'K' => {
                let value = self.number(1, "BININT1")?;
                self.push(Value::Int(value.cast_signed()))?;
            }
            b'M' => {
                let value = self.number(2, "BININT2")?;
                self.push(Value::Int(value.cast_signed()))?;
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            // BINFLOAT, big-endian
            b'G' => {
                let bytes = self.bytes(8, "BINFLOAT")?;
                self.push(Value::Float(f64::from_be_bytes(bytes.try_into().unwrap_or_default())))?;
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => self.unicode(1)?,
            b'X' => self.unicode(4)?,
            0x8d => self.unicode(8)?,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => self.binary(1)?,
            b'B' => self.binary(4)?,
            0x8e | 0x96 => self.binary(8)?,
            // SHORT_BINSTRING, BINSTRING: Python 2's str, text as far as it is UTF-8
            b'U' => self.string(1)?,
            b'T' => self.string(4)?,
            // EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items))?;
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..code - 0x84 {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Value::Tuple(items))?;
            }
            // EMPTY_LIST, LIST, APPEND, APPENDS
            b']' => self.push(Value::List(Vec::new()))?,
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b'd' => {
                let items = self.pop_to_mark()?;
                let pairs = self.pairs(&items)?;
                self.push(Value::Dict(pairs))?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)?;
            }
            // EMPTY_SET, FROZENSET, ADDITEMS: no checkpoint's tensors need a set
            0x8f => self.push(Value::Opaque("builtins", "set"))?,
            0x91 => {
                self.pop_to_mark()?;
                self.push(Value::Opaque("builtins", "frozenset"))?;
            }
            0x90 => {
                self.pop_to_mark()?;
                let top = self.top()?;
                if !matches!(self.values[top as usize], Value::Opaque(..)) {
                    return Err(self.malformed("ADDITEMS to something that is no set"));
                }
            }
            // MARK, POP, POP_MARK, DUP
            b'(' => {
                if self.marks.len() >= self.limits.marks {
                    return Err(self.limit("open marks", self.limits.marks as u64));
                }
                self.marks.push(self.stack.len());
            }
            b'0' => {
                // As in CPython: a mark on top is what goes.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => _ = self.pop_to_mark()?,
            b'2' => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            // BINGET, LONG_BINGET, BINPUT, LONG_BINPUT, MEMOIZE
            b'h' => self.get(1)?,
            b'j' => self.get(4)?,
            b'q' => {
                let index = self.number(1, "BINPUT")? as u32;
                self.put(index)?;
            }
            b'r' => {
                let index = self.number(4, "LONG_BINPUT")? as u32;
                self.put(index)?;
            }
            0x94 => self.put(self.memo.len() as u32)?,
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push(global(module, name))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Str(module), Value::Str(name)) = (&self.values[module as usize], &self.values[name as usize]) else {
                    return Err(self.malformed("STACK_GLOBAL without two strings"));
                };
                let value = global(module, name);
                self.push(value)?;
            }
            // REDUCE, NEWOBJ: the callable with a tuple of arguments
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let value = self.call(callable, arguments)?;
                self.push_id(value)?;
            }
            // NEWOBJ_EX: with keywords, which nothing known takes
            0x92 => {
                let (_keywords, _arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                let value = self.opaque(class);
                self.push(value)?;
            }
            // INST, OBJ: instances of old-style classes
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                self.pop_to_mark()?;
                self.push(Value::Opaque(module, name))?;
            }
            b'o' => {
                let items = self.pop_to_mark()?;
                let Some(&class) = items.first() else { return Err(self.malformed("OBJ without a class")) };
                let value = self.opaque(class);
                self.push(value)?;
            }
            // BUILD: sets an object's attributes
            b'b' => {
                let _state = self.pop()?;
                let top = self.top()?;
                match &self.values[top as usize] {
                    // `state_dict()` carries `_metadata` as an attribute of its OrderedDict; it has no tensors.
                    Value::Dict(_) | Value::Opaque(..) => {}
                    _ => return Err(self.malformed("BUILD on something that has no attributes")),
                }
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                let value = self.persistent(id)?;
                self.push(value)?;
            }
            _ => return Err(PickleError::Opcode { at: self.start, code, name: refused(code) }),
        }
        Ok(None)
    }

    /// What a call gives: data for the few callables that are known, else something opaque with the callable's name.
    fn call(&mut self, callable: Id, arguments: Id) -> Result<Id, PickleError> {
        let Value::Tuple(arguments) = &self.values[arguments as usize] else {
            return Err(self.malformed("a call without a tuple of arguments"));
        };
        let value = match self.values[callable as usize] {
            Value::Known(Callable::OrderedDict) => match arguments[..] {
                [] => Value::Dict(Vec::new()),
                // The form of old protocols: a list of pairs.
                [pairs] => {
                    let value = self.ordered(pairs)?;
                    if let Value::Dict(pairs) = &value {
                        self.copied += pairs.len() as u64;
                    }
                    if self.copied > self.limits.opcodes {
                        return Err(self.limit("pairs in OrderedDict calls", self.limits.opcodes));
                    }
                    value
                }
                _ => return Err(self.malformed("OrderedDict with more than one argument")),
            },
            Value::Known(Callable::RebuildParameter) => {
                let Some(&tensor) = arguments.first() else { return Err(self.malformed("_rebuild_parameter without a tensor")) };
                return match self.values[tensor as usize] {
                    Value::Tensor(_) | Value::Opaque(..) => Ok(tensor),
                    _ => Err(self.malformed("_rebuild_parameter of something that is no tensor")),
                };
            }
            Value::Known(kind @ (Callable::RebuildTensor | Callable::RebuildTensorV2 | Callable::RebuildTensorV3)) => {
                self.tensor(kind, arguments)?
            }
            _ => self.opaque(callable),
        };
        self.add(value)
    }

    /// A tensor of `_rebuild_tensor*`: storage, offset, size, stride, requires_grad, hooks, [dtype,] [metadata].
    fn tensor(&self, kind: Callable, arguments: &[Id]) -> Result<Value<'d>, PickleError> {
        let &[storage, offset, size, stride, ref rest @ ..] = arguments else {
            return Err(self.malformed("_rebuild_tensor with fewer than four arguments"));
        };
        let storage = match &self.values[storage as usize] {
            Value::Storage(storage) => *storage,
            Value::Opaque(module, name) => return Ok(Value::Opaque(module, name)),
            _ => return Err(self.malformed("_rebuild_tensor of something that is no storage")),
        };
        let value = |at: usize| rest.get(at).map(|&id| &self.values[id as usize]);
        let (dtype, metadata) = if kind == Callable::RebuildTensorV3 {
            let Some(&Value::Known(Callable::Dtype(dtype))) = value(2) else {
                return Ok(Value::Opaque("torch._utils", "_rebuild_tensor_v3 of an unknown dtype"));
            };
            (dtype, value(3))
        } else {
            let Some(dtype) = storage.dtype else {
                return Err(self.malformed("_rebuild_tensor over bytes of no dtype"));
            };
            (dtype, value(2))
        };
        match metadata {
            None | Some(Value::None) => {}
            Some(Value::Dict(pairs)) if pairs.is_empty() => {}
            // Conjugated or negated views: what is stored are not the tensor's numbers.
            Some(_) => return Ok(Value::Opaque("torch._utils", "_rebuild_tensor with metadata")),
        }
        let Some(offset) = self.natural(offset) else { return Err(self.malformed("a tensor's offset is no natural number")) };
        let (Some(size), Some(stride)) = (self.naturals(size), self.naturals(stride)) else {
            return Err(self.malformed("a tensor's size or stride is no tuple of natural numbers"));
        };
        if size.len() > self.limits.rank {
            return Err(self.limit("dimensions of a tensor", self.limits.rank as u64));
        }
        if size.len() != stride.len() {
            return Err(self.malformed("a tensor's size and stride differ in length"));
        }
        Ok(Value::Tensor(Box::new(TensorRef { storage, dtype, offset, size, stride })))
    }

    /// `('storage', class, key, location, numel)`, in files before torch 1.6 with a sixth, `view_metadata`.
    fn persistent(&self, id: Id) -> Result<Value<'d>, PickleError> {
        let Value::Tuple(items) = &self.values[id as usize] else {
            return Err(self.malformed("a persistent id that is no tuple"));
        };
        let value = |at: usize| items.get(at).map(|&id| &self.values[id as usize]);
        match value(0) {
            Some(Value::Str("storage")) => {}
            // Source code of a pickled module, in files before torch 1.6.
            Some(Value::Str("module")) => return Ok(Value::Opaque("torch", "nn.Module (pickled whole)")),
            _ => return Err(self.malformed("a persistent id of an unknown kind")),
        }
        let dtype = match value(1) {
            Some(&Value::Known(Callable::StorageClass(dtype))) => dtype,
            Some(&Value::Opaque(module, name)) => return Ok(Value::Opaque(module, name)),
            _ => return Err(self.malformed("a storage without a class")),
        };
        let (Some(&Value::Str(key)), Some(numel)) = (value(2), items.get(4).and_then(|&id| self.natural(id))) else {
            return Err(self.malformed("a storage without a key and a number of elements"));
        };
        if key.is_empty() || key.len() > 20 || !key.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.malformed("a storage's key is not a number of up to 20 digits"));
        }
        if !matches!(value(5), None | Some(Value::None)) {
            return Ok(Value::Opaque("torch", "a storage that is a view of another (torch before 0.4)"));
        }
        Ok(Value::Storage(StorageRef { key, dtype, numel }))
    }

    fn ordered(&self, pairs: Id) -> Result<Value<'d>, PickleError> {
        let Value::List(pairs) = &self.values[pairs as usize] else {
            return Err(self.malformed("OrderedDict of something that is no list"));
        };
        let pair = |&id: &Id| match &self.values[id as usize] {
            Value::List(items) | Value::Tuple(items) if items.len() == 2 => Some((items[0], items[1])),
            _ => None,
        };
        let pairs: Option<Vec<_>> = pairs.iter().map(pair).collect();
        pairs.map(Value::Dict).ok_or_else(|| self.malformed("OrderedDict of things that are no pairs"))
    }

    /// What is left of a thing that is not known: its name.
    fn opaque(&self, id: Id) -> Value<'d> {
        match self.values[id as usize] {
            Value::Opaque(module, name) => Value::Opaque(module, name),
            _ => Value::Opaque("builtins", "object"),
        }
    }

    fn natural(&self, id: Id) -> Option<u64> {
        match self.values[id as usize] {
            Value::Int(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    fn naturals(&self, id: Id) -> Option<Vec<u64>> {
        match &self.values[id as usize] {
            Value::Tuple(items) if items.len() <= self.limits.rank + 1 => items.iter().map(|&id| self.natural(id)).collect(),
            _ => None,
        }
    }

    fn append(&mut self, mut items: Vec<Id>) -> Result<(), PickleError> {
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::List(list) => list.append(&mut items),
            Value::Opaque(..) => {}
            _ => return Err(self.malformed("APPEND to something that is no list")),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<(), PickleError> {
        let mut pairs = self.pairs(items)?;
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::Dict(dict) => dict.append(&mut pairs),
            Value::Opaque(..) => {}
            _ => return Err(self.malformed("SETITEM of something that is no dictionary")),
        }
        Ok(())
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>, PickleError> {
        if !items.len().is_multiple_of(2) {
            return Err(self.malformed("a key without a value"));
        }
        Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn long(&mut self, width: usize) -> Result<(), PickleError> {
        let bytes = self.counted(width, "LONG")?;
        let value = match bytes {
            [] => Value::Int(0),
            _ if bytes.len() <= 8 => {
                let sign = if bytes[bytes.len() - 1] & 0x80 != 0 { 0xff } else { 0 };
                let mut whole = [sign; 8];
                whole[..bytes.len()].copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(whole))
            }
            _ => Value::Long(bytes),
        };
        self.push(value)
    }

    fn unicode(&mut self, width: usize) -> Result<(), PickleError> {
        let bytes = self.counted(width, "a string")?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.malformed("a string that is not UTF-8"))?;
        self.push(Value::Str(text))
    }

    fn binary(&mut self, width: usize) -> Result<(), PickleError> {
        let bytes = self.counted(width, "bytes")?;
        self.push(Value::Bytes(bytes))
    }

    fn string(&mut self, width: usize) -> Result<(), PickleError> {
        let bytes = self.counted(width, "a string")?;
        self.push(std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Str))
    }

    fn get(&mut self, width: usize) -> Result<(), PickleError> {
        let index = self.number(width, "GET")? as u32;
        let Some(&id) = self.memo.get(&index) else { return Err(self.malformed("GET of a memo entry that is not there")) };
        self.push_id(id)
    }

    fn put(&mut self, index: u32) -> Result<(), PickleError> {
        let top = self.top()?;
        self.memo.insert(index, top);
        if self.memo.len() > self.limits.memo {
            return Err(self.limit("memo entries", self.limits.memo as u64));
        }
        Ok(())
    }

    fn add(&mut self, value: Value<'d>) -> Result<Id, PickleError> {
        let id = Id::try_from(self.values.len()).map_err(|_| self.limit("values", u64::from(Id::MAX)))?;
        self.values.push(value);
        Ok(id)
    }

    fn push(&mut self, value: Value<'d>) -> Result<(), PickleError> {
        let id = self.add(value)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), PickleError> {
        if self.stack.len() >= self.limits.stack {
            return Err(self.limit("values on the stack", self.limits.stack as u64));
        }
        self.stack.push(id);
        Ok(())
    }

    fn top(&self) -> Result<Id, PickleError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => Err(self.malformed("the stack is empty")),
        }
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let floor = self.marks.pop().ok_or_else(|| self.malformed("no mark is open"))?;
        Ok(self.stack.split_off(floor))
    }

    /// The bytes of a thing that says its length first. The length is looked at before anything is done with it.
    fn counted(&mut self, width: usize, what: &'static str) -> Result<&'d [u8], PickleError> {
        let length = self.number(width, what)?;
        match usize::try_from(length) {
            Ok(length) if length <= self.limits.string => self.bytes(length, what),
            _ => Err(self.limit("bytes in one string", self.limits.string as u64)),
        }
    }

    /// A little-endian number.
    fn number(&mut self, width: usize, what: &'static str) -> Result<u64, PickleError> {
        let bytes = self.bytes(width, what)?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<&'d str, PickleError> {
        const LONGEST: usize = 1000;
        let rest = &self.data[self.at..];
        let end = rest.iter().take(LONGEST).position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| self.truncated("the name of a global"))?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| self.malformed("the name of a global is not UTF-8"))
    }

    fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'d [u8], PickleError> {
        let bytes = self.data[self.at..].get(..count).ok_or_else(|| self.truncated(what))?;
        self.at += count;
        Ok(bytes)
    }

    fn truncated(&self, what: &'static str) -> PickleError {
        PickleError::Truncated { at: self.at, what }
    }

    fn malformed(&self, what: &'static str) -> PickleError {
        PickleError::Malformed { at: self.start, what }
    }

    fn limit(&self, what: &'static str, limit: u64) -> PickleError {
        PickleError::Limit { at: self.start, what, limit }
    }
}

/// The allow-list of globals. Nothing is looked up anywhere: a name is either in this table or an opaque label.
fn global<'d>(module: &'d str, name: &'d str) -> Value<'d> {
    let known = match (module, name) {
        ("torch._utils", "_rebuild_tensor") => Some(Callable::RebuildTensor),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Callable::RebuildTensorV2),
        ("torch._utils", "_rebuild_tensor_v3") => Some(Callable::RebuildTensorV3),
        ("torch._utils", "_rebuild_parameter") => Some(Callable::RebuildParameter),
        ("collections", "OrderedDict") => Some(Callable::OrderedDict),
        ("torch.storage" | "torch", "UntypedStorage") => Some(Callable::StorageClass(None)),
        ("torch" | "torch.cuda", class) if class.ends_with("Storage") => {
            Dtype::of_storage(class).map(|dtype| Callable::StorageClass(Some(dtype)))
        }
        ("torch", dtype) => Dtype::of_torch(dtype).map(Callable::Dtype),
        _ => None,
    };
    known.map_or(Value::Opaque(module, name), Value::Known)
}

/// Python's names of opcodes that are refused.
fn refused(code: u8) -> &'static str {
    match code {
        b'I' => "INT, protocol 0",
        b'L' => "LONG, protocol 0",
        b'F' => "FLOAT, protocol 0",
        b'S' => "STRING, protocol 0",
        b'V' => "UNICODE, protocol 0",
        b'g' => "GET, protocol 0",
        b'p' => "PUT, protocol 0",
        b'P' => "PERSID, protocol 0",
        0x82..=0x84 => "EXT",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => "unknown",
    }
}
