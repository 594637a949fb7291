//! How a stored tensor is seen by the source: each stored axis carries its step in the source's row-major order, so
//! transposing, flattening and reshaping cost nothing until somebody needs another order of memory. Must not know
//! operators.

use crate::graph::Axis;

/// The row-major steps of a shape.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1];
    }
    strides
}

/// The axes of a tensor that is stored as the source has it.
pub(super) fn row_major(shape: &[usize]) -> Vec<Axis> {
    shape.iter().zip(strides(shape)).map(|(len, stride)| Axis { len: *len, stride }).collect()
}

/// The axes of a shape in the order of `order`, where `None` is an axis of length one.
pub(super) fn ordered(shape: &[usize], order: &[Option<usize>]) -> Vec<Axis> {
    let strides = strides(shape);
    let axis = |place: &Option<usize>| match place {
        Some(axis) => Axis { len: shape[*axis], stride: strides[*axis] },
        None => Axis { len: 1, stride: 0 },
    };
    order.iter().map(axis).collect()
}

/// The same memory with the fewest axes: ones are dropped, and neighbours that continue each other are merged.
pub(super) fn merged(axes: &[Axis]) -> Vec<Axis> {
    let mut merged: Vec<Axis> = Vec::new();
    for axis in axes.iter().filter(|axis| axis.len != 1) {
        match merged.last_mut() {
            Some(last) if last.stride == axis.stride * axis.len => {
                *last = Axis { len: last.len * axis.len, stride: axis.stride };
            }
            _ => merged.push(*axis),
        }
    }
    merged
}

/// Whether two lists of axes describe the same order of memory.
pub(super) fn same_memory(a: &[Axis], b: &[Axis]) -> bool {
    merged(a) == merged(b)
}

/// Splits axes so that none crosses a boundary of the other list; `None` if lengths do not divide.
pub(super) fn refined(axes: &[Axis], other: &[Axis]) -> Option<Vec<Axis>> {
    let mut cuts: Vec<usize> =
        other.iter().filter(|axis| axis.len > 1).flat_map(|a| [a.stride, a.stride * a.len]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut all = Vec::new();
    for axis in axes.iter().filter(|axis| axis.len > 1) {
        let end = axis.stride * axis.len;
        let mut parts = Vec::new();
        let mut from = axis.stride;
        for cut in cuts.iter().copied().filter(|cut| *cut > axis.stride && *cut < end).chain([end]) {
            if cut % from != 0 {
                return None;
            }
            parts.push(Axis { len: cut / from, stride: from });
            from = cut;
        }
        all.extend(parts.into_iter().rev().filter(|part| part.len > 1));
    }
    Some(all)
}

/// The axes after the source transposes its shape; `None` if a stored axis would have to be cut in a way that its
/// length forbids.
pub(super) fn transposed(axes: &[Axis], shape: &[usize], permutation: &[usize]) -> Option<Vec<Axis>> {
    let old = strides(shape);
    let new_shape: Vec<usize> = permutation.iter().map(|axis| shape[*axis]).collect();
    let new = strides(&new_shape);
    if let Some(dims) = along(axes, shape) {
        // every stored axis is one of the source's: only their steps change
        let place = |from: usize| permutation.iter().position(|axis| *axis == from);
        let step = |(axis, dim): (&Axis, &Option<usize>)| {
            let stride = dim.map_or(Some(0), |dim| place(dim).map(|place| new[place]))?;
            Some(Axis { len: axis.len, stride })
        };
        return axes.iter().zip(&dims).map(step).collect();
    }
    let parts = refined(axes, &row_major(shape))?;
    let step = |part: &Axis| {
        let from = (0..shape.len())
            .find(|d| shape[*d] > 1 && part.stride >= old[*d] && part.stride < old[*d] * shape[*d])?;
        let place = permutation.iter().position(|axis| *axis == from)?;
        Some(Axis { len: part.len, stride: part.stride / old[from] * new[place] })
    };
    parts.iter().map(step).collect()
}

/// For each stored position, the place of its element in the source's row-major order.
pub(crate) fn source_order(axes: &[Axis]) -> Vec<usize> {
    let mut order = vec![0];
    for axis in axes {
        let mut next = Vec::with_capacity(order.len() * axis.len);
        for base in &order {
            next.extend((0..axis.len).map(|step| base + step * axis.stride));
        }
        order = next;
    }
    order
}

/// Which of the source's axes each stored axis walks along; `None` for axes of length one, an error if it crosses.
pub(super) fn along(axes: &[Axis], shape: &[usize]) -> Option<Vec<Option<usize>>> {
    let steps = strides(shape);
    let find = |axis: &Axis| {
        if axis.len == 1 {
            return Some(None);
        }
        let dim = (0..shape.len()).find(|d| shape[*d] == axis.len && steps[*d] == axis.stride)?;
        Some(Some(dim))
    };
    axes.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(list: &[(usize, usize)]) -> Vec<Axis> {
        list.iter().map(|(len, stride)| Axis { len: *len, stride: *stride }).collect()
    }

    #[test]
    fn channels_last_of_one_pixel_is_the_same_memory() {
        assert!(same_memory(
            &ordered(&[1, 8, 1, 1], &[Some(0), Some(2), Some(3), Some(1)]),
            &row_major(&[1, 8])
        ));
        assert!(!same_memory(
            &ordered(&[1, 8, 2, 1], &[Some(0), Some(2), Some(3), Some(1)]),
            &row_major(&[1, 16])
        ));
    }

    #[test]
    fn transposing_back_and_forth_is_nothing() {
        let nhwc = ordered(&[1, 3, 4, 5], &[Some(0), Some(2), Some(3), Some(1)]);
        // the source's own transposition to channels last
        let seen = transposed(&nhwc, &[1, 3, 4, 5], &[0, 2, 3, 1]).unwrap();
        assert_eq!(merged(&seen), merged(&row_major(&[1, 4, 5, 3])));
    }

    #[test]
    fn elements_are_found_in_the_order_of_the_source() {
        let nhwc = ordered(&[1, 2, 1, 3], &[Some(0), Some(2), Some(3), Some(1)]);
        assert_eq!(source_order(&nhwc), [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn axes_are_cut_where_the_other_list_has_a_boundary() {
        assert_eq!(refined(&axes(&[(12, 1)]), &axes(&[(3, 4), (4, 1)])), Some(axes(&[(3, 4), (4, 1)])));
        assert_eq!(refined(&axes(&[(12, 1)]), &axes(&[(2, 5), (5, 1)])), None);
    }
}
