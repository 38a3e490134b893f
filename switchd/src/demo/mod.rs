//! `switchd demo`: the main job, shown on this machine in a few seconds, with nothing but this binary.
//!
//! Everything happens in namespaces of the demo's own (a user namespace too, when it is not run by root),
//! which end with its processes: whatever way it ends, nothing stays behind but one capture. Guests are
//! namespaces with a tap each; where `/dev/net/tun` may not be opened, with a veth each. The rack switch at the
//! far end of the uplink is a second switchd (`rack`); beyond it are the LAN and an internet (`private`).
//!
//! Apart from the rest on purpose: it uses the daemon as any user does, through its socket.

mod api;
mod dhcp;
mod private;
mod rack;
mod stage;
mod traffic;

use anyhow::{Context, Result, bail};
use api::Api;
use serde_json::json;
use stage::{Guest, Stage};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use traffic::{Pings, Watch};

const PINGS: u32 = 200;
const TRANSFER: Duration = Duration::from_millis(1500);

pub(crate) struct Row {
    what: String,
    result: String,
}

impl Row {
    fn new(what: impl Into<String>, result: String) -> Row {
        Row { what: what.into(), result }
    }
}

/// Runs the demo; with `keep`, leaves everything standing until Ctrl-C.
pub fn run(keep: bool) -> Result<()> {
    let begun = Instant::now();
    let stage = Stage::enter()?;
    // The guests live as long as the script.
    let _script = perform(&stage).inspect_err(|_| stage.end_if_signalled())?;
    println!("\ntook {:.1} s", begun.elapsed().as_secs_f64());
    if keep {
        stage.print_commands();
        stage.wait();
    }
    stage.leave();
    Ok(())
}

fn perform(stage: &Stage) -> Result<Script<'_>> {
    let script = Script::set_up(stage)?;
    let rows = script.play()?;
    let capture = script.finish_capture()?;
    script.print(&rows, &capture)?;
    Ok(script)
}

struct Script<'a> {
    stage: &'a Stage,
    api: Api,
    taps: bool,
    lan: Guest,
    office: [Guest; 2],
    vault: [Guest; 2],
    lab: Guest,
    cafe: Guest,
    _rack: rack::Rack,
}

const LAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OFFICE: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 11), Ipv4Addr::new(192, 0, 2, 12)];
/// The isolated guests take addresses of the LAN, so that only the switch keeps them apart from it.
const VAULT: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 21), Ipv4Addr::new(192, 0, 2, 22)];

impl<'a> Script<'a> {
    fn set_up(stage: &'a Stage) -> Result<Script<'a>> {
        let taps = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok();
        println!(
            "switchd demo: guests in namespaces, {} each{}",
            if taps { "a tap" } else { "a veth" },
            if taps { "" } else { " (/dev/net/tun cannot be opened)" }
        );
        let lan = Guest::new("lan")?;
        let office = [Guest::new("office1")?, Guest::new("office2")?];
        let vault = [Guest::new("vault1")?, Guest::new("vault2")?];
        let (lab, cafe) = (Guest::new("lab1")?, Guest::new("cafe1")?);
        let rack = rack::Rack::set_up(stage, &lan)?;
        let api = stage.start_daemon("switchd", None)?;
        let script = Script { stage, api, taps, lan, office, vault, lab, cafe, _rack: rack };
        rack::bond(&script.api)?;
        script.api.post("/v1/networks", json!({"name": "office", "kind": "bridged", "uplink": "bond0"}))?;
        script.api.post("/v1/networks", json!({"name": "vault", "kind": "isolated"}))?;
        for (network, guests, addresses) in
            [("office", &script.office, OFFICE), ("vault", &script.vault, VAULT)]
        {
            for (guest, address) in guests.iter().zip(addresses) {
                script.attach(network, guest)?;
                guest.configure("eth0", address)?;
            }
        }
        private::set_up(&script.api, &script.lan)?;
        script.attach("lab", &script.lab)?;
        script.attach("cafe", &script.cafe)?;
        script.api.post(
            "/v1/mirrors",
            json!({"name": "forensics", "source": ["network:office"], "to": "pcap:demo.pcapng", "snaplen": 128}),
        )?;
        Ok(script)
    }

    fn attach(&self, network: &str, guest: &Guest) -> Result<()> {
        let mut port = json!({"name": guest.name, "network": network});
        if self.taps {
            port["tap"] = json!("eth0");
            port["netns"] = json!(guest.name);
        } else {
            stage::veth(guest.name, "eth0", guest.name)?;
            port["netdev"] = json!(guest.name);
        }
        self.api.post("/v1/ports", port)
    }

    fn play(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut row = |what: &str, result| rows.push(Row::new(what, result));
        let time = rack::negotiated(&self.api)?;
        row(
            "bond of two links to the rack switch",
            format!("LACP, both in after {:.1} s", time.as_secs_f64()),
        );
        let secret: Vec<_> = self.vault.iter().map(|guest| guest.mac("eth0")).collect::<Result<_, _>>()?;
        let open: Vec<_> = self.office.iter().map(|guest| guest.mac("eth0")).collect::<Result<_, _>>()?;
        let watches = [Watch::start(&self.lan, secret.clone())?, Watch::start(&self.office[0], secret)?];
        let back = Watch::start(&self.vault[0], open)?;

        let [one, two] = &self.office;
        row("office1 → office2, ping", answered(one.run(|| traffic::ping(OFFICE[1], PINGS))??)?);
        row("office1 → LAN through the uplink, ping", answered(one.run(|| traffic::ping(LAN, PINGS))??)?);
        row("vault1 → vault2, ping", answered(self.vault[0].run(|| traffic::ping(VAULT[1], PINGS))??)?);
        let (server, port) = two.run(traffic::sink)??;
        let gigabits = one.run(move || traffic::transfer(OFFICE[1], port, TRANSFER))??;
        two.run(move || server.stop())?;
        row("office1 → office2, TCP", format!("{gigabits:.2} Gbit/s"));

        for (what, target) in [("vault1 → LAN, ping", LAN), ("vault1 → office1, ping", OFFICE[0])] {
            let pings = self.vault[0].run(move || traffic::ping_unanswered(target))??;
            if pings.answered > 0 {
                bail!("{what}: {} answers came out of an isolated network", pings.answered);
            }
            row(what, "no answer, as it must be".to_owned());
        }
        self.vault[0].run(traffic::broadcast)??;
        std::thread::sleep(Duration::from_millis(50));
        let mut seen = 0;
        let mut leaked = 0;
        for watch in watches.into_iter().chain([back]) {
            let (frames, ours) = watch.stop()?;
            seen += frames;
            leaked += ours;
        }
        if leaked > 0 {
            bail!("{leaked} frames crossed between the isolated network and the others");
        }
        row("frames of vault seen on LAN and office, and back", format!("0 of {seen} watched"));
        rows.extend(rack::pull(&self.api, &self.office, &self.lan)?);
        rows.extend(private::play(&self.lab, &self.lan, private::Seen::Lab)?);
        rows.extend(private::play(&self.cafe, &self.lan, private::Seen::Host)?);
        Ok(rows)
    }

    /// Ends the mirror, which completes its file, and moves the file out of what will be cleaned up.
    fn finish_capture(&self) -> Result<PathBuf> {
        let mirror = self.api.get("/v1/mirrors/forensics")?;
        let file = mirror["file"].as_str().context("the mirror has no file")?.to_owned();
        self.api.delete("/v1/mirrors/forensics")?;
        self.stage.keep_file(file.as_ref())
    }

    fn print(&self, rows: &[Row], capture: &std::path::Path) -> Result<()> {
        println!("\n{}", self.topology()?);
        let width = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
        for Row { what, result } in rows {
            println!("  {what}{}  {result}", " ".repeat(width - what.chars().count()));
        }
        println!("\n  port            rx frames  tx frames    dropped");
        let ports = self.api.get("/v1/ports")?;
        for port in ports.as_array().into_iter().flatten() {
            let counters = &port["counters"];
            let sum = |key: &str| -> u64 {
                let reasons = counters[key].as_object().into_iter().flatten();
                reasons.filter_map(|(_, frames)| frames.as_u64()).sum()
            };
            println!(
                "  {:<15}{:>10} {:>10} {:>10}",
                port["name"].as_str().unwrap_or("?"),
                counters["rx_frames"].as_u64().unwrap_or(0),
                counters["tx_frames"].as_u64().unwrap_or(0),
                sum("dropped_in") + sum("dropped_out")
            );
        }
        println!("\ncapture of network office: {}", capture.display());
        Ok(())
    }

    fn topology(&self) -> Result<String> {
        let networks = self.api.get("/v1/networks")?;
        let mut text = String::new();
        for network in networks.as_array().into_iter().flatten() {
            let name = network["name"].as_str().unwrap_or("?");
            text += &format!("  {name} ({})\n", network["kind"].as_str().unwrap_or("?"));
            let ports: Vec<_> =
                network["ports"].as_array().into_iter().flatten().filter_map(|port| port.as_str()).collect();
            for (index, port) in ports.iter().enumerate() {
                let branch = if index + 1 == ports.len() { "└" } else { "├" };
                let beyond = if port.starts_with("uplink:") { " ══ rack switch ── LAN" } else { "" };
                text += &format!("  {branch}── {port}{beyond}\n");
            }
        }
        Ok(text)
    }
}

fn answered(pings: Pings) -> Result<String> {
    if pings.answered == 0 {
        bail!("none of {} pings was answered", pings.sent);
    }
    let Pings { sent, answered, median, slowest } = pings;
    Ok(format!(
        "{answered}/{sent}, RTT median {:.0} µs, slowest {:.0} µs",
        median.as_nanos() as f64 / 1e3,
        slowest.as_nanos() as f64 / 1e3
    ))
}
