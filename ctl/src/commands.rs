//! Each command: the request it makes, and how its answer is shown.

mod bond;
mod nat;
mod network;
mod vhost;

use crate::args::{Attach, Cli, Command, Fdb, FdbCommand, Global, Mirror, Network, Output, Port};
use crate::client::{Client, decode};
use crate::failure::{Exit, Failure};
use crate::{live, manual, render, top, topology};
use hyper::Method;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use switchd_api::Desired;
use switchd_api::reply::{
    ApplyReply, Change, DropRow, FdbEntry, MirrorStatus, NetworkStatus, PortStatus, Status, Topology,
};

pub async fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    if matches!(global.output, Output::Dot | Output::Svg) && !matches!(command, Command::Topology) {
        return Err(Failure::new(Exit::Usage, "-o dot and -o svg are forms of `switchctl topology` only")
            .hint("-o table, wide, json or yaml"));
    }
    let asker = Asker { client: Client::new(global.socket.clone(), global.wait), global };
    match command {
        Command::Network(command) => asker.network(command).await,
        Command::Port(command) => asker.port(command).await,
        Command::Bond(command) => asker.bond(command).await,
        Command::Forward(command) => asker.forward(command).await,
        Command::Floating(command) => asker.floating(command).await,
        Command::Lease(command) => asker.lease(command).await,
        Command::Flow(command) => asker.flow(command).await,
        Command::Fdb(command) => asker.fdb(command).await,
        Command::Drops { name, watch } => asker.drops(name, watch).await,
        Command::Mirror(command) => asker.mirror(command).await,
        Command::Capture(capture) => live::capture(&asker.client, capture, asker.global.quiet).await,
        Command::Apply { file, dry_run, confirm } => asker.apply(&file, dry_run, confirm).await,
        Command::Confirm => asker.confirm().await,
        Command::Diff { file } => asker.diff(&file).await,
        Command::Export => asker.export().await,
        Command::Status => {
            let status: Status = asker.client.get("/v1/status").await?;
            asker.show(&status, |wide| render::status(&status, wide))
        }
        Command::Events { watch } => live::events(&asker.client, asker.global.output, watch).await,
        Command::Top { count } => top::run(&asker.client, asker.global.output, count).await,
        Command::Topology => asker.topology().await,
        Command::Completion { shell } => manual::completion(shell),
        Command::Man { directory } => manual::man(&directory),
    }
}

struct Asker {
    client: Client,
    global: Global,
}

/// An object of the keys that were given.
fn body<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    let given = pairs.into_iter().filter(|(_, value)| !value.is_null() && *value != json!(false));
    Value::Object(given.map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
}

/// Percent-encodes what a path segment may not hold (RFC 3986 2.3).
fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte);
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

impl Asker {
    fn show<T: Serialize>(&self, value: &T, table: impl FnOnce(bool) -> String) -> Result<(), Failure> {
        render::show(self.global.output, value, table)
    }

    /// A request that changes something. Says `done` unless told to be quiet.
    async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        done: &str,
    ) -> Result<Vec<u8>, Failure> {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let answer = self.client.call(method, path, None, &bytes).await?;
        if !self.global.quiet {
            match self.global.output {
                Output::Json | Output::Yaml if !answer.is_empty() => {
                    // A mapping that keeps the order of its keys, as serde_json's own does not.
                    let value: serde_yaml_ng::Value = decode(&answer)?;
                    render::show(self.global.output, &value, |_| String::new())?;
                }
                Output::Json | Output::Yaml => {}
                _ => render::print(&format!("{}\n", render::harmless(done)))?,
            }
        }
        Ok(answer)
    }

    async fn network(&self, command: Network) -> Result<(), Failure> {
        match command {
            Network::Create(network) => self.create_network(*network).await,
            Network::List => {
                let list: Vec<NetworkStatus> = self.client.get("/v1/networks").await?;
                self.show(&list, |wide| render::networks(&list, wide))
            }
            Network::Show { name } => {
                let one: NetworkStatus = self.client.get(&format!("/v1/networks/{}", segment(&name))).await?;
                self.show(&one, |wide| render::object(&one, wide))
            }
            Network::Set { name, settings } => self.set("networks", "network", &name, settings).await,
            Network::Delete { name } => {
                let path = format!("/v1/networks/{}", segment(&name));
                let done = format!("network {name} deleted");
                self.change(Method::DELETE, &path, None, &done).await.map(drop)
            }
        }
    }

    async fn set(
        &self,
        collection: &str,
        kind: &str,
        name: &str,
        settings: Vec<(String, String)>,
    ) -> Result<(), Failure> {
        let mut map = Map::new();
        for (key, value) in settings {
            if map.insert(key.clone(), json!(value)).is_some() {
                return Err(Failure::new(Exit::Usage, format!("{kind} {name}: {key:?} is given twice")));
            }
        }
        let path = format!("/v1/{collection}/{}", segment(name));
        let done = format!("{kind} {name} changed");
        self.change(Method::PATCH, &path, Some(Value::Object(map)), &done).await.map(drop)
    }

    async fn port(&self, command: Port) -> Result<(), Failure> {
        match command {
            Port::Attach(port) => {
                let Attach { network, name, .. } = &*port;
                let done = format!("port {name} attached to network {network}");
                // The daemon may stand in another folder.
                let socket = port.vhost_user.as_deref().map(vhost::absolute).transpose()?;
                let body = body([
                    ("name", json!(name)),
                    ("network", json!(network)),
                    ("tap", json!(port.tap)),
                    ("netns", json!(port.netns)),
                    ("netdev", json!(port.netdev)),
                    ("vhost-user", json!(socket)),
                    ("server", json!(port.server.then_some(true))),
                    ("queues", json!(port.queues)),
                    ("socket-mode", json!(port.socket_mode)),
                    ("socket-owner", json!(port.socket_owner)),
                    ("mac", json!(port.mac)),
                    ("vlan", json!(port.vlan)),
                    ("mac-limit", json!(port.mac_limit)),
                    ("reserve", json!(port.reserve)),
                    ("storm-limit", json!(port.storm_limit)),
                    ("bpdu-guard", json!(port.bpdu_guard)),
                    ("loop-guard", json!(port.loop_guard)),
                ]);
                self.change(Method::POST, "/v1/ports", Some(body), &done).await?;
                if socket.is_some() { self.tell_guest(name).await } else { Ok(()) }
            }
            Port::List => {
                let list: Vec<PortStatus> = self.client.get("/v1/ports").await?;
                self.show(&list, |wide| render::ports(&list, wide))
            }
            Port::Show { name } => {
                let one: PortStatus = self.client.get(&format!("/v1/ports/{}", segment(&name))).await?;
                self.show(&one, |wide| render::object(&one, wide))
            }
            Port::Set { name, settings } => self.set("ports", "port", &name, settings).await,
            Port::Detach { name } => {
                let path = format!("/v1/ports/{}", segment(&name));
                let done = format!("port {name} detached");
                self.change(Method::DELETE, &path, None, &done).await.map(drop)
            }
        }
    }

    async fn fdb(&self, fdb: Fdb) -> Result<(), Failure> {
        match fdb.command {
            None => {
                let network = fdb.network.unwrap_or_default();
                let path = format!("/v1/networks/{}/fdb", segment(&network));
                let list: Vec<FdbEntry> = self.client.get(&path).await?;
                self.show(&list, |wide| render::fdb(&list, wide))
            }
            Some(FdbCommand::Add { network, mac, port }) => {
                let path = format!("/v1/networks/{}/fdb", segment(&network));
                let done = format!("{mac} is behind {port} in network {network}");
                let body = json!({ "mac": mac, "port": port });
                self.change(Method::POST, &path, Some(body), &done).await.map(drop)
            }
            Some(FdbCommand::Delete { network, mac }) => {
                let path = format!("/v1/networks/{}/fdb/{}", segment(&network), segment(&mac));
                let done = format!("{mac} deleted from network {network}");
                self.change(Method::DELETE, &path, None, &done).await.map(drop)
            }
        }
    }

    async fn drops(&self, name: Option<String>, watch: bool) -> Result<(), Failure> {
        let path = name.map_or_else(|| "/v1/drops".to_owned(), |n| format!("/v1/drops?of={}", segment(&n)));
        let mut before: Vec<DropRow> = self.client.get(&path).await?;
        if !watch {
            return self.show(&before, |wide| render::drops(&before, wide));
        }
        loop {
            if live::reader_goes_within(Duration::from_secs(1)).await {
                return Ok(());
            }
            let now: Vec<DropRow> = self.client.get(&path).await?;
            let added = live::added(&before, &now);
            if !added.is_empty() {
                self.show(&added, |wide| render::drops(&added, wide))?;
            }
            before = now;
        }
    }

    async fn mirror(&self, command: Mirror) -> Result<(), Failure> {
        match command {
            Mirror::Create {
                name,
                source,
                direction,
                to,
                filter,
                snaplen,
                segment,
                rotate_size,
                rotate_time,
                rotate_count,
            } => {
                let done = format!("mirror {name} created");
                let body = body([
                    ("name", json!(name)),
                    ("source", json!(source)),
                    ("direction", json!(direction)),
                    ("to", json!(to)),
                    ("filter", json!(filter)),
                    ("snaplen", json!(snaplen)),
                    ("segment", json!(segment)),
                    ("rotate-size", json!(rotate_size)),
                    ("rotate-time", json!(rotate_time)),
                    ("rotate-count", json!(rotate_count)),
                ]);
                self.change(Method::POST, "/v1/mirrors", Some(body), &done).await.map(drop)
            }
            Mirror::List => {
                let list: Vec<MirrorStatus> = self.client.get("/v1/mirrors").await?;
                self.show(&list, |wide| render::mirrors(&list, wide))
            }
            Mirror::Show { name } => {
                let one: MirrorStatus = self.client.get(&format!("/v1/mirrors/{}", segment(&name))).await?;
                self.show(&one, |wide| render::object(&one, wide))
            }
            Mirror::Delete { name } => {
                let path = format!("/v1/mirrors/{}", segment(&name));
                let done = format!("mirror {name} deleted");
                self.change(Method::DELETE, &path, None, &done).await.map(drop)
            }
        }
    }

    async fn apply(&self, file: &Path, dry_run: bool, confirm: Option<Duration>) -> Result<(), Failure> {
        let text = read(file)?;
        let mut path = format!("/v1/config?file={}", segment(&file.display().to_string()));
        if dry_run {
            path += "&dry_run=true";
        }
        if let Some(window) = confirm {
            path += &format!("&confirm={}", window.as_secs_f64().ceil() as u64);
        }
        let answer = self.client.call(Method::PUT, &path, Some("application/toml"), &text).await?;
        let reply: ApplyReply = decode(&answer)?;
        if self.global.quiet && !dry_run {
            return Ok(());
        }
        self.show(&reply, |_| {
            let mut text = changes(&reply.changes);
            if let Some(seconds) = reply.confirm_within {
                text += &format!("applied; rolled back in {seconds} s unless `switchctl confirm` follows\n");
            } else if reply.applied && !reply.changes.is_empty() {
                text += "applied\n";
            }
            text
        })
    }

    async fn confirm(&self) -> Result<(), Failure> {
        let answer = self.client.call(Method::POST, "/v1/config/confirm", None, &[]).await?;
        let reply: ApplyReply = decode(&answer)?;
        if self.global.quiet {
            return Ok(());
        }
        self.show(&reply, |_| match reply.applied {
            true => "confirmed\n".to_owned(),
            false => "nothing had changed: there is nothing to confirm\n".to_owned(),
        })
    }

    async fn diff(&self, file: &Path) -> Result<(), Failure> {
        let text = read(file)?;
        let path = format!("/v1/config/diff?file={}", segment(&file.display().to_string()));
        let answer = self.client.call(Method::POST, &path, Some("application/toml"), &text).await?;
        let reply: ApplyReply = decode(&answer)?;
        if !self.global.quiet {
            self.show(&reply, |_| changes(&reply.changes))?;
        }
        if reply.changes.is_empty() { Ok(()) } else { Err(Failure::silent(Exit::Differs)) }
    }

    async fn export(&self) -> Result<(), Failure> {
        match self.global.output {
            Output::Json | Output::Yaml => {
                let path = "/v1/config?form=json";
                let value: Desired = self.client.get(path).await?;
                self.show(&value, |_| String::new())
            }
            _ => {
                let text = self.client.call(Method::GET, "/v1/config?form=toml", None, &[]).await?;
                render::print(&render::harmless(&String::from_utf8_lossy(&text)))
            }
        }
    }

    async fn topology(&self) -> Result<(), Failure> {
        let graph: Topology = self.client.get("/v1/topology").await?;
        match self.global.output {
            Output::Dot => render::print(&topology::dot(&graph)),
            Output::Svg => render::print(&topology::svg(&graph)),
            _ => self.show(&graph, |_| topology::text(&graph)),
        }
    }
}

fn changes(list: &[Change]) -> String {
    if list.is_empty() {
        return "no changes\n".to_owned();
    }
    let mut text = String::new();
    for change in list {
        let sign = match change.action.as_str() {
            "create" => '+',
            "delete" => '-',
            _ => '~',
        };
        text += &format!("{sign} {}\n", change.object);
        for detail in &change.details {
            text += &format!("    {detail}\n");
        }
    }
    render::harmless(&text)
}

/// A configuration is at most 1 MiB; what is longer is refused before it is sent.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    const LIMIT: u64 = 1 << 20;
    let named = |error: std::io::Error| Failure::new(Exit::Failed, format!("{}: {error}", file.display()));
    let mut text = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(LIMIT + 1).read_to_end(&mut text).map_err(named)?;
    } else {
        std::fs::File::open(file).map_err(named)?.take(LIMIT + 1).read_to_end(&mut text).map_err(named)?;
    }
    if text.len() as u64 > LIMIT {
        let text = format!("{}: larger than 1 MiB, which no configuration is", file.display());
        return Err(Failure::new(Exit::Failed, text));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_given_keys_are_sent() {
        let sent = body([("name", json!("a")), ("vlan", json!(None::<u16>)), ("segment", json!(false))]);
        assert_eq!(sent, json!({ "name": "a" }));
    }

    #[test]
    fn a_name_cannot_leave_its_segment() {
        assert_eq!(segment("../ports/vm1?x"), "..%2Fports%2Fvm1%3Fx");
        assert_eq!(segment("02:00:00:00:00:01@10"), "02:00:00:00:00:01@10");
    }
}
