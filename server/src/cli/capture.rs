//! `gannet capture`: what was captured, and erasing a request from it. Must not know how rows come there.

use std::sync::Arc;

use clap::{Args, Subcommand};
use gannet_capture::{CaptureError, Storage, Table, table::Join, tables};
use gannet_runtime::clock;
use serde_json::json;

use super::{EXIT_OK, EXIT_REFUSED, EXIT_USAGE, say};
use crate::{
    capture::open_storage,
    config::{CaptureSettings, Credentials, Root},
};

const EXAMPLES: &str = "\
Each model has a folder, and in it one for each set of columns: a Delta table of Parquet files, which pandas, DuckDB and
every reader of Delta open as they are.

Examples:
  gannet capture ls /var/lib/capture                    tables, rows, bytes, days
  gannet capture ls s3://bucket/capture --credentials env:STORE --model churn
  gannet capture erase /var/lib/capture --request-id 7f3a-11
  gannet capture join /var/lib/capture                  what servers that are gone left in many small files

Exit codes: 0 done, 1 it could not be, 64 wrong arguments.";

/// Times that servers may be first.
const CONFLICTS_MAX: u32 = 16;
const DAY_MS: i64 = 86_400_000;

/// The commands of `gannet capture`.
#[derive(Debug, Subcommand)]
pub(super) enum CaptureCommand {
    /// List the tables
    #[command(after_long_help = EXAMPLES)]
    Ls(LsArgs),
    /// Erase every row of a request: files that hold it are written again without it, and the old ones removed
    #[command(after_long_help = EXAMPLES)]
    Erase(EraseArgs),
    /// Join small files of the same day, whoever wrote them; servers that capture join their own
    #[command(after_long_help = EXAMPLES)]
    Join(JoinArgs),
}

/// Where tables lie.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// A folder, or s3://BUCKET/PREFIX: what capture.root says
    #[arg(value_name = "ROOT")]
    root: String,
    /// Of one model alone
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// What an object store is told: env:NAME or file:PATH of ACCESS_KEY:SECRET_KEY
    #[arg(long, value_name = "WHERE")]
    credentials: Option<String>,
    /// An object store other than Amazon's
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct EraseArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The request's id
    #[arg(long, value_name = "ID")]
    request_id: String,
}

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    #[command(flatten)]
    place: PlaceArgs,
}

type Failed = (u8, String);

impl PlaceArgs {
    /// The model, where one is named.
    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The tables there.
    ///
    /// # Errors
    /// An exit code and a text.
    pub(super) fn open(&self) -> Result<Vec<Table>, Failed> {
        let usage = |why: String| (EXIT_USAGE, why);
        let root = Root::parse(&self.root)
            .ok_or_else(|| usage(format!("{}: expected a folder, or s3://BUCKET/PREFIX", self.root)))?;
        let credentials = self.credentials.as_deref().map(|text| {
            Credentials::parse(text)
                .ok_or_else(|| usage(format!("--credentials {text}: expected env:NAME or file:PATH")))
        });
        let settings = CaptureSettings {
            credentials: credentials.transpose()?,
            endpoint: self.endpoint.clone(),
            ..CaptureSettings::default()
        };
        let refused = |why: String| (EXIT_REFUSED, why);
        let storage: Arc<dyn Storage> = open_storage(&root, &settings).map_err(refused)?;
        let failed = |error: gannet_capture::CaptureError| refused(error.to_string());
        let found = tables(&*storage, self.model.as_deref()).map_err(failed)?;
        if found.is_empty() {
            let whose = self.model.as_ref().map_or(String::new(), |model| format!(" of '{model}'"));
            return Err(refused(format!("{}: expected tables{whose}, got none", storage.place())));
        }
        found.iter().map(|folder| Table::open(Arc::clone(&storage), folder).map_err(failed)).collect()
    }
}

pub(super) fn run(command: &CaptureCommand) -> u8 {
    let done = match command {
        CaptureCommand::Ls(args) => list(args),
        CaptureCommand::Erase(args) => erase(args),
        CaptureCommand::Join(args) => join(args),
    };
    done.map_or_else(
        |(code, why)| {
            eprintln!("{why}");
            code
        },
        |()| EXIT_OK,
    )
}

fn list(args: &LsArgs) -> Result<(), Failed> {
    let tables = args.place.open()?;
    let mut shown = Vec::new();
    for table in &tables {
        let summary = table.summary();
        let (first, last) = summary.days.clone().unwrap_or_default();
        if args.json {
            shown.push(json!({
                "folder": table.root(), "model": table.model(), "version": summary.version, "files": summary.files,
                "rows": summary.rows, "bytes": summary.bytes, "first_day": first, "last_day": last,
                "redacted_inputs": table.layout().hidden_inputs(),
            }));
        } else {
            let days = if first == last { first } else { format!("{first} .. {last}") };
            say(format_args!(
                "{}  {} rows  {} files  {} bytes  {days}",
                table.root(),
                summary.rows,
                summary.files,
                summary.bytes
            ));
        }
    }
    if args.json {
        say(format_args!("{:#}", json!(shown)));
    }
    Ok(())
}

fn now_ms() -> i64 {
    i64::try_from(clock::wall_ms(clock::now())).unwrap_or(i64::MAX)
}

fn join(args: &JoinArgs) -> Result<(), Failed> {
    let settings = CaptureSettings::default();
    let what = Join { instance: None, bytes_max: settings.file_bytes, span_ms: DAY_MS };
    for mut table in args.place.open()? {
        let (mut files, mut into, mut others) = (0, 0, 0);
        loop {
            match table.join(&what, now_ms()) {
                Ok(joined) if joined.files > 0 => (files, into) = (files + joined.files, into + joined.into),
                Ok(_) => break,
                // a server that captures was first: look again
                Err(CaptureError::Conflict(_)) if others < CONFLICTS_MAX => {
                    others += 1;
                    table.refresh().map_err(|error| (EXIT_REFUSED, error.to_string()))?;
                }
                Err(error) => {
                    return Err((EXIT_REFUSED, format!("{error}; nothing is half done: ask again")));
                }
            }
        }
        say(format_args!("{}  {files} files became {into}, {} in all", table.root(), table.summary().files));
    }
    Ok(())
}

fn erase(args: &EraseArgs) -> Result<(), Failed> {
    let now_ms = now_ms();
    let (mut rows, mut files, mut waiting) = (0, 0, 0);
    for mut table in args.place.open()? {
        let erased = table
            .erase(&args.request_id, now_ms)
            .map_err(|error| (EXIT_REFUSED, format!("{error}; nothing is half done: ask again")))?;
        rows += erased.rows;
        files += erased.files;
        waiting += erased.being_written;
    }
    say(format_args!("{rows} rows of request '{}' were erased from {files} files", args.request_id));
    if waiting > 0 {
        let why = format!("{waiting} files with it are just being written: ask again in a moment");
        return Err((EXIT_REFUSED, why));
    }
    Ok(())
}
