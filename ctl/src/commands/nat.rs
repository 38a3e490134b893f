//! `forward`, `floating`, `lease` and `flow`.

use super::{Asker, segment};
use crate::args::{Floating, Flow, Forward, Lease};
use crate::failure::Failure;
use crate::render;
use hyper::Method;
use serde_json::json;
use switchd_api::reply::{FloatingRow, FlowRow, ForwardRow, LeaseRow};

/// The whole list, or that of one network.
fn of(list: &str, network: Option<&str>) -> String {
    network.map_or_else(|| format!("/v1/{list}"), |name| format!("/v1/{list}?network={}", segment(name)))
}

impl Asker {
    pub(super) async fn forward(&self, command: Forward) -> Result<(), Failure> {
        match command {
            Forward::Add { network, forward: (key, to) } => {
                let path = format!("/v1/networks/{}/forwards", segment(&network));
                let done = format!("{key} of network {network} leads to {to}");
                let body = json!({ "key": key, "to": to });
                self.change(Method::POST, &path, Some(body), &done).await.map(drop)
            }
            Forward::List { network } => {
                let list: Vec<ForwardRow> = self.client.get(&of("forwards", network.as_deref())).await?;
                self.show(&list, |wide| render::forwards(&list, wide))
            }
            Forward::Delete { network, forward } => {
                let path = format!("/v1/networks/{}/forwards/{}", segment(&network), segment(&forward));
                let done = format!("{forward} of network {network} deleted");
                self.change(Method::DELETE, &path, None, &done).await.map(drop)
            }
        }
    }

    pub(super) async fn floating(&self, command: Floating) -> Result<(), Failure> {
        match command {
            Floating::Add { network, outside, port } => {
                let path = format!("/v1/networks/{}/floating", segment(&network));
                let done = format!("{outside} of network {network} is port {port}'s");
                let body = json!({ "outside": outside, "port": port });
                self.change(Method::POST, &path, Some(body), &done).await.map(drop)
            }
            Floating::List { network } => {
                let list: Vec<FloatingRow> = self.client.get(&of("floating", network.as_deref())).await?;
                self.show(&list, |wide| render::floatings(&list, wide))
            }
            Floating::Delete { outside } => {
                let path = format!("/v1/floating/{}", segment(&outside));
                let done = format!("floating address {outside} deleted");
                self.change(Method::DELETE, &path, None, &done).await.map(drop)
            }
        }
    }

    pub(super) async fn lease(&self, command: Lease) -> Result<(), Failure> {
        let Lease::List { network } = command;
        let list: Vec<LeaseRow> = self.client.get(&of("leases", network.as_deref())).await?;
        self.show(&list, |wide| render::leases(&list, wide))
    }

    pub(super) async fn flow(&self, command: Flow) -> Result<(), Failure> {
        let Flow::List { network, limit } = command;
        let path = of("flows", network.as_deref());
        let mark = if path.contains('?') { '&' } else { '?' };
        let list: Vec<FlowRow> = self.client.get(&format!("{path}{mark}limit={limit}")).await?;
        self.show(&list, |wide| render::flows(&list, wide))
    }
}
