//! A real Prometheus and a real Alertmanager out of Debian's packages, over one metrics page. Must not know any metric.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use super::{call, debian::program, mlflow::free_port, server::root, wait};

const PROMETHEUS: &str = include_str!("promtool.lock");
const ALERTMANAGER: &str = include_str!("alertmanager.lock");

/// Both, scraping a page and judging it by the repository's rules.
pub(crate) struct Prometheus {
    children: Vec<Child>,
    prometheus: u16,
    alertmanager: u16,
    folder: tempfile::TempDir,
}

impl Prometheus {
    pub(crate) fn start(metrics: SocketAddr) -> Self {
        Self::start_over(&format!("static_configs: [{{ targets: [\"{metrics}\"] }}]"))
    }

    /// As [`Prometheus::start`], over TLS with an authority's certificate.
    pub(crate) fn start_secured(metrics: SocketAddr, authority: &Path) -> Self {
        let (port, authority) = (metrics.port(), authority.display());
        Self::start_over(&format!(
            "scheme: https, tls_config: {{ ca_file: \"{authority}\" }}, \
             static_configs: [{{ targets: [\"localhost:{port}\"] }}]"
        ))
    }

    fn start_over(scraped: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (prometheus, alertmanager) = (free_port(), free_port());
        let rules = root().join("server/alerts/gannet.rules.yml");
        let config = format!(
            "global: {{ scrape_interval: 250ms, scrape_timeout: 200ms, evaluation_interval: 250ms }}\n\
             rule_files: [\"{}\"]\n\
             scrape_configs: [{{ job_name: gannet, {scraped} }}]\n\
             alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: [\"127.0.0.1:{alertmanager}\"] }}] }}] }}\n",
            rules.display()
        );
        fs::write(folder.path().join("prometheus.yml"), config).expect("a file");
        let routes = "route: { receiver: nobody, group_wait: 0s }\nreceivers: [{ name: nobody }]\n";
        fs::write(folder.path().join("alertmanager.yml"), routes).expect("a file");
        let mut both = Self { children: Vec::new(), prometheus, alertmanager, folder };
        // Debian's build reads a template below /usr/share at its start: it finds its own there, and nobody else does
        let binary = program(ALERTMANAGER, "prometheus-alertmanager");
        let share = binary.ancestors().nth(2).expect("it lies in usr/bin").join("share");
        let mut apart = Command::new("unshare");
        apart.args(["--mount", "sh", "-c", "mount --bind \"$0\" /usr/share && exec \"$@\""]);
        both.run(
            apart.arg(share).arg(binary),
            &["--config.file=alertmanager.yml", "--storage.path=alerts", "--cluster.listen-address="],
            alertmanager,
        );
        both.run(
            &mut Command::new(program(PROMETHEUS, "prometheus")),
            &["--config.file=prometheus.yml", "--storage.tsdb.path=series"],
            prometheus,
        );
        for (name, port) in [("Alertmanager", alertmanager), ("Prometheus", prometheus)] {
            wait::until(&format!("{name} is ready"), || {
                call::try_call(("127.0.0.1", port), "GET /-/ready", &[], b"").is_ok_and(|a| a.status == 200)
            });
        }
        both
    }

    fn run(&mut self, command: &mut Command, arguments: &[&str], port: u16) {
        let log = fs::File::create(self.folder.path().join(format!("{port}.log"))).expect("a log");
        command.args(arguments).arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.children.push(command.spawn().expect("it starts"));
    }

    /// What Prometheus says of an expression; nothing, while it does not answer.
    pub(crate) fn query(&self, expression: &str) -> Value {
        answer(self.prometheus, &format!("GET /api/v1/query?query={expression}"))
    }

    /// The alerts that Alertmanager holds; nothing, while it does not answer.
    pub(crate) fn alerts(&self) -> Value {
        answer(self.alertmanager, "GET /api/v2/alerts")
    }
}

fn answer(port: u16, start: &str) -> Value {
    let answer = call::try_call(("127.0.0.1", port), start, &[], b"");
    answer.ok().filter(|answer| answer.status == 200).map_or(Value::Null, |answer| answer.ok())
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
