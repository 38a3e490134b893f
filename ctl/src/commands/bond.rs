//! `bond`.

use super::{Asker, body, segment};
use crate::args::{Bond, BondCreate};
use crate::failure::Failure;
use crate::render;
use hyper::Method;
use serde_json::json;
use switchd_api::reply::BondStatus;

impl Asker {
    pub(super) async fn bond(&self, command: Bond) -> Result<(), Failure> {
        match command {
            Bond::Create(bond) => self.create_bond(*bond).await,
            Bond::List => {
                let list: Vec<BondStatus> = self.client.get("/v1/bonds").await?;
                self.show(&list, |wide| render::bonds(&list, wide))
            }
            Bond::Show { name } => {
                let one: BondStatus = self.client.get(&format!("/v1/bonds/{}", segment(&name))).await?;
                self.show(&one, |wide| render::bond(&one, wide))
            }
            Bond::Set { name, settings } => self.set("bonds", "bond", &name, settings).await,
            Bond::Delete { name } => {
                let path = format!("/v1/bonds/{}", segment(&name));
                let done = format!("bond {name} deleted");
                self.change(Method::DELETE, &path, None, &done).await.map(drop)
            }
        }
    }

    async fn create_bond(&self, bond: BondCreate) -> Result<(), Failure> {
        let done = format!("bond {} created", bond.name);
        let body = body([
            ("name", json!(bond.name)),
            ("members", json!(bond.members)),
            ("mode", json!(bond.mode)),
            ("lacp", json!(bond.lacp)),
            ("rate", json!(bond.rate)),
            ("hash", json!(bond.hash)),
            ("min-links", json!(bond.min_links)),
            ("prefer", json!(bond.prefer)),
            ("system-priority", json!(bond.system_priority)),
            ("system-id", json!(bond.system_id)),
            ("key", json!(bond.key)),
            ("fallback", json!(bond.fallback)),
            ("peer", json!(bond.peer)),
            ("peer-id", json!(bond.peer_id)),
        ]);
        self.change(Method::POST, "/v1/bonds", Some(body), &done).await.map(drop)
    }
}
