//! A writer and a reader of the FlatBuffer format, as far as TFLite needs it. Must not know what the tables mean.
//!
//! The writer goes forward: tables first, in the order of their depth, then the values they point to, so that every
//! offset points ahead as the format wants. Equal tables share their shape (vtable), equal values are written once, and
//! small values fill the gaps that aligned ones leave.

use std::collections::HashMap;

use crate::error::{EdgeError, Result};

/// Which object of a [`Builder`].
pub(super) type ObjectId = usize;

/// A field of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Field {
    Byte(u8),
    Int(i32),
    Float(f32),
    To(ObjectId),
}

#[derive(Debug, Clone)]
enum Object {
    Table(Vec<(u16, Field)>),
    Offsets(Vec<ObjectId>),
    Values { bytes: Vec<u8>, count: u32, align: usize },
}

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Builder {
    objects: Vec<Object>,
    values: HashMap<(Vec<u8>, u32, usize), ObjectId>,
    tables: HashMap<Vec<(u16, [u8; 5])>, ObjectId>,
}

impl Builder {
    fn add(&mut self, object: Object) -> ObjectId {
        self.objects.push(object);
        self.objects.len() - 1
    }

    /// A table; fields must not repeat. Equal ones are written once.
    pub(super) fn table(&mut self, mut fields: Vec<(u16, Field)>) -> ObjectId {
        fields.sort_by_key(|(slot, _)| *slot);
        let key = fields.iter().map(|(slot, field)| (*slot, key(*field))).collect::<Vec<_>>();
        if let Some(id) = self.tables.get(&key) {
            return *id;
        }
        let id = self.add(Object::Table(fields));
        self.tables.insert(key, id);
        id
    }

    /// A list of objects.
    pub(super) fn offsets(&mut self, list: Vec<ObjectId>) -> ObjectId {
        self.add(Object::Offsets(list))
    }

    /// A list of numbers, as bytes; `align` is at least the size of one.
    pub(super) fn values(&mut self, bytes: Vec<u8>, count: usize, align: usize) -> ObjectId {
        let count = u32::try_from(count).expect("below the limit of elements");
        let key = (bytes, count, align);
        if let Some(id) = self.values.get(&key) {
            return *id;
        }
        let id = self.add(Object::Values { bytes: key.0.clone(), count, align });
        self.values.insert(key, id);
        id
    }

    /// A text.
    pub(super) fn text(&mut self, text: &str) -> ObjectId {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.values(bytes, text.len(), 4)
    }

    /// The file, with its root table and its four identifying bytes.
    pub(super) fn finish(self, root: ObjectId, identifier: &[u8; 4]) -> Vec<u8> {
        let mut depth = vec![0usize; self.objects.len()];
        // children are made before their parents, so one pass from the back finds the longest way down
        for id in (0..self.objects.len()).rev() {
            for child in self.children(id) {
                depth[child] = depth[child].max(depth[id] + 1);
            }
        }
        let is_value = |id: &usize| matches!(self.objects[*id], Object::Values { .. });
        let mut order: Vec<usize> = (0..self.objects.len()).filter(|id| !is_value(id)).collect();
        order.sort_by_key(|id| (depth[*id], *id));
        let mut out = Out { bytes: vec![0; 8], places: vec![0; self.objects.len()], vtables: HashMap::new() };
        out.bytes[4..8].copy_from_slice(identifier);
        let mut patches = Vec::new();
        for id in order {
            match &self.objects[id] {
                Object::Table(fields) => out.table(id, fields, &mut patches),
                Object::Offsets(list) => out.offsets(id, list, &mut patches),
                Object::Values { .. } => {}
            }
        }
        self.write_values(&mut out);
        patches.push((0, root));
        for (at, target) in patches {
            let distance = u32::try_from(out.places[target] - at).expect("files are below the limit");
            out.bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
        }
        out.bytes
    }

    fn children(&self, id: ObjectId) -> Vec<ObjectId> {
        match &self.objects[id] {
            Object::Table(fields) => fields
                .iter()
                .filter_map(|(_, field)| if let Field::To(to) = field { Some(*to) } else { None })
                .collect(),
            Object::Offsets(list) => list.clone(),
            Object::Values { .. } => Vec::new(),
        }
    }

    /// Lists of numbers, each time the one that wastes least.
    fn write_values(&self, out: &mut Out) {
        let is_value = |id: &usize| matches!(self.objects[*id], Object::Values { .. });
        let mut rest: Vec<usize> = (0..self.objects.len()).filter(is_value).collect();
        while !rest.is_empty() {
            let waste = |id: usize| {
                let Object::Values { align, .. } = &self.objects[id] else {
                    unreachable!("a list of numbers")
                };
                (out.bytes.len() + 4).next_multiple_of(*align.max(&4)) - 4 - out.bytes.len()
            };
            let size = |id: usize| match &self.objects[id] {
                Object::Values { bytes, align, .. } => (*align, bytes.len()),
                _ => (0, 0),
            };
            let next = (0..rest.len())
                .min_by_key(|place| (waste(rest[*place]), std::cmp::Reverse(size(rest[*place]))));
            let id = rest.remove(next.expect("it is not empty"));
            let skipped = waste(id);
            let Object::Values { bytes, count, .. } = &self.objects[id] else {
                unreachable!("a list of numbers")
            };
            out.bytes.extend(std::iter::repeat_n(0, skipped));
            out.places[id] = out.bytes.len();
            out.bytes.extend(count.to_le_bytes());
            out.bytes.extend(bytes);
        }
        out.align(4);
    }
}

fn key(field: Field) -> [u8; 5] {
    let (tag, bytes) = match field {
        Field::Byte(value) => (0, u32::from(value).to_le_bytes()),
        Field::Int(value) => (1, value.to_le_bytes()),
        Field::Float(value) => (2, value.to_le_bytes()),
        Field::To(id) => (3, u32::try_from(id).expect("few objects").to_le_bytes()),
    };
    [tag, bytes[0], bytes[1], bytes[2], bytes[3]]
}

struct Out {
    bytes: Vec<u8>,
    places: Vec<usize>,
    vtables: HashMap<Vec<u16>, usize>,
}

impl Out {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn table(&mut self, id: ObjectId, fields: &[(u16, Field)], patches: &mut Vec<(usize, ObjectId)>) {
        let mut inline = Vec::new();
        let slots = fields.last().map_or(0, |(slot, _)| usize::from(*slot) + 1);
        let mut vtable = vec![0u16; slots + 2];
        // words first, so that nothing inside needs a gap
        let wide = |field: &Field| !matches!(field, Field::Byte(_));
        for (slot, field) in
            fields.iter().filter(|(_, f)| wide(f)).chain(fields.iter().filter(|(_, f)| !wide(f)))
        {
            vtable[usize::from(*slot) + 2] = u16::try_from(inline.len() + 4).expect("tables are small");
            match field {
                Field::Byte(value) => inline.push(*value),
                Field::Int(value) => inline.extend(value.to_le_bytes()),
                Field::Float(value) => inline.extend(value.to_le_bytes()),
                Field::To(target) => {
                    patches.push((inline.len() + 4, *target));
                    inline.extend([0; 4]);
                }
            }
        }
        vtable[0] = u16::try_from(vtable.len() * 2).expect("tables are small");
        vtable[1] = u16::try_from(inline.len() + 4).expect("tables are small");
        let vtable_at = match self.vtables.get(&vtable) {
            Some(at) => *at,
            None => {
                self.align(2);
                let at = self.bytes.len();
                self.bytes.extend(vtable.iter().flat_map(|word| word.to_le_bytes()));
                self.vtables.insert(vtable, at);
                at
            }
        };
        self.align(4);
        let at = self.bytes.len();
        self.places[id] = at;
        let back = i32::try_from(at - vtable_at).expect("files are below the limit");
        self.bytes.extend(back.to_le_bytes());
        self.bytes.extend(inline);
        let first = patches.len() - fields.iter().filter(|(_, field)| matches!(field, Field::To(_))).count();
        patches[first..].iter_mut().for_each(|(place, _)| *place += at);
    }

    fn offsets(&mut self, id: ObjectId, list: &[ObjectId], patches: &mut Vec<(usize, ObjectId)>) {
        self.align(4);
        self.places[id] = self.bytes.len();
        self.bytes.extend(u32::try_from(list.len()).expect("few objects").to_le_bytes());
        for target in list {
            patches.push((self.bytes.len(), *target));
            self.bytes.extend([0; 4]);
        }
    }
}

/// A table in the bytes of a file. Every access is checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
    vtable: usize,
}

fn outside(at: usize) -> EdgeError {
    EdgeError::malformed("TFLite file", format!("an offset leads outside, at byte {at}"))
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let end = at.checked_add(N).ok_or_else(|| outside(at))?;
    bytes.get(at..end).and_then(|part| part.try_into().ok()).ok_or_else(|| outside(at))
}

fn word(bytes: &[u8], at: usize) -> Result<usize> {
    take(bytes, at).map(|word| u32::from_le_bytes(word) as usize)
}

/// The root table of a file with these four identifying bytes.
pub(super) fn root<'a>(bytes: &'a [u8], identifier: &[u8; 4]) -> Result<Table<'a>> {
    if take::<4>(bytes, 4)? != *identifier {
        let fault = format!("expected '{}' at byte 4", String::from_utf8_lossy(identifier));
        return Err(EdgeError::malformed("TFLite file", fault));
    }
    Table::at(bytes, word(bytes, 0)?)
}

impl<'a> Table<'a> {
    fn at(bytes: &'a [u8], at: usize) -> Result<Self> {
        let back = i64::from(i32::from_le_bytes(take(bytes, at)?));
        let vtable = i64::try_from(at).ok().and_then(|at| at.checked_sub(back));
        let vtable = vtable.and_then(|at| usize::try_from(at).ok()).ok_or_else(|| outside(at))?;
        let size = usize::from(u16::from_le_bytes(take(bytes, vtable)?));
        if size < 4 || bytes.len() < vtable.saturating_add(size) {
            return Err(outside(vtable));
        }
        Ok(Self { bytes, at, vtable })
    }

    fn field(&self, slot: u16) -> Result<Option<usize>> {
        let place = 4 + 2 * usize::from(slot);
        let size = usize::from(u16::from_le_bytes(take(self.bytes, self.vtable)?));
        if place + 2 > size {
            return Ok(None);
        }
        let offset = usize::from(u16::from_le_bytes(take(self.bytes, self.vtable + place)?));
        Ok((offset != 0).then(|| self.at + offset))
    }

    fn follow(&self, slot: u16) -> Result<Option<usize>> {
        let Some(at) = self.field(slot)? else { return Ok(None) };
        at.checked_add(word(self.bytes, at)?).map(Some).ok_or_else(|| outside(at))
    }

    pub(super) fn byte(&self, slot: u16) -> Result<u8> {
        Ok(self.field(slot)?.map(|at| take::<1>(self.bytes, at)).transpose()?.map_or(0, |byte| byte[0]))
    }

    pub(super) fn int(&self, slot: u16, default: i32) -> Result<i32> {
        Ok(self.field(slot)?.map(|at| take(self.bytes, at)).transpose()?.map_or(default, i32::from_le_bytes))
    }

    pub(super) fn float(&self, slot: u16) -> Result<f32> {
        Ok(self.field(slot)?.map(|at| take(self.bytes, at)).transpose()?.map_or(0.0, f32::from_le_bytes))
    }

    pub(super) fn child(&self, slot: u16) -> Result<Option<Table<'a>>> {
        self.follow(slot)?.map(|at| Table::at(self.bytes, at)).transpose()
    }

    /// A list of tables.
    pub(super) fn children(&self, slot: u16) -> Result<Vec<Table<'a>>> {
        let Some(at) = self.follow(slot)? else { return Ok(Vec::new()) };
        let count = word(self.bytes, at)?;
        if count > self.bytes.len() / 4 {
            return Err(outside(at));
        }
        let child = |index: usize| {
            let at = at + 4 + 4 * index;
            Table::at(self.bytes, at.checked_add(word(self.bytes, at)?).ok_or_else(|| outside(at))?)
        };
        (0..count).map(child).collect()
    }

    /// A list of elements of some bytes each.
    pub(super) fn values(&self, slot: u16, element_bytes: usize) -> Result<&'a [u8]> {
        let Some(at) = self.follow(slot)? else { return Ok(&[]) };
        let size = word(self.bytes, at)?.checked_mul(element_bytes).ok_or_else(|| outside(at))?;
        let end = (at + 4).checked_add(size).ok_or_else(|| outside(at))?;
        self.bytes.get(at + 4..end).ok_or_else(|| outside(at))
    }

    pub(super) fn text(&self, slot: u16) -> Result<String> {
        Ok(String::from_utf8_lossy(self.values(slot, 1)?).into_owned())
    }

    pub(super) fn ints(&self, slot: u16) -> Result<Vec<i32>> {
        Ok(self.values(slot, 4)?.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect())
    }
}
