//! The most frequent texts of a stream in constant memory: Space-Saving (Metwally, Agrawal and El Abbadi, 2005). Must not
//! know what the texts are.

/// Texts that are counted.
const TEXTS_MAX: usize = 32;
/// Bytes of one that are kept.
const TEXT_BYTES_MAX: usize = 64;

/// The texts, with how often each came at most.
#[derive(Debug, Clone, Default)]
pub struct Frequent {
    texts: Vec<(Box<str>, u64)>,
}

impl Frequent {
    /// Takes one.
    pub fn push(&mut self, text: &str) {
        let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
        let text = &text[..end.unwrap_or(0)];
        if let Some((_, count)) = self.texts.iter_mut().find(|(known, _)| **known == *text) {
            *count += 1;
        } else if self.texts.len() < TEXTS_MAX {
            self.texts.push((text.into(), 1));
        } else if let Some((least, count)) = self.texts.iter_mut().min_by_key(|(_, count)| *count) {
            *least = text.into();
            *count += 1;
        }
    }

    /// The most frequent ones first, at most so many.
    #[must_use]
    pub fn top(&self, most: usize) -> Vec<(&str, u64)> {
        let mut texts: Vec<(&str, u64)> = self.texts.iter().map(|(text, count)| (&**text, *count)).collect();
        texts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        texts.truncate(most);
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frequent_is_found_among_much_that_is_not() {
        let mut frequent = Frequent::default();
        for index in 0..10_000 {
            frequent.push(&if index % 5 == 0 { "often".into() } else { format!("rare{index}") });
        }
        assert_eq!(frequent.top(1)[0].0, "often");
        assert!(frequent.top(1)[0].1 >= 2000);
        let mut long = Frequent::default();
        long.push(&"é".repeat(100));
        assert_eq!(long.top(9)[0].0.len(), 64);
    }
}
