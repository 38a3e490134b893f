//! What a virtual machine must be told to stand behind a vhost-user port.

use super::{Asker, segment};
use crate::args::Output;
use crate::failure::{Exit, Failure};
use crate::render;
use switchd_api::reply::PortStatus;

/// The path as the daemon needs it.
pub(super) fn absolute(path: &str) -> Result<String, Failure> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("--vhost-user {path:?}: {error}")))?;
    match absolute.to_str() {
        Some(absolute) => Ok(absolute.to_owned()),
        None => Err(Failure::new(Exit::Usage, format!("--vhost-user {path:?}: not UTF-8"))),
    }
}

impl Asker {
    /// The guest's command line, for people.
    pub(super) async fn tell_guest(&self, name: &str) -> Result<(), Failure> {
        if self.global.quiet || !matches!(self.global.output, Output::Table | Output::Wide) {
            return Ok(());
        }
        let port: PortStatus = self.client.get(&format!("/v1/ports/{}", segment(name))).await?;
        render::print(&format!("{}\n", render::harmless(&guest(&port))))
    }
}

/// For QEMU. Its memory must be shared, or we could not see its queues.
fn guest(port: &PortStatus) -> String {
    let socket = port.spec.vhost_user.as_deref().unwrap_or_default();
    let mac = port.address.as_deref().unwrap_or_default();
    // Who listens there connects here, and comes again when we were away.
    let listens = if port.spec.server { "reconnect=1" } else { "server=on,wait=off" };
    let (netdev, device) = match port.spec.queues.unwrap_or(1) {
        1 => (String::new(), String::new()),
        pairs => (format!(",queues={pairs}"), format!(",mq=on,vectors={}", 2 * pairs + 2)),
    };
    format!(
        "the virtual machine needs (SIZE: its memory, as in 512M): \
         -object memory-backend-memfd,id=mem0,size=SIZE,share=on -machine memory-backend=mem0 \
         -chardev socket,id=chr0,path={socket},{listens} \
         -netdev vhost-user,id=net0,chardev=chr0{netdev} \
         -device virtio-net-pci,netdev=net0,mac={mac}{device}"
    )
}
