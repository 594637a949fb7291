//! The thread that keeps captured rows: it sorts copies into tables, writes them in time, and keeps all of them within
//! their bounds. Owns all of its state. Must not know endpoints.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use gannet_capture::{
    Appended, CaptureError, Latency, Layout, Row, Rows, Storage, Table, Values, date,
    table::{File, Join, Keep, folder},
};
use gannet_models::{ModelName, RedactionKey, Redactor};
use gannet_runtime::{
    Tensor, Time,
    capture::{Copied, Tap},
    clock,
    servable::Servable,
};

use super::{Counts, Shown, TableShown, events::Events, numbers::Numbers};
use crate::config::CaptureSettings;

/// Time between two looks at what is due.
const LOOK: Duration = Duration::from_millis(100);
/// Time between two rounds of retention.
const KEEP_PERIOD: Duration = Duration::from_secs(60);
/// Files of one table that wait for a store that does not take them; the oldest goes when there are more.
const FILES_WAIT_MAX: usize = 4;
/// Tables that are written at the same time.
const TABLES_MAX: usize = 10_000;
/// Time before a store that failed is asked again.
const RETRY: Duration = Duration::from_secs(2);
const DAY_MS: i64 = 86_400_000;

/// A table that is written to.
pub(super) struct Open {
    /// `None` until the store lets it begin.
    table: Option<Table>,
    layout: Arc<Layout>,
    rows: Rows,
    date: String,
    since: Option<Time>,
    files: Vec<File>,
    retry_at: Option<Time>,
    shown: TableShown,
}

pub(super) struct Keeper {
    /// Who is told of every row, whatever becomes of it here.
    pub(super) events: Option<Arc<Events>>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) key: Option<RedactionKey>,
    pub(super) instance: String,
    pub(super) settings: CaptureSettings,
    pub(super) numbers: Numbers,
    pub(super) tap: Arc<Tap>,
    pub(super) counts: Arc<Counts>,
    pub(super) shown: Arc<ArcSwap<Shown>>,
    pub(super) stop: Arc<AtomicBool>,
    /// By folder.
    pub(super) tables: BTreeMap<String, Open>,
    /// The folder of each loaded version's rows, which takes a digest of its columns to say.
    pub(super) places: HashMap<u64, String>,
    pub(super) kept_at: Option<Time>,
    pub(super) full: bool,
}

fn add(count: &AtomicU64, number: u64) {
    count.fetch_add(number, Ordering::Relaxed);
}

fn wall_ms() -> i64 {
    i64::try_from(clock::wall_ms(clock::now())).unwrap_or(i64::MAX)
}

impl Keeper {
    pub(super) fn run(mut self, copies: &Receiver<Copied>) {
        let mut looked = clock::now();
        while !self.stop.load(Ordering::Acquire) {
            match copies.recv_timeout(LOOK) {
                Ok(copy) => self.take(&copy),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = clock::now();
            if now >= looked + LOOK {
                looked = now;
                self.look(now);
            }
        }
        while let Ok(copy) = copies.try_recv() {
            self.take(&copy);
        }
        self.write_due(None);
        let next = self.tap.streams().into_iter().map(|(model, stream)| (model, stream.next())).collect();
        if let Err(error) = self.numbers.end(next) {
            tracing::warn!(%error, "the numbers of captured rows were not written: the next start leaves a gap");
        }
    }

    fn look(&mut self, now: Time) {
        self.set_numbers_aside();
        self.write_due(Some(now));
        if self.kept_at.is_none_or(|at| now >= at + KEEP_PERIOD) {
            self.kept_at = Some(now);
            self.keep();
        }
        self.show(None);
    }

    /// Before a row gets a number, numbers behind it are set aside on the disk.
    fn set_numbers_aside(&mut self) {
        let next: Vec<(ModelName, u64)> =
            self.tap.streams().into_iter().map(|(model, stream)| (model, stream.next())).collect();
        if let Err(error) = self.numbers.set_aside(&next) {
            tracing::warn!(%error, "the numbers of captured rows cannot be set aside: a crash would leave no gap");
        }
    }

    fn take(&mut self, copy: &Copied) {
        self.tap.taken(copy);
        if self.full && self.events.is_none() {
            return add(&self.counts.no_room, 1);
        }
        let row = self.row(copy);
        let day = date(row.time_us / 1000);
        let (full, events) = (self.full, self.events.clone());
        let Some(open) = self.open(&copy.servable) else { return add(&self.counts.no_room, 1) };
        if let Some(events) = events {
            events.tell(&open.rows, &row, &open.shown.model, clock::wall_ms(copy.ended));
        }
        if full {
            return add(&self.counts.no_room, 1);
        }
        if open.date != day && !open.rows.is_empty() {
            open.close();
        }
        open.date = day;
        match open.rows.append(row) {
            Appended::Taken => {
                open.since.get_or_insert_with(clock::now);
            }
            Appended::NotText => add(&self.counts.unfit, 1),
        }
    }

    fn row(&self, copy: &Copied) -> Row {
        let values = |tensor: &Tensor| Values {
            shape: tensor.shape.iter().copied().collect(),
            data: tensor.data.clone(),
        };
        let timing = &copy.timing;
        Row {
            id: copy.id.clone(),
            time_us: i64::try_from(clock::wall_ns(copy.arrived) / 1000).unwrap_or(0),
            version: copy.servable.version.to_string(),
            arm: copy.arm.as_ref().map(ToString::to_string),
            sequence: copy.sequence,
            probability: copy.probability,
            rows: copy.rows as u64,
            latency: Latency {
                queue_ns: timing.queue_ns,
                assemble_ns: timing.assemble_ns,
                compute_ns: timing.compute_ns,
                scatter_ns: timing.scatter_ns,
                total_ns: copy.ended.ns_since(copy.arrived),
                batch_rows: timing.batch_rows as u64,
            },
            inputs: copy.inputs.iter().map(values).collect(),
            outputs: copy.outputs.iter().map(values).collect(),
        }
    }

    /// The table of a version's rows.
    fn open(&mut self, servable: &Servable) -> Option<&mut Open> {
        if let Some(place) = self.places.get(&servable.incarnation)
            && self.tables.contains_key(place)
        {
            return self.tables.get_mut(place);
        }
        let redactor = Redactor::new(servable.settings.redaction.clone(), self.key.clone());
        let layout = Arc::new(Layout::new(&servable.signature, &redactor));
        let place = folder(servable.model.as_str(), &layout);
        if !self.tables.contains_key(&place) {
            if self.tables.len() >= TABLES_MAX {
                return None;
            }
            if redactor.lacks_key() {
                tracing::warn!(model = %servable.model, "its redaction hashes, and there is no redaction.key: values are masked");
            }
            let whose = (servable.model.as_str(), self.instance.as_str());
            let rows = Rows::new(Arc::clone(&layout), &servable.signature, redactor, whose);
            let shown = TableShown {
                model: servable.model.to_string(),
                redacted: layout.hidden_inputs().into_iter().map(str::to_owned).collect(),
                ..TableShown::default()
            };
            let (table, since, retry_at) = (None, None, None);
            let open =
                Open { table, layout, rows, date: String::new(), since, files: Vec::new(), retry_at, shown };
            self.tables.insert(place.clone(), open);
        }
        if self.places.len() >= TABLES_MAX {
            self.places.clear();
        }
        self.places.insert(servable.incarnation, place.clone());
        self.tables.get_mut(&place)
    }

    /// Writes what is due at `now`; everything without.
    fn write_due(&mut self, now: Option<Time>) {
        let mut failed = None;
        let too_much = self.held_bytes() > self.settings.tap.bytes_max;
        for open in self.tables.values_mut() {
            let is_due = |since: Time| now.is_none_or(|now| now >= since + self.settings.flush);
            let is_large = too_much || open.rows.bytes() as u64 >= self.settings.file_bytes;
            if open.since.is_some_and(is_due) || (is_large && !open.rows.is_empty()) {
                open.close();
            }
            while open.files.len() > FILES_WAIT_MAX {
                add(&self.counts.no_store, open.files.remove(0).rows());
            }
            let waits = |at: Time| now.is_some_and(|now| now < at);
            if open.files.is_empty() || open.retry_at.is_some_and(waits) {
                continue;
            }
            if let Err(error) = open.write(&self.storage, &self.settings, &self.counts) {
                open.retry_at = Some(clock::now() + RETRY);
                failed = Some(error.to_string());
            }
        }
        self.let_go();
        if now.is_none() {
            let lost = self.tables.values().flat_map(|open| &open.files).map(File::rows).sum();
            add(&self.counts.no_store, lost);
        }
        if failed.is_some() {
            self.show(failed);
        }
    }

    /// Bytes of all rows and files that wait.
    fn held_bytes(&self) -> usize {
        self.tables.values().map(Open::held_bytes).sum()
    }

    /// What a store does not take is bounded over all tables: the oldest file of whoever holds most goes first.
    fn let_go(&mut self) {
        let mut held = self.held_bytes();
        while held > self.settings.tap.bytes_max {
            let with_files = self.tables.values_mut().filter(|open| !open.files.is_empty());
            let Some(open) = with_files.max_by_key(|open| open.held_bytes()) else { return };
            let file = open.files.remove(0);
            held -= file.len();
            add(&self.counts.no_store, file.rows());
        }
    }

    /// Takes out what is too old, and sees how much there is.
    fn keep(&mut self) {
        let retention_ms = retention_ms(&self.settings);
        let mut bytes = 0;
        for open in self.tables.values_mut() {
            let Some(table) = &mut open.table else { continue };
            match table.keep(Keep { retention_ms }, wall_ms()) {
                Ok(kept) => bytes += kept.bytes,
                Err(error) => {
                    tracing::warn!(table = table.root(), %error, "captured rows could not be tidied")
                }
            }
        }
        let full = bytes >= self.settings.bytes_max;
        if full && !self.full {
            let bound = self.settings.bytes_max;
            tracing::warn!(
                bytes,
                bound,
                "no room for captured rows: they are dropped until some are too old"
            );
        }
        self.full = full;
        let mut shown = (**self.shown.load()).clone();
        (shown.bytes, shown.full) = (bytes, full);
        self.shown.store(Arc::new(shown));
    }

    fn show(&mut self, failed: Option<String>) {
        let mut shown = (**self.shown.load()).clone();
        if failed != shown.last_error
            && let Some(why) = &failed
        {
            tracing::warn!(%why, "captured rows wait for their store");
        }
        let waits = self.tables.values().any(|open| open.retry_at.is_some() && !open.files.is_empty());
        shown.last_error = failed.or(shown.last_error.filter(|_| waits));
        for (place, open) in &self.tables {
            let waiting = open.rows.len() as u64 + open.files.iter().map(File::rows).sum::<u64>();
            let table = TableShown { waiting, ..open.shown.clone() };
            shown.tables.insert(format!("{place}/"), table);
        }
        self.shown.store(Arc::new(shown));
    }
}

/// Joins small files of this server's own, if there are enough: rows live a twenty-fourth of their time longer at most.
/// What cannot be joined now can be later.
fn join(table: &mut Table, instance: &str, settings: &CaptureSettings, now_ms: i64) {
    let span_ms = retention_ms(settings).map_or(DAY_MS, |retention_ms| retention_ms / 24);
    let join = Join { instance: Some(instance), bytes_max: settings.file_bytes, span_ms };
    match table.join(&join, now_ms) {
        Ok(joined) if joined.files > 0 => {
            tracing::debug!(table = table.root(), files = joined.files, "captured files were joined")
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(table = table.root(), %error, "captured files were not joined"),
    }
}

/// How long rows are kept.
fn retention_ms(settings: &CaptureSettings) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "days of a century fit")]
    settings.retention_days.map(|days| (days * DAY_MS as f64) as i64)
}

impl Open {
    fn held_bytes(&self) -> usize {
        self.rows.bytes() + self.files.iter().map(File::len).sum::<usize>()
    }

    /// Makes a file of the rows that wait.
    fn close(&mut self) {
        let rows = self.rows.len() as u64;
        self.since = None;
        match self.rows.take_file() {
            Ok(content) => self.files.push(File::new(self.rows.instance(), &self.date, content, rows)),
            Err(error) => tracing::error!(%error, rows, "captured rows were lost"),
        }
    }

    /// Puts waiting files into the table, the oldest first.
    fn write(
        &mut self,
        storage: &Arc<dyn Storage>,
        settings: &CaptureSettings,
        counts: &Counts,
    ) -> Result<(), CaptureError> {
        let now_ms = wall_ms();
        if self.table.is_none() {
            let layout = Arc::clone(&self.layout);
            self.table = Some(Table::begin(Arc::clone(storage), &self.shown.model, layout, now_ms)?);
        }
        let Some(table) = &mut self.table else { return Ok(()) };
        join(table, self.rows.instance(), settings, now_ms);
        while let Some(file) = self.files.first() {
            table.append(file, now_ms)?;
            add(&counts.rows, file.rows());
            add(&counts.bytes, file.len() as u64);
            add(&counts.files, 1);
            self.shown.rows += file.rows();
            self.shown.written_ms = u64::try_from(now_ms).ok();
            self.files.remove(0);
        }
        self.retry_at = None;
        Ok(())
    }
}
