//! A simulated fleet: each device has a credential, keeps what it runs, asks, fetches, checks and reports over HTTP of its
//! own. Must not know the server's insides.

use std::{fmt::Write as _, net::SocketAddr};

use gannet_edge::{bundle::Bundle, compile::CODE_BINS, device::DeviceAbi, manifest::Manifest};
use gannet_server::ota::{Device as Known, devices::line};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{begin, bundle, plan, publish, resigned, rollout, serve};
use crate::{
    edge::key,
    support::{
        call::{Answer, get, sample, try_call},
        folder::Folder,
        http,
        server::Server,
        wait,
    },
};

/// Threads that play the devices.
const PLAYERS: usize = 8;

/// What a bundle does to the devices that run it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Effect {
    Good,
    /// Inferences fail.
    Fails,
    /// It takes three times as long.
    Slows,
    /// The watchdog bites.
    Bites,
    /// Nothing is heard any more.
    Kills,
}

#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) id: String,
    pub(super) token: String,
    model: String,
    pub(super) sequence: u64,
    window: u64,
    pub(super) dead: bool,
    /// Its reports may be stale, after what it said before.
    pub(super) lied: bool,
}

pub(crate) struct Fleet {
    pub(super) devices: Vec<Device>,
    abi: DeviceAbi,
}

impl Fleet {
    pub(crate) fn new(count: usize, runs: &Bundle) -> Self {
        let manifest = runs.manifest().unwrap();
        let device = |n: usize| Device {
            id: format!("device-{n}"),
            token: format!("token-{n}-{}", "x".repeat(32)),
            model: manifest.model.clone(),
            sequence: manifest.sequence,
            window: 0,
            dead: false,
            lied: false,
        };
        Self { devices: (0..count).map(device).collect(), abi: DeviceAbi::from(&manifest.abi) }
    }

    /// The file that the server reads.
    pub(super) fn lines(&self) -> String {
        let mut text = String::new();
        for device in &self.devices {
            let known = Known { id: device.id.clone(), class: "nano33".into() };
            writeln!(text, "{}", line(&known, &device.token)).unwrap();
        }
        text
    }

    pub(super) fn ask(&self, sequence: u64) -> Value {
        json!({ "class": "nano33", "model": "digits", "sequence": sequence, "abi": self.abi })
    }

    /// Every device asks once, takes what it is offered, and reports. How many run `sequence` then.
    pub(super) fn turn(&mut self, address: SocketAddr, effects: &[(u64, Effect, f64)]) {
        let share = self.devices.len().div_ceil(PLAYERS);
        let abi = &self.abi;
        std::thread::scope(|scope| {
            for devices in self.devices.chunks_mut(share) {
                scope.spawn(move || devices.iter_mut().for_each(|device| device.turn(address, abi, effects)));
            }
        });
    }

    /// Every device reports what it saw: of each, counts of codes by its place in the fleet.
    pub(crate) fn report(&mut self, address: SocketAddr, codes: impl Fn(usize) -> Vec<u64> + Sync) {
        let share = self.devices.len().div_ceil(PLAYERS);
        let codes = &codes;
        std::thread::scope(|scope| {
            for (player, devices) in self.devices.chunks_mut(share).enumerate() {
                scope.spawn(move || {
                    for (place, device) in devices.iter_mut().enumerate() {
                        device.report(address, Effect::Good, &codes(player * share + place));
                    }
                });
            }
        });
    }

    pub(super) fn running(&self, sequence: u64) -> usize {
        self.devices.iter().filter(|device| device.sequence == sequence).count()
    }
}

impl Device {
    pub(super) fn call(&self, address: SocketAddr, start: &str, body: &Value) -> Answer {
        let authorization = format!("authorization: Bearer {}", self.token);
        try_call(address, start, &[&authorization], body.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("{}: {error}", self.id))
    }

    fn turn(&mut self, address: SocketAddr, abi: &DeviceAbi, effects: &[(u64, Effect, f64)]) {
        if self.dead {
            return;
        }
        let ask = json!({ "class": "nano33", "model": "digits", "sequence": self.sequence, "abi": abi });
        let update = self.call(address, "POST /ota/v1/check", &ask).ok()["update"].clone();
        if let Some(id) = update["bundle"].as_str() {
            self.take(address, id);
        }
        let number: f64 = self.id.trim_start_matches("device-").parse().unwrap();
        // spread over the fleet, whatever stage a device is in
        let hit = |share: &f64| (number * 0.618_033_988_75).fract() < *share;
        let effect = effects.iter().find(|(sequence, _, share)| *sequence == self.sequence && hit(share));
        let effect = effect.map_or(Effect::Good, |(_, effect, _)| *effect);
        if effect == Effect::Kills {
            self.dead = true;
            return;
        }
        self.report(address, effect, &[3; CODE_BINS]);
    }

    /// Fetches a bundle and checks it as a device does: the signature, then the digest, then the sequence.
    fn take(&mut self, address: SocketAddr, id: &str) {
        let fetch = |name: &str| {
            let request = http::request(
                "GET",
                &format!("/ota/v1/bundles/{id}/{name}"),
                &format!("authorization: Bearer {}\r\n", self.token),
                b"",
            );
            let reply = http::exchange(address, &request);
            // it may have been stopped since it was offered
            assert!([200, 404].contains(&reply.status), "{name}: {}", reply.text());
            (reply.status == 200).then_some(reply.body)
        };
        let fetched = (fetch("manifest.json"), fetch("manifest.sig"), fetch("model.tflite"));
        let (Some(manifest), Some(signature), Some(model)) = fetched else { return };
        assert!(key().public().verifies(&manifest, &signature), "an unsigned bundle was offered");
        let manifest = Manifest::read(&manifest).unwrap();
        let digest: String = Sha256::digest(&model).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(manifest.files["model.tflite"], digest);
        assert!(manifest.sequence > self.sequence, "{} runs {}", self.id, self.sequence);
        (self.sequence, self.window) = (manifest.sequence, 0);
    }

    fn report(&mut self, address: SocketAddr, effect: Effect, codes: &[u64]) {
        self.window += 1;
        let slow = if effect == Effect::Slows { 3 } else { 1 };
        let failures = if effect == Effect::Fails { 90 } else { 1 };
        let alerts = if effect == Effect::Bites { json!(["watchdog"]) } else { json!([]) };
        let report = json!({
            "model": self.model, "sequence": self.sequence, "window": self.window, "inferences": 300 * self.window,
            "failures": failures, "latency_us": { "p50": 900 * slow, "p99": 1500 * slow },
            "inputs": { "image": codes }, "alerts": alerts,
            "log": [format!("{} runs {}", self.id, self.sequence)],
        });
        let answer = self.call(address, "POST /ota/v1/report", &report).ok();
        assert!(answer["taken"] == true || self.lied, "{}: {answer}", self.id);
    }
}

pub(crate) fn door(server: &Server) -> SocketAddr {
    server.addresses.ota.expect("it listens")
}

/// Lets the fleet turn until a rollout is over, at most so often.
pub(super) fn play(server: &Server, fleet: &mut Fleet, id: u64, effects: &[(u64, Effect, f64)]) -> Value {
    for _ in 0..12 {
        let before = rollout(server, id);
        fleet.turn(door(server), effects);
        // a stage that has all its votes moves at the next look
        let mut after = before.clone();
        wait::holds_within(std::time::Duration::from_secs(2), || {
            after = rollout(server, id);
            (&after["stage"], &after["status"]) != (&before["stage"], &before["status"])
        });
        if ["done", "halted"].contains(&after["status"].as_str().unwrap()) {
            return after;
        }
    }
    panic!("it is not over: {}", rollout(server, id));
}

#[test]
fn a_good_bundle_reaches_a_thousand_devices_and_a_bad_one_stops_in_its_first_stage() {
    let old = bundle(1);
    let mut fleet = Fleet::new(1000, &old);
    let folder = Folder::with_add_one();
    let server = serve(&folder, &fleet);
    publish(&server, &old);
    fleet.turn(door(&server), &[]);
    let good = publish(&server, &resigned(&old, 2));
    let id = begin(&server, &plan(&good)).ok()["id"].as_u64().unwrap();
    let over = play(&server, &mut fleet, id, &[(2, Effect::Good, 1.0)]);
    fleet.turn(door(&server), &[]);
    assert_eq!((&over["status"], fleet.running(2)), (&json!("done"), 1000), "{over}");

    // three in ten devices fail, each in another way; the fallback is the good payload, signed anew
    let mut sequence = 3;
    for effect in [Effect::Fails, Effect::Slows, Effect::Bites, Effect::Kills] {
        let bad = publish(&server, &resigned(&old, sequence));
        let back = publish(&server, &resigned(&old, sequence + 1));
        let mut plan = plan(&bad);
        plan["fallback"] = json!(back);
        plan["silent_seconds"] = json!(1);
        let id = begin(&server, &plan).ok()["id"].as_u64().unwrap();
        let over = play(&server, &mut fleet, id, &[(sequence, effect, 0.3)]);
        assert_eq!((&over["status"], &over["stage"]), (&json!("halted"), &json!(0)), "{effect:?}: {over}");
        let took = over["devices"]["took"].as_u64().unwrap();
        assert!(took <= 70, "{effect:?}: {took} of 1000 devices took it");
        assert!(over["reason"].as_str().unwrap().contains("devices are bad"), "{over}");
        // who has it goes back, and nobody else is offered anything
        let had = fleet.devices.iter().filter(|device| device.sequence == sequence && !device.dead).count();
        fleet.turn(door(&server), &[]);
        assert_eq!(fleet.running(sequence + 1), had, "{effect:?}");
        assert_eq!(
            fleet.devices.iter().filter(|device| device.sequence == sequence && !device.dead).count(),
            0
        );
        sequence += 2;
    }
    // metrics, the log and the histograms tell of it
    assert_eq!(
        sample(&server, "gannet_ota_status{model=\"digits\",sequence=\"9\",status=\"halted\"}"),
        Some(1.0)
    );
    assert!(sample(&server, "gannet_ota_requests_total{outcome=\"reported\"}").unwrap() > 4000.0);
    let log = get(server.admin(), "/admin/v1/ota/log").ok();
    let count = |what: &str| log["records"].as_array().unwrap().iter().filter(|r| r["what"] == what).count();
    assert_eq!((count("publish"), count("start"), count("done"), count("halted")), (10, 5, 1, 4), "{log}");
    let inputs = get(server.admin(), "/admin/v1/ota/models/digits/inputs").ok();
    let first = &inputs["sequences"][0]["inputs"][0];
    assert_eq!(first["name"], "image", "{inputs}");
    assert_eq!(
        first["reference"]["counts"]["counts"].as_array().unwrap().len(),
        first["counts"]["counts"].as_array().unwrap().len()
    );
}
