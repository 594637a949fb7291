//! `gannet rollout`: begins a rollout on a running server, shows it, and decides its log again. Must not know how
//! anything is decided but for that.

mod page;
mod plan;

use std::{io::IsTerminal as _, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use crossbeam::channel::after;
use gannet_runtime::control::rollout::audit::explain;
use serde_json::{Value, json};

use super::{EXIT_OK, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, client, say};
use crate::{token::read_tokens, traffic::RolloutLog};

/// Time between two looks of `watch`.
const WATCH: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
A rollout moves a model's requests from the version that serves (the baseline) to a candidate, stage by stage, by itself:
on when every guard is known to be within its margin, back as soon as one is known to be harmed. Both versions must
serve (versions = \"all\" in model.toml). It goes on when the server restarts, and every decision is logged.

Examples:
  gannet rollout start digits --candidate 2                     shadow, 1, 5, 25, 50, 100 %, with the default guards
  gannet rollout start digits --candidate 2 --stages shadow,5,50,100 --min-requests 500 --min-seconds 60 --min-users 0
  gannet rollout start digits --candidate 2 --guard error_rate --guard latency=0.2 --guard metric:sales
  gannet rollout start digits --candidate 2 --plan plan.json    everything that a plan can say
  gannet rollout watch digits                                   live, until it is over
  gannet rollout rollback digits --reason 'the labels are wrong'
  gannet rollout explain 3                                      decide everything again from the log of rollout 3

Exit codes: 0 done (watch: promoted), 1 refused, rolled back, or a log that is not right, 64 wrong arguments, 69 no server.";

/// The arguments of `gannet rollout`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct RolloutArgs {
    #[command(subcommand)]
    command: RolloutCommand,
}

#[derive(Debug, Subcommand)]
enum RolloutCommand {
    /// Begin to roll a version out
    Start(Box<plan::StartArgs>),
    /// Where rollouts stand
    Status(StatusArgs),
    /// Follow one live until it is over
    Watch(TargetArgs),
    /// Hold it where it is; harm still takes it back
    Pause(TargetArgs),
    /// Let it go on by itself again
    Resume(TargetArgs),
    /// Go to the next stage now, or promote from the last one, whatever the guards say
    Promote(TargetArgs),
    /// Take the candidate back
    Rollback(RollbackArgs),
    /// Decide every step again from the log, and tell it
    Explain(ExplainArgs),
}

/// Which server.
#[derive(Debug, Args)]
struct ServerArgs {
    /// Where the server's admin API is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8003")]
    admin: String,
    /// A file whose first token is sent, for servers that want one
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// A model, or the number of a rollout [default: all]
    #[arg(value_name = "MODEL|ID")]
    target: Option<String>,
    /// Print the server's JSON instead of a page
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct TargetArgs {
    /// A model, whose newest rollout is meant, or the number of a rollout
    #[arg(value_name = "MODEL|ID")]
    target: String,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct RollbackArgs {
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// A model, whose newest rollout is meant, or the number of a rollout
    #[arg(value_name = "MODEL|ID", required_unless_present = "file")]
    target: Option<String>,
    /// A log itself, from the folder rollouts/ of a server's state: no server is asked then
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    file: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

/// What goes wrong, with the exit code.
struct Failed(u8, String);

type Done = Result<u8, Failed>;

pub(super) fn run(args: &RolloutArgs) -> u8 {
    let done = match &args.command {
        RolloutCommand::Start(args) => start(args),
        RolloutCommand::Status(args) => status(args),
        RolloutCommand::Watch(args) => watch(&args.server, &args.target),
        RolloutCommand::Pause(args) => wish(args, "pause", None),
        RolloutCommand::Resume(args) => wish(args, "resume", None),
        RolloutCommand::Promote(args) => wish(args, "promote", None),
        RolloutCommand::Rollback(args) => wish(&args.target, "rollback", args.reason.as_deref()),
        RolloutCommand::Explain(args) => explained(args),
    };
    done.unwrap_or_else(|Failed(code, why)| {
        eprintln!("{why}");
        code
    })
}

fn start(args: &plan::StartArgs) -> Done {
    let body = args.plan().map_err(|why| Failed(EXIT_USAGE, why))?;
    let path = format!("/admin/v1/models/{}/rollouts", encoded(&args.model));
    let rollout = args.server.ask("POST", &path, &body.to_string())?;
    say(page::page(&rollout));
    if args.watch { watch(&args.server, &rollout["id"].to_string()) } else { Ok(EXIT_OK) }
}

fn status(args: &StatusArgs) -> Done {
    let rollouts = match &args.target {
        Some(target) => vec![args.server.find(target)?],
        None => args.server.all()?,
    };
    if args.json {
        say(format_args!("{:#}", json!({ "rollouts": rollouts })));
    } else if rollouts.is_empty() {
        say("no rollouts; begin one with `gannet rollout start MODEL --candidate VERSION`");
    } else {
        rollouts.iter().for_each(|rollout| say(page::page(rollout)));
    }
    Ok(EXIT_OK)
}

/// Draws the page again and again over itself; where nobody sees that, says what changes.
fn watch(server: &ServerArgs, target: &str) -> Done {
    let id = server.find(target)?["id"].to_string();
    let is_seen = std::io::stdout().is_terminal();
    let (mut drawn, mut said) = (0, String::new());
    loop {
        let rollout = server.find(&id)?;
        let line = page::line(&rollout);
        if is_seen {
            let page = page::page(&rollout);
            // up over what was drawn, and clear what follows
            let up = if drawn > 0 { format!("\x1b[{drawn}A\x1b[J") } else { String::new() };
            drawn = page.lines().count();
            say(format_args!("{up}{page}"));
        } else if line != said {
            say(&line);
            said = line;
        }
        match rollout["state"].as_str() {
            Some("promoted") => return Ok(EXIT_OK),
            Some("rolled_back") => return Ok(EXIT_REFUSED),
            _ => {}
        }
        let _ = after(WATCH).recv();
    }
}

fn wish(args: &TargetArgs, what: &str, reason: Option<&str>) -> Done {
    let rollout = args.server.find(&args.target)?;
    let (model, id) = (rollout["model"].as_str().unwrap_or_default(), &rollout["id"]);
    let body = reason.map_or_else(String::new, |reason| json!({ "reason": reason }).to_string());
    let path = format!("/admin/v1/models/{}/rollouts/{id}/{what}", encoded(model));
    say(page::page(&args.server.ask("POST", &path, &body)?));
    Ok(EXIT_OK)
}

fn explained(args: &ExplainArgs) -> Done {
    let log = match (&args.file, &args.target) {
        (Some(file), _) => RolloutLog::read(file).map_err(|why| Failed(EXIT_USAGE, why))?,
        (None, target) => {
            let rollout = args.server.find(target.as_deref().unwrap_or_default())?;
            let (model, id) = (rollout["model"].as_str().unwrap_or_default(), &rollout["id"]);
            let path = format!("/admin/v1/models/{}/rollouts/{id}/log", encoded(model));
            let log = args.server.ask("GET", &path, "")?;
            let part = |name: &str| log[name].clone();
            let read = || -> Result<RolloutLog, serde_json::Error> {
                let (plan, records) =
                    (serde_json::from_value(part("plan"))?, serde_json::from_value(part("records"))?);
                Ok(RolloutLog { id: id.as_u64().unwrap_or(0), plan, records })
            };
            read().map_err(|error| Failed(EXIT_REFUSED, format!("the server's log is none: {error}")))?
        }
    };
    let plan = &log.plan;
    say(format_args!("rollout {} of {}: {} -> {}", log.id, plan.model, plan.baseline, plan.candidate));
    let lines = explain(plan, &log.records).map_err(|mismatch| Failed(EXIT_REFUSED, mismatch.to_string()))?;
    for (line, record) in lines.iter().zip(&log.records) {
        say(page::explained(line, record));
    }
    say(format_args!("{} records, each decided again with the same outcome", lines.len()));
    Ok(EXIT_OK)
}

impl ServerArgs {
    fn all(&self) -> Result<Vec<Value>, Failed> {
        let body = self.ask("GET", "/admin/v1/rollouts", "")?;
        Ok(body["rollouts"].as_array().cloned().unwrap_or_default())
    }

    /// The rollout with that number, or the newest of that model.
    fn find(&self, target: &str) -> Result<Value, Failed> {
        let all = self.all()?;
        let id: Option<u64> = target.parse().ok();
        let by_id = id.and_then(|id| all.iter().find(|rollout| rollout["id"] == id));
        let found = by_id.or_else(|| all.iter().find(|rollout| rollout["model"] == target));
        found.cloned().ok_or_else(|| {
            let known: Vec<String> = all
                .iter()
                .map(|rollout| format!("{} ({})", rollout["id"], page::word(&rollout["model"])))
                .collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Failed(
                EXIT_REFUSED,
                format!("there is no rollout '{target}', by number or model; there are: {known}"),
            )
        })
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value, Failed> {
        let tokens = self.admin_token_file.as_ref().map(|path| {
            read_tokens(path).map_err(|error| {
                Failed(EXIT_USAGE, format!("--admin-token-file {}: {error}", path.display()))
            })
        });
        let token = tokens.transpose()?.and_then(|tokens| tokens.into_iter().next());
        let actor = std::env::var("USER").ok().filter(|user| !user.is_empty());
        let request = client::Request {
            method,
            base: &self.admin,
            path,
            body,
            token: token.as_deref(),
            actor: actor.as_deref(),
        };
        let answer = client::call(&request).map_err(|error| {
            let wrong = matches!(error, client::ClientError::Url(_));
            Failed(if wrong { EXIT_USAGE } else { EXIT_UNAVAILABLE }, error.to_string())
        })?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status == 200 {
            return Ok(body);
        }
        let why = body["error"].as_str().unwrap_or("no reason was given; is this Gannet's admin port?");
        Err(Failed(EXIT_REFUSED, format!("{} answered {}: {why}", self.admin, answer.status)))
    }
}

/// A name as a segment of a path.
fn encoded(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}
