//! `gannet ota`: publishes signed bundles on a running server, sends them to devices and shows how that goes. Must not know
//! how a fleet is judged.

use std::{fs::File, io::Read as _, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use crossbeam::channel::after;
use gannet_edge::bundle::Bundle;
use serde_json::{Value, json};

use super::{EXIT_OK, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, client, say};
use crate::{
    ota::{
        Device, archive,
        devices::{is_name, line},
    },
    token::read_tokens,
};

/// Time between two looks of `watch`.
const WATCH: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
A signed bundle goes to a fleet stage by stage: on when enough devices have reported and a bad one is ruled out, stopped as
soon as more devices are bad than may be. Sign offline, with `gannet edge sign`: the release key never enters the server.

Examples:
  gannet ota token sensor-17 --class nano33 --devices-file devices
                                          a new device: prints its token, adds its line to ota.devices_file
  gannet ota publish digits-edge --class nano33 --stages 1,10,100
  gannet ota publish digits-edge --class nano33 --fallback digits-old
                                          digits-old: what runs now, signed again with a higher --sequence
  gannet ota watch digits                 until it reached all or was stopped
  gannet ota halt digits --reason 'the field test failed'

Exit codes: 0 done (watch: it reached all), 1 refused or stopped, 64 wrong arguments, 69 no server.";

/// The arguments of `gannet ota`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct OtaArgs {
    #[command(subcommand)]
    command: OtaCommand,
}

#[derive(Debug, Subcommand)]
enum OtaCommand {
    /// Publish a signed bundle, and begin to send it
    Publish(Box<PublishArgs>),
    /// Where deliveries stand
    Status(StatusArgs),
    /// Follow one until it is over
    Watch(TargetArgs),
    /// Offer it to nobody new; harm still stops it
    Pause(TargetArgs),
    /// Let it go on
    Resume(TargetArgs),
    /// Offer it to nobody any more, and its fallback to those who have it
    Halt(TargetArgs),
    /// Make a device's token
    Token(TokenArgs),
}

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
struct PublishArgs {
    /// The bundle's folder, signed
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// A class of devices that gets it; may be repeated
    #[arg(long, value_name = "CLASS", required = true)]
    class: Vec<String>,
    /// Percent of the devices that each stage reaches [default: 1,5,25,100]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    stages: Vec<f64>,
    /// Devices that must have voted before a stage may widen
    #[arg(long, value_name = "NUMBER")]
    devices_min: Option<u64>,
    /// Time that a stage lasts at least
    #[arg(long, value_name = "SECONDS")]
    seconds_min: Option<u64>,
    /// Time after which a device that took it and is not heard counts as bad
    #[arg(long, value_name = "SECONDS")]
    silent_seconds: Option<u64>,
    /// Everything that a plan can say, as JSON; the options above go before it
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// A bundle for those who have this one once it is stopped: the old payload, signed with a higher sequence
    #[arg(long, value_name = "BUNDLE")]
    fallback: Option<PathBuf>,
    /// Follow it until it is over
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Print the server's JSON instead of a page
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct TargetArgs {
    /// A model, whose newest delivery is meant, or the number of a delivery
    #[arg(value_name = "MODEL|ID")]
    target: String,
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
struct TokenArgs {
    /// The device's name
    #[arg(value_name = "DEVICE")]
    device: String,
    /// What hardware and firmware it is
    #[arg(long, value_name = "CLASS")]
    class: String,
    /// Add the device's line to this file [default: print it]
    #[arg(long, value_name = "FILE")]
    devices_file: Option<PathBuf>,
}

struct Failed(u8, String);

type Done = Result<u8, Failed>;

pub(super) fn run(args: &OtaArgs) -> u8 {
    let done = match &args.command {
        OtaCommand::Publish(args) => publish(args),
        OtaCommand::Status(args) => status(args),
        OtaCommand::Watch(args) => watch(&args.server, &args.target),
        OtaCommand::Pause(args) => wish(args, "pause"),
        OtaCommand::Resume(args) => wish(args, "resume"),
        OtaCommand::Halt(args) => wish(args, "halt"),
        OtaCommand::Token(args) => token(args),
    };
    done.unwrap_or_else(|Failed(code, why)| {
        eprintln!("{why}");
        code
    })
}

fn publish(args: &PublishArgs) -> Done {
    let mut plan = match &args.plan {
        None => json!({}),
        Some(path) => {
            let wrong = |why: String| Failed(EXIT_USAGE, format!("--plan {}: {why}", path.display()));
            let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let plan: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
            if plan.is_object() { plan } else { return Err(wrong("expected an object".into())) }
        }
    };
    plan["bundle"] = args.server.upload(&args.bundle)?["bundle"].clone();
    plan["classes"] = json!(args.class);
    if let Some(fallback) = &args.fallback {
        plan["fallback"] = args.server.upload(fallback)?["bundle"].clone();
    }
    if !args.stages.is_empty() {
        plan["stages"] = json!(args.stages);
    }
    let numbers = [
        ("devices_min", args.devices_min),
        ("seconds_min", args.seconds_min),
        ("silent_seconds", args.silent_seconds),
    ];
    for (key, number) in numbers.into_iter().filter_map(|(key, number)| Some((key, number?))) {
        plan[key] = json!(number);
    }
    let rollout = args.server.ask("POST", "/admin/v1/ota/rollouts", plan.to_string().as_bytes())?;
    say(page(&rollout));
    if args.watch { watch(&args.server, &rollout["id"].to_string()) } else { Ok(EXIT_OK) }
}

fn status(args: &StatusArgs) -> Done {
    let all = args.server.ask("GET", "/admin/v1/ota", b"")?;
    let rollouts = all["rollouts"].as_array().cloned().unwrap_or_default();
    if args.json {
        say(format_args!("{all:#}"));
    } else if rollouts.is_empty() {
        say("nothing is delivered; begin with `gannet ota publish BUNDLE --class CLASS`");
    }
    rollouts.iter().filter(|_| !args.json).for_each(|rollout| say(page(rollout)));
    Ok(EXIT_OK)
}

fn watch(server: &ServerArgs, target: &str) -> Done {
    let id = server.find(target)?["id"].to_string();
    let mut said = String::new();
    loop {
        let rollout = server.ask("GET", &format!("/admin/v1/ota/rollouts/{id}"), b"")?;
        let page = page(&rollout);
        if page != said {
            say(&page);
            said = page;
        }
        match rollout["status"].as_str() {
            Some("done") => return Ok(EXIT_OK),
            Some("halted") => return Ok(EXIT_REFUSED),
            _ => {}
        }
        let _ = after(WATCH).recv();
    }
}

fn wish(args: &TargetArgs, what: &str) -> Done {
    let id = args.server.find(&args.target)?["id"].clone();
    let body =
        args.reason.as_ref().map_or_else(String::new, |reason| json!({ "reason": reason }).to_string());
    say(page(&args.server.ask("POST", &format!("/admin/v1/ota/rollouts/{id}/{what}"), body.as_bytes())?));
    Ok(EXIT_OK)
}

fn token(args: &TokenArgs) -> Done {
    for (what, name) in [("DEVICE", &args.device), ("--class", &args.class)] {
        if !is_name(name) {
            let message =
                format!("{what}: expected 1 to 64 letters, digits and any of - _ . :, got {name:?}");
            return Err(Failed(EXIT_USAGE, message));
        }
    }
    let failed = |what: &str, error: std::io::Error| Failed(EXIT_REFUSED, format!("{what}: {error}"));
    let mut bytes = [0u8; 32];
    let random = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    random.map_err(|error| failed("/dev/urandom", error))?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = line(&Device { id: args.device.clone(), class: args.class.clone() }, &token);
    match &args.devices_file {
        None => say(format_args!("{line}")),
        Some(path) => {
            use std::io::Write as _;
            let file = File::options().create(true).append(true).open(path);
            let written = file.and_then(|mut file| writeln!(file, "{line}"));
            written.map_err(|error| failed(&path.display().to_string(), error))?;
        }
    }
    say(token);
    Ok(EXIT_OK)
}

/// A delivery in two lines.
fn page(rollout: &Value) -> String {
    let text = |name: &str| rollout[name].as_str().unwrap_or("?").to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let devices = &rollout["devices"];
    let percent = rollout["percent"].as_f64().unwrap_or(0.0);
    let mut page = format!(
        "delivery {}: {} sequence {}, {}, {percent} % of {} devices\n  {} reached, {} took it, {} voted, {} bad",
        rollout["id"],
        text("model"),
        rollout["sequence"],
        text("status"),
        number(&devices["devices"]),
        number(&devices["reached"]),
        number(&devices["took"]),
        number(&devices["voted"]),
        number(&devices["bad"]),
    );
    let reason = text("reason");
    if !reason.is_empty() {
        page.push_str("; ");
        page.push_str(&reason);
    }
    page
}

impl ServerArgs {
    /// Publishes the bundle of a folder.
    fn upload(&self, folder: &std::path::Path) -> Result<Value, Failed> {
        let refused = |why: String| Failed(EXIT_REFUSED, format!("{}: {why}", folder.display()));
        let bundle = Bundle::read(folder).map_err(|error| refused(error.to_string()))?;
        let bytes = archive::pack(&bundle, "bundle").map_err(refused)?;
        self.ask("POST", "/admin/v1/ota/bundles", &bytes)
    }

    /// The delivery with that number, or the newest of that model.
    fn find(&self, target: &str) -> Result<Value, Failed> {
        let all = self.ask("GET", "/admin/v1/ota", b"")?;
        let rollouts = all["rollouts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let id: Option<u64> = target.parse().ok();
        let by_id = id.and_then(|id| rollouts.iter().find(|rollout| rollout["id"] == id));
        let found = by_id.or_else(|| rollouts.iter().find(|rollout| rollout["model"] == target));
        found.cloned().ok_or_else(|| {
            Failed(EXIT_REFUSED, format!("there is no delivery '{target}', by number or model"))
        })
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<Value, Failed> {
        let tokens = self.admin_token_file.as_ref().map(|path| {
            read_tokens(path).map_err(|error| {
                Failed(EXIT_USAGE, format!("--admin-token-file {}: {error}", path.display()))
            })
        });
        let token = tokens.transpose()?.and_then(|tokens| tokens.into_iter().next());
        let actor = std::env::var("USER").ok().filter(|user| !user.is_empty());
        let (token, actor) = (token.as_deref(), actor.as_deref());
        let request = client::Request { method, base: &self.admin, path, body: "", token, actor };
        let answer = client::send(&request, body).map_err(|error| {
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
