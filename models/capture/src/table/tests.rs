//! Tables in a folder: what goes in comes back, whoever else writes, removes or crashes. Must not reach into other readers:
//! those are tested from Python.

use gannet_models::{
    DType, Dim, Redaction, RedactionKey, Redactor, Signature, TensorSpec, redaction::Method,
};
use smallvec::smallvec;

use super::*;
use crate::{Appended, Latency, Local, Row, Rows, Values, storage::MAKING};

const NOW: i64 = 1_764_000_000_000;
const DAY: i64 = 86_400_000;

fn spec(name: &str, dtype: DType) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, shape: vec![Dim::Dynamic(None), Dim::Dynamic(None)], labels: None }
}

/// An input and an output of every type.
fn signature() -> Signature {
    let specs =
        |start: &str| DType::all().map(|dtype| spec(&format!("{start}{}", dtype.name()), dtype)).collect();
    Signature { inputs: specs("x_"), outputs: specs("y_"), batched: true }
}

/// Splitmix64: what a seed repeats.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.bits() % bound).unwrap()
    }

    fn values(&mut self, dtype: DType) -> Values {
        let shape = [self.below(3), self.below(4)];
        let mut data = Vec::new();
        for _ in 0..shape[0] * shape[1] {
            match dtype {
                DType::Bytes => {
                    let text: String =
                        (0..self.below(5)).map(|_| ['a', 'é', '\0', '"'][self.below(4)]).collect();
                    data.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
                    data.extend(text.as_bytes());
                }
                DType::Bool => data.push(u8::from(self.bits().is_multiple_of(2))),
                // every pattern of bits but those of NaN, which half-wide types do not keep
                DType::Fp16 => data.extend(half::f16::from_f64(self.below(4000) as f64 / 7.0).to_le_bytes()),
                DType::Bf16 => data.extend(half::bf16::from_f64(self.below(4000) as f64 / 7.0).to_le_bytes()),
                other => data.extend(&self.bits().to_le_bytes()[..other.size_bytes().unwrap()]),
            }
        }
        Values { shape: shape.into_iter().collect(), data: Bytes::from(data) }
    }

    fn row(&mut self, id: &str, sequence: u64) -> Row {
        let signature = signature();
        let mut number = || self.bits() >> 12;
        let latency = Latency {
            queue_ns: number(),
            assemble_ns: number(),
            compute_ns: number(),
            scatter_ns: number(),
            total_ns: number(),
            batch_rows: number(),
        };
        Row {
            id: id.into(),
            time_us: NOW * 1000 + i64::try_from(sequence).unwrap(),
            version: format!("{}", self.below(3)),
            arm: (self.below(2) == 0).then(|| "2".into()),
            sequence,
            probability: 0.25,
            rows: 2,
            latency,
            inputs: signature.inputs.iter().map(|spec| self.values(spec.dtype)).collect(),
            outputs: signature.outputs.iter().map(|spec| self.values(spec.dtype)).collect(),
        }
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    storage: Arc<dyn Storage>,
    layout: Arc<Layout>,
    redactor: Redactor,
}

impl Fixture {
    fn new(redactor: Redactor) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Local::new(folder.path()));
        let layout = Arc::new(Layout::new(&signature(), &redactor));
        Self { folder, storage, layout, redactor }
    }

    fn table(&self) -> Table {
        Table::begin(Arc::clone(&self.storage), "a model", Arc::clone(&self.layout), NOW).unwrap()
    }

    fn file(&self, rows: &[Row]) -> File {
        let mut waiting =
            Rows::new(Arc::clone(&self.layout), &signature(), self.redactor.clone(), ("a model", "here"));
        rows.iter().for_each(|row| assert_eq!(waiting.append(row.clone()), Appended::Taken));
        assert_eq!((waiting.len(), waiting.bytes() > 100 * rows.len()), (rows.len(), true));
        let content = waiting.take_file().unwrap();
        assert!(waiting.is_empty() && waiting.bytes() == 0);
        File::new("here", &crate::date(NOW), content, rows.len() as u64)
    }
}

fn all(table: &Table) -> Vec<Captured> {
    let mut rows = Vec::new();
    table
        .read(|row| {
            rows.push(row);
            Ok::<_, CaptureError>(true)
        })
        .unwrap();
    rows
}

fn ids(table: &Table) -> Vec<String> {
    let mut ids: Vec<String> = all(table).into_iter().map(|row| row.id).collect();
    ids.sort();
    ids
}

#[test]
fn what_goes_in_comes_back() {
    let fixture = Fixture::new(Redactor::default());
    let mut table = fixture.table();
    for seed in 0..30u64 {
        let mut random = Random(seed);
        let rows: Vec<Row> =
            (0..1 + seed % 7).map(|index| random.row(&format!("{seed}-{index}"), seed)).collect();
        table.append(&fixture.file(&rows), NOW + i64::try_from(seed).unwrap()).unwrap();
        let mut last = Vec::new();
        let again = Table::open(Arc::clone(&fixture.storage), table.root()).unwrap();
        again
            .read(|row| -> Result<bool, CaptureError> {
                if row.sequence == seed {
                    last.push(row);
                }
                Ok(true)
            })
            .unwrap();
        for (row, got) in rows.into_iter().zip(last) {
            let values: Vec<Option<Values>> = row.inputs.into_iter().chain(row.outputs).map(Some).collect();
            assert_eq!(got.values, values, "seed {seed}");
            let expected =
                (row.id, row.time_us, row.version, row.arm, row.latency, row.rows, row.probability);
            assert_eq!(
                (got.id, got.time_us, got.version, got.arm, got.latency, got.rows, got.probability),
                expected
            );
            assert_eq!(got.instance, "here");
        }
    }
    let summary = Table::open(Arc::clone(&fixture.storage), table.root()).unwrap().summary();
    assert_eq!((summary.version, summary.files, summary.rows), (30, 30, all(&table).len() as u64));
    assert_eq!(summary.days, Some((crate::date(NOW), crate::date(NOW))));
    assert_eq!(
        (table.model(), tables(&*fixture.storage, Some("a model")).unwrap()),
        ("a model", vec![table.root().to_owned()])
    );
    assert!(
        fixture
            .folder
            .path()
            .join(table.root())
            .join("_delta_log/00000000000000000030.checkpoint.parquet")
            .exists()
    );
}

#[test]
fn what_is_redacted_is_nowhere_in_the_files() {
    let methods = [
        ("x_BYTES", Method::Hash),
        ("x_INT64", Method::Hash),
        ("x_FP64", Method::Mask),
        ("x_FP32", Method::Drop),
    ];
    let inputs = methods.map(|(name, method)| (name.to_owned(), method)).into();
    let key = RedactionKey::new(b"0123456789abcdef").unwrap();
    let redactor = Redactor::new(Redaction { inputs, ..Redaction::default() }, Some(key.clone()));
    let fixture = Fixture::new(redactor);
    let mut row = Random(7).row("a", 0);
    let secret = b"a secret of somebody";
    let one = |data: Vec<u8>| Values { shape: smallvec![1, 1], data: Bytes::from(data) };
    let place = |name: &str| signature().input(name).unwrap();
    row.inputs[place("x_BYTES")] = one([&20u32.to_le_bytes()[..], secret].concat());
    row.inputs[place("x_INT64")] = one(77_123_456_789i64.to_le_bytes().to_vec());
    row.inputs[place("x_FP64")] = one(77.123_456_789f64.to_le_bytes().to_vec());
    row.inputs[place("x_FP32")] = one(77.123_45f32.to_le_bytes().to_vec());
    let file = fixture.file(std::slice::from_ref(&row));
    for secret in [
        &secret[..],
        &77_123_456_789i64.to_le_bytes(),
        &77.123_456_789f64.to_le_bytes(),
        &77.123_45f32.to_le_bytes(),
    ] {
        assert!(!file.content.windows(secret.len()).any(|window| window == secret), "{secret:?}");
    }
    for text in [&secret[..], b"77123456789"] {
        let hash = key.hash(text);
        assert!(file.content.windows(64).any(|window| window == hash.as_bytes()), "{hash} is not there");
    }
    let mut table = fixture.table();
    table.append(&file, NOW).unwrap();
    let got = all(&table);
    assert_eq!(got[0].values.iter().filter(|values| values.is_none()).count(), 3);
    assert_eq!(table.layout().hidden_inputs(), ["x_INT64", "x_FP64", "x_BYTES", "x_FP32"]);
}

#[test]
fn texts_that_are_none_are_not_taken() {
    let fixture = Fixture::new(Redactor::default());
    let mut rows = Rows::new(Arc::clone(&fixture.layout), &signature(), Redactor::default(), ("m", "i"));
    let mut row = Random(1).row("a", 0);
    row.inputs[signature().input("x_BYTES").unwrap()] =
        Values { shape: smallvec![1, 1], data: Bytes::from_static(&[1, 0, 0, 0, 0xff]) };
    assert_eq!(rows.append(row), Appended::NotText);
    assert!(rows.is_empty());
}

#[test]
fn many_writers_lose_nothing() {
    let fixture = Fixture::new(Redactor::default());
    fixture.table();
    std::thread::scope(|scope| {
        for writer in 0..4u64 {
            let fixture = &fixture;
            scope.spawn(move || {
                let mut table = fixture.table();
                for index in 0..15u64 {
                    let row = Random(writer).row(&format!("{writer}-{index:02}"), index);
                    table.append(&fixture.file(&[row]), NOW).unwrap();
                }
            });
        }
    });
    let table = fixture.table();
    let expected: Vec<String> = (0..4).flat_map(|w| (0..15).map(move |i| format!("{w}-{i:02}"))).collect();
    assert_eq!((ids(&table), table.summary().version), (expected, 60));
    // the same, read commit by commit
    let mut snapshot = Snapshot::default();
    for version in 0..=60 {
        let text = fixture
            .storage
            .read(&format!("{}/_delta_log/{version:020}.json", table.root()))
            .unwrap()
            .unwrap();
        let lines = String::from_utf8(text.to_vec()).unwrap();
        lines.lines().for_each(|line| snapshot.apply(serde_json::from_str(line).unwrap()));
    }
    assert_eq!(snapshot.files.len(), 60);
}

#[test]
fn a_file_that_is_added_twice_is_there_once() {
    let fixture = Fixture::new(Redactor::default());
    let (mut table, mut other) = (fixture.table(), fixture.table());
    let file = fixture.file(&[Random(1).row("a", 0)]);
    table.append(&file, NOW).unwrap();
    table.append(&file, NOW).unwrap();
    // whoever does not know yet finds it
    other.append(&file, NOW).unwrap();
    assert_eq!((ids(&other), other.summary().version), (vec!["a".to_owned()], 1));
}

#[test]
fn what_is_too_old_leaves_the_log_first_and_the_disk_later() {
    let fixture = Fixture::new(Redactor::default());
    let mut table = fixture.table();
    for (index, id) in ["old", "new"].iter().enumerate() {
        let added = NOW + 2 * DAY * i64::try_from(index).unwrap();
        table.append(&fixture.file(&[Random(1).row(id, 0)]), added).unwrap();
    }
    let reader = fixture.table();
    let keep = Keep { retention_ms: Some(DAY) };
    let kept = table.keep(keep, NOW + 2 * DAY).unwrap();
    assert_eq!((kept.removed, kept.deleted, ids(&table)), (1, 0, vec!["new".to_owned()]));
    assert_eq!(ids(&reader), ["new", "old"], "who began to read before can go on");
    let again = fixture.table().keep(keep, NOW + 2 * DAY + 1000).unwrap();
    assert_eq!((again.removed, again.deleted), (0, 0));
    let later = table.keep(keep, NOW + 2 * DAY + 700_000).unwrap();
    assert_eq!((later.removed, later.deleted), (0, 1));
    assert!(later.bytes < kept.bytes);
    assert_eq!(ids(&fixture.table()), ["new"]);
}

#[test]
fn what_a_crash_left_goes_after_a_day() {
    let fixture = Fixture::new(Redactor::default());
    let mut table = fixture.table();
    let file = fixture.file(&[Random(1).row("a", 0)]);
    // written, and not committed
    fixture.storage.put(&table.key(&file.path), file.content.clone()).unwrap();
    fixture
        .storage
        .put(&table.key(&format!("date=2025-01-01/{MAKING}x")), Bytes::from_static(b"half"))
        .unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    assert_eq!(table.keep(Keep::default(), now).unwrap().deleted, 0, "it may be about to be committed");
    assert!(ids(&table).is_empty());
    assert_eq!(table.keep(Keep::default(), now + DAY + 60_000).unwrap().deleted, 2);
}

#[test]
fn commits_before_a_checkpoint_go_and_nobody_who_slept_writes_over_them() {
    let fixture = Fixture::new(Redactor::default());
    let (mut table, mut sleeper) = (fixture.table(), fixture.table());
    for index in 0..25u64 {
        table.append(&fixture.file(&[Random(index).row(&format!("{index:02}"), index)]), NOW).unwrap();
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let later = i64::try_from(now.as_millis()).unwrap() + 2 * DAY;
    table.keep(Keep::default(), later).unwrap();
    let left = fixture.storage.list(&table.key("_delta_log")).unwrap();
    let commits = left.iter().filter(|item| item.key.ends_with(".json")).count();
    assert_eq!(commits, 6, "20 to 25: {left:?}");
    sleeper.append(&fixture.file(&[Random(99).row("99", 0)]), later).unwrap();
    assert_eq!((sleeper.summary().version, ids(&fixture.table()).len()), (26, 26));
}

#[test]
fn a_request_is_erased_wherever_it_is() {
    let fixture = Fixture::new(Redactor::default());
    let mut table = fixture.table();
    let rows = |names: &[&str]| -> Vec<Row> { names.iter().map(|id| Random(3).row(id, 0)).collect() };
    table.append(&fixture.file(&rows(&["a", "b", "a"])), NOW).unwrap();
    table.append(&fixture.file(&rows(&["a"])), NOW).unwrap();
    table.append(&fixture.file(&rows(&["c"])), NOW).unwrap();
    let orphan = fixture.file(&rows(&["a"]));
    fixture.storage.put(&table.key(&orphan.path), orphan.content.clone()).unwrap();
    let before = all(&table).into_iter().find(|row| row.id == "b").unwrap();
    let erased = table.erase("a", NOW + 1).unwrap();
    assert_eq!(erased, Erased { rows: 3, files: 2, being_written: 1 });
    assert_eq!(ids(&fixture.table()), ["b", "c"]);
    assert_eq!(
        all(&table).into_iter().find(|row| row.id == "b").unwrap(),
        before,
        "the others are as they were"
    );
    // once it is old, what a crash left goes too
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let later = i64::try_from(now.as_millis()).unwrap() + 2 * DAY;
    assert_eq!(table.erase("a", later).unwrap(), Erased { rows: 0, files: 1, being_written: 0 });
    for item in fixture.storage.list(table.root()).unwrap() {
        if item.key.ends_with(".parquet") {
            let held = fixture.storage.read(&item.key).unwrap().unwrap();
            let batches = decode::batches("x", held, Some(&["request_id"])).unwrap();
            for batch in batches {
                assert!(!format!("{:?}", batch.unwrap()).contains("\"a\""), "{}", item.key);
            }
        }
    }
    assert_eq!(table.erase("nobody", NOW).unwrap(), Erased::default());
}

const JOIN: Join<'_> = Join { instance: Some("here"), bytes_max: 32 << 20, span_ms: DAY };

/// Every row, in an order of its own.
fn sorted(table: &Table) -> Vec<Captured> {
    let mut rows = all(table);
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    rows
}

#[test]
fn joining_leaves_every_row_as_it_was() {
    let fixture = Fixture::new(Redactor::default());
    let mut table = fixture.table();
    let files: Vec<File> =
        (0..20).map(|at| fixture.file(&[Random(at).row(&format!("{at:02}"), at)])).collect();
    for (at, file) in files.iter().enumerate() {
        table.append(file, NOW + i64::try_from(at).unwrap()).unwrap();
    }
    let (before, reader) = (sorted(&table), fixture.table());
    assert_eq!(table.join(&JOIN, NOW + 100).unwrap(), Joined { files: 20, into: 1 });
    assert_eq!(table.join(&JOIN, NOW + 100).unwrap(), Joined::default(), "there is nothing left to join");
    let summary = fixture.table().summary();
    assert_eq!((summary.files, summary.rows, sorted(&fixture.table())), (1, 20, before.clone()));
    assert_eq!(sorted(&reader), before, "who began to read before can go on");
    // a write that seemed to have failed is tried again, though its file was joined meanwhile
    table.append(&files[3], NOW + 101).unwrap();
    fixture.table().append(&files[4], NOW + 101).unwrap();
    assert_eq!(sorted(&fixture.table()), before);
    // what was joined is as old as the newest of it
    let keep = Keep { retention_ms: Some(DAY) };
    let kept = table.keep(keep, NOW + DAY + 19).unwrap();
    assert_eq!((kept.removed, kept.deleted), (0, 20), "the old files go once nobody reads them");
    assert_eq!(table.keep(keep, NOW + DAY + 20).unwrap().removed, 1);
}

#[test]
fn what_is_erased_comes_back_by_no_join() {
    let fixture = Fixture::new(Redactor::default());
    let (mut table, mut other) = (fixture.table(), fixture.table());
    for at in 0..10 {
        table.append(&fixture.file(&[Random(at).row(&format!("{at}"), at)]), NOW).unwrap();
    }
    other.refresh().unwrap();
    assert_eq!(table.erase("7", NOW + 1).unwrap().rows, 1);
    // which knows nothing of that yet, and finds a file gone
    assert!(matches!(other.join(&JOIN, NOW + 2), Err(CaptureError::Conflict(_))));
    other.refresh().unwrap();
    assert_eq!(other.join(&JOIN, NOW + 3).unwrap(), Joined { files: 9, into: 1 });
    // what was joined still lies there for those who read, and not for what is erased
    assert_eq!(table.erase("3", NOW + 4).unwrap(), Erased { rows: 1, files: 2, being_written: 0 });
    let left: Vec<String> = (0..10).filter(|at| ![3, 7].contains(at)).map(|at| at.to_string()).collect();
    assert_eq!(ids(&fixture.table()), left);
    for item in fixture.storage.list(table.root()).unwrap() {
        if item.key.ends_with(".parquet") && !item.key.contains("_delta_log") {
            let held = fixture.storage.read(&item.key).unwrap().unwrap();
            for batch in decode::batches("x", held, Some(&["request_id"])).unwrap() {
                let shown = format!("{:?}", batch.unwrap());
                assert!(!shown.contains("\"3\"") && !shown.contains("\"7\""), "{}", item.key);
            }
        }
    }
}

#[test]
fn two_who_join_the_same_lose_nothing() {
    let fixture = Fixture::new(Redactor::default());
    let mut table = fixture.table();
    for at in 0..40 {
        table.append(&fixture.file(&[Random(at).row(&format!("{at:02}"), at)]), NOW).unwrap();
    }
    let before = sorted(&table);
    std::thread::scope(|scope| {
        for writer in 0..3u64 {
            let fixture = &fixture;
            scope.spawn(move || {
                let mut table = fixture.table();
                for at in 0..10 {
                    let row = Random(writer).row(&format!("new {writer} {at}"), at);
                    table.append(&fixture.file(&[row]), NOW).unwrap();
                    match table.join(&JOIN, NOW) {
                        Ok(_) | Err(CaptureError::Conflict(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let table = fixture.table();
    let after = sorted(&table);
    assert_eq!((after.len(), &after[..40]), (70, &before[..]));
    assert!(table.summary().files < 40, "{:?}", table.summary());
}

#[test]
fn a_table_that_is_not_ours_is_told() {
    let fixture = Fixture::new(Redactor::default());
    let open = |root: &str| Table::open(Arc::clone(&fixture.storage), root).unwrap_err();
    assert!(matches!(open("m/none"), CaptureError::Missing(_)));
    let put = |root: &str, text: &str| {
        let key = format!("{root}/_delta_log/{:020}.json", 0);
        fixture.storage.put(&key, Bytes::from(text.to_owned())).unwrap();
    };
    put("m/newer", r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7}}"#);
    assert!(
        open("m/newer").to_string().contains("reader version 1 and writer version 2 at most, got 3 and 7")
    );
    put("m/torn", "{\"protocol\":");
    assert!(open("m/torn").to_string().contains("line 1"));
}
