//! Captured requests in the order in which they came, over all files of several tables. Times are read first; a file is
//! opened when its first row may be the next one and let go after its last, so that only files of the same moment are held.
//! Must not know what rows are for.

use std::{cmp::Reverse, collections::BinaryHeap};

use arrow_array::{RecordBatch, cast::AsArray as _, types::TimestampMicrosecondType};

use crate::{CaptureError, Captured, Table, decode};

/// Files that are open at the same time.
const OPEN_MAX: usize = 256;
/// Rows from one mark of a file's times to the next.
const MARK_ROWS: usize = 256;

/// A request as it came.
#[derive(Debug)]
pub struct Arrival {
    /// Its table's place among those that were named.
    pub table: usize,
    /// The request and its answer.
    pub captured: Captured,
}

/// Rows of several tables, by time. Rows of the same time come in the order of their files.
pub struct Arrivals<'a> {
    tables: &'a [Table],
    /// The one that begins first stands last.
    closed: Vec<Closed>,
    open: Vec<Open>,
    ready: BinaryHeap<Reverse<Ready>>,
    open_max: usize,
    rows: u64,
    read: u64,
}

/// A file that was not opened yet.
struct Closed {
    table: usize,
    path: String,
    times: Times,
}

/// A file whose rows are being read.
struct Open {
    table: usize,
    batches: Box<dyn Iterator<Item = Result<RecordBatch, CaptureError>> + Send>,
    times: Times,
    taken: usize,
}

/// When a file's rows came.
struct Times {
    /// The earliest time from every [`MARK_ROWS`]th row on, in microseconds since 1970.
    marks: Vec<i64>,
    rows: usize,
}

/// A row that waits until no other can be before it.
struct Ready {
    key: (i64, u64),
    arrival: Arrival,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Hand out the first row that is ready.
    Give,
    /// Read on in this open file.
    Read(usize),
    /// Open the next file.
    Open,
    /// There is nothing more.
    End,
}

/// Decides by the earliest times: of what is ready, of what is left in an open file, and of what is closed. Pure.
fn step(ready: Option<i64>, open: Option<(i64, usize)>, closed: Option<i64>) -> Step {
    let is_first = |time: i64| open.is_none_or(|(left, _)| time <= left) && closed.is_none_or(|c| time <= c);
    match (open, closed) {
        _ if ready.is_some_and(is_first) => Step::Give,
        (Some((left, place)), closed) if closed.is_none_or(|closed| left <= closed) => Step::Read(place),
        (_, Some(_)) => Step::Open,
        _ => Step::End,
    }
}

impl Times {
    /// Of a file's column of times, batch by batch.
    fn read(batches: impl Iterator<Item = Result<RecordBatch, CaptureError>>) -> Result<Self, CaptureError> {
        let (mut marks, mut rows) = (Vec::new(), 0);
        for batch in batches {
            let batch = batch?;
            let column = batch.column_by_name("time");
            let times = column.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
            let times =
                times.ok_or_else(|| CaptureError::Damaged("the column 'time' holds no times".into()))?;
            for &time in times.values() {
                if rows % MARK_ROWS == 0 {
                    marks.push(time);
                } else if let Some(mark) = marks.last_mut() {
                    *mark = time.min(*mark);
                }
                rows += 1;
            }
        }
        // from the last one back: nothing behind a mark is before it
        for place in (1..marks.len()).rev() {
            marks[place - 1] = marks[place - 1].min(marks[place]);
        }
        Ok(Self { marks, rows })
    }

    /// A time that no row is before, once so many were taken; `None` when all were.
    fn left(&self, taken: usize) -> Option<i64> {
        (taken < self.rows).then(|| self.marks[taken / MARK_ROWS])
    }
}

impl<'a> Arrivals<'a> {
    /// Reads when the rows of all files came; `tell` hears how many files were looked at, and of how many.
    ///
    /// # Errors
    /// [`CaptureError::Store`], [`CaptureError::Damaged`], and [`CaptureError::Conflict`] for a file that went meanwhile.
    pub fn look(tables: &'a [Table], mut tell: impl FnMut(usize, usize)) -> Result<Self, CaptureError> {
        let all: usize = tables.iter().map(|table| table.files().count()).sum();
        let mut closed = Vec::with_capacity(all);
        let mut looked = 0;
        for (place, table) in tables.iter().enumerate() {
            for add in table.files() {
                let file = table.read_file(&add.path)?;
                let times = Times::read(decode::batches(&add.path, file, Some(&["time"]))?)?;
                if times.rows > 0 {
                    closed.push(Closed { table: place, path: add.path.clone(), times });
                }
                looked += 1;
                tell(looked, all);
            }
        }
        closed.sort_by(|a, b| (b.times.left(0), b.table, &b.path).cmp(&(a.times.left(0), a.table, &a.path)));
        let rows = closed.iter().map(|file| file.times.rows as u64).sum();
        let (open, ready) = Default::default();
        Ok(Self { tables, closed, open, ready, open_max: OPEN_MAX, rows, read: 0 })
    }

    /// How many rows there are in all.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn next_row(&mut self) -> Result<Option<Arrival>, CaptureError> {
        loop {
            let ready = self.ready.peek().map(|Reverse(ready)| ready.key.0);
            let left = |(place, file): (usize, &Open)| Some((file.times.left(file.taken)?, place));
            let open = self.open.iter().enumerate().filter_map(left).min();
            match step(ready, open, self.closed.last().and_then(|file| file.times.left(0))) {
                Step::Give => return Ok(self.ready.pop().map(|Reverse(ready)| ready.arrival)),
                Step::Read(place) => self.read_on(place)?,
                Step::Open => self.open_next()?,
                Step::End => return Ok(None),
            }
        }
    }

    fn open_next(&mut self) -> Result<(), CaptureError> {
        let Some(Closed { table, path, times }) = self.closed.pop() else { return Ok(()) };
        if self.open.len() >= self.open_max {
            let (root, open_max) = (self.tables[table].root(), self.open_max);
            return Err(CaptureError::Invalid(format!(
                "{root}: expected at most {open_max} files with rows of the same moment, got more; replay fewer servers' \
                 rows at once, or offline, which reads file by file"
            )));
        }
        let file = self.tables[table].read_file(&path)?;
        let batches = Box::new(decode::batches(&path, file, None)?);
        self.open.push(Open { table, batches, times, taken: 0 });
        Ok(())
    }

    fn read_on(&mut self, place: usize) -> Result<(), CaptureError> {
        let file = &mut self.open[place];
        let rows = match file.batches.next() {
            Some(batch) => decode::rows(&batch?, self.tables[file.table].layout())?,
            None => Vec::new(),
        };
        file.taken += rows.len();
        let (table, is_done) = (file.table, rows.is_empty() || file.taken >= file.times.rows);
        for captured in rows {
            let key = (captured.time_us, self.read);
            self.read += 1;
            self.ready.push(Reverse(Ready { key, arrival: Arrival { table, captured } }));
        }
        if is_done {
            self.open.swap_remove(place);
        }
        Ok(())
    }
}

impl Iterator for Arrivals<'_> {
    type Item = Result<Arrival, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

impl std::fmt::Debug for Arrivals<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrivals").field("rows", &self.rows).field("open", &self.open.len()).finish()
    }
}

impl PartialEq for Ready {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Ready {}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use gannet_models::{DType, Dim, Redactor, Signature, TensorSpec};
    use smallvec::smallvec;

    use super::*;
    use crate::{Appended, Latency, Layout, Local, Row, Rows, Storage, Values, table::File};

    #[test]
    fn the_earliest_is_given_once_nothing_can_be_before_it() {
        let check = |ready, open, closed, expected| {
            assert_eq!(step(ready, open, closed), expected, "{ready:?} {open:?} {closed:?}");
        };
        check(None, None, None, Step::End);
        check(Some(1), None, None, Step::Give);
        check(Some(1), Some((1, 0)), Some(1), Step::Give);
        check(Some(2), Some((1, 7)), None, Step::Read(7));
        check(Some(2), Some((1, 7)), Some(1), Step::Read(7));
        check(Some(2), Some((3, 7)), Some(1), Step::Open);
        check(None, Some((3, 7)), Some(1), Step::Open);
        check(None, None, Some(1), Step::Open);
    }

    fn signature() -> Signature {
        let spec = |name: &str| {
            let shape = vec![Dim::Dynamic(None)];
            TensorSpec { name: name.into(), dtype: DType::Uint8, shape, labels: None }
        };
        Signature { inputs: vec![spec("x")], outputs: vec![spec("y")], batched: true }
    }

    /// A table of a model, with a file for each list of times.
    fn table(storage: &Arc<dyn Storage>, model: &str, files: &[Vec<i64>]) -> Table {
        let layout = Arc::new(Layout::new(&signature(), &Redactor::default()));
        let mut table = Table::begin(Arc::clone(storage), model, Arc::clone(&layout), 0).unwrap();
        for (number, times) in files.iter().enumerate() {
            let mut rows = Rows::new(Arc::clone(&layout), &signature(), Redactor::default(), (model, "here"));
            for &time_us in times {
                let values = Values { shape: smallvec![1], data: Bytes::from_static(b"1") };
                let row = Row {
                    id: format!("{model}-{number}-{time_us}"),
                    time_us,
                    version: "1".into(),
                    arm: None,
                    sequence: 0,
                    probability: 1.0,
                    rows: 1,
                    latency: Latency::default(),
                    inputs: smallvec![values.clone()],
                    outputs: smallvec![values],
                };
                assert_eq!(rows.append(row), Appended::Taken);
            }
            let file = File::new("here", "2026-01-01", rows.take_file().unwrap(), times.len() as u64);
            table.append(&file, 0).unwrap();
        }
        table
    }

    /// Times about `from`, of which each is out of order by less than `disorder`.
    fn times(from: i64, count: i64, disorder: i64) -> Vec<i64> {
        (0..count).map(|at| from + at * 10 + (at * 7919) % disorder).collect()
    }

    #[test]
    fn rows_of_many_files_come_by_time_and_few_files_are_held() {
        let folder = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Local::new(folder.path()));
        // two servers' files of the same time, one after the other, and another table beside
        let mut files: Vec<Vec<i64>> = (0..12).map(|part| times(part / 2 * 9_000, 900, 400)).collect();
        files.push(Vec::new());
        // and one of whose rows the last came first
        let backwards: Vec<i64> = times(5_000, 600, 7).into_iter().rev().collect();
        let tables = [
            table(&storage, "a", &files),
            table(&storage, "b", &[times(20_000, 1000, 3_000)]),
            table(&storage, "c", std::slice::from_ref(&backwards)),
        ];
        let mut expected: Vec<i64> = [files.concat(), times(20_000, 1000, 3_000), backwards].concat();
        expected.sort_unstable();

        let mut told = Vec::new();
        let mut arrivals = Arrivals::look(&tables, |done, all| told.push((done, all))).unwrap();
        assert_eq!((told.len(), told[14]), (15, (15, 15)));
        assert_eq!(arrivals.rows(), expected.len() as u64);
        let (mut found, mut open_max, mut ready_max, mut of_b) = (Vec::new(), 0, 0, 0);
        while let Some(arrival) = arrivals.next() {
            let arrival = arrival.unwrap();
            let model = ["a", "b", "c"][arrival.table];
            assert!(arrival.captured.id.starts_with(model), "{}", arrival.captured.id);
            of_b += usize::from(arrival.table == 1);
            found.push(arrival.captured.time_us);
            open_max = open_max.max(arrivals.open.len());
            ready_max = ready_max.max(arrivals.ready.len());
        }
        assert!(found == expected, "{} of {} rows, by time", found.len(), expected.len());
        assert_eq!(of_b, 1000);
        assert!(open_max <= 6, "files that do not overlap are not open together: {open_max}");
        assert!(ready_max < 3_000, "rows are read as far as need be: {ready_max} of {}", expected.len());
        assert!(arrivals.open.is_empty());
    }

    #[test]
    fn too_many_files_of_one_moment_and_files_that_went_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Local::new(folder.path()));
        let tables = [table(&storage, "m", &vec![times(0, 600, 7); 4])];
        for (open_max, expected) in [(3, None), (4, Some(2400))] {
            let mut arrivals = Arrivals::look(&tables, |_, _| ()).unwrap();
            arrivals.open_max = open_max;
            let found: Result<Vec<Arrival>, CaptureError> = arrivals.collect();
            let too_many =
                matches!(&found, Err(CaptureError::Invalid(why)) if why.contains("at most 3 files"));
            assert_eq!((found.ok().map(|rows| rows.len()), too_many), (expected, expected.is_none()));
        }

        let tables = [table(&storage, "n", &[vec![1], vec![2]])];
        let mut arrivals = Arrivals::look(&tables, |_, _| ()).unwrap();
        assert_eq!(arrivals.next().unwrap().unwrap().captured.time_us, 1);
        for item in storage.list("n").unwrap().iter().filter(|item| item.key.ends_with(".parquet")) {
            storage.delete(&item.key).unwrap();
        }
        assert!(matches!(arrivals.next(), Some(Err(CaptureError::Conflict(_)))));
    }
}
