//! ADD: an address, an interface, the ways to it, and the news of it.

use std::net::IpAddr;

use berth_api::mac::{MacAddr, pod_mac};
use berth_ipam::store::SqliteStore;
use berth_ipam::{Allocator, Request, Timestamp};
use berth_netlink::{Handle, Link};

use super::{aliases, allocator, del, pod_annotations, request};
use crate::config::Config;
use crate::delegate::{Caller, Delegated};
use crate::env::Attachment;
use crate::error::{CniError, Code};
use crate::network::announce::announce;
use crate::network::parent::{self, Parent};
use crate::network::{PodNetns, pod, shim};
use crate::objects::Objects;
use crate::plan::Plan;
use crate::result::{Interface, render};
use crate::state::{Record, State};
use crate::step::{Observer, Step};

/// Wires the pod, or leaves everything as it was.
pub(super) fn add(
    config: &Config,
    attachment: &Attachment,
    caller: Caller<'_>,
    observer: Observer<'_>,
) -> Result<String, CniError> {
    let path = attachment.netns.as_deref().ok_or_else(|| {
        CniError::new(
            Code::InvalidEnvironment,
            "CNI_NETNS is missing; the runtime sets it",
        )
    })?;
    let netns = PodNetns::open(path)?;
    let wanted_mac = wanted_mac(config, attachment)?;
    let state = State::at(&config.state_dir);

    // What an ADD of this attachment left when it was killed.
    let (container_id, ifname) = (&attachment.container_id, &attachment.ifname);
    if let Some(stale) = state
        .record(container_id, ifname)
        .filter(|record| !record.complete)
    {
        let call = del::Call::failed_add(caller, &netns, config);
        del::detach(&state, &stale, call, observer)?;
    }
    match netns.handle.link_by_name(ifname) {
        Ok(_) => {
            return Err(CniError::new(
                Code::InvalidEnvironment,
                format!(
                    "interface {ifname} is in {} already; DEL comes before another ADD",
                    path.display()
                ),
            ));
        }
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }

    let args = &attachment.args;
    let pod = [args.pod_namespace.as_str(), args.pod_name.as_str()];
    let mut record = Record {
        container_id: container_id.clone(),
        ifname: ifname.clone(),
        netns: path.to_owned(),
        pod: pod.join("/"),
        database: config.database.clone(),
        network: config.name.clone(),
        addresses: Vec::new(),
        mac: None,
        routes: Vec::new(),
        parent: String::new(),
        shim: None,
        host_routes: Vec::new(),
        delegated: None,
        complete: false,
    };
    let wiring = Wiring {
        config,
        state: &state,
        netns: &netns,
        host: Handle::new()?,
        wanted_mac,
        observer,
    };
    let done = match &config.delegate {
        None => {
            let objects = Objects::read(&config.folder, attachment)?;
            let request = request(config, attachment, &objects)?;
            record.pod = request.pod.id.to_string();
            // The database comes first: a record without one would have DEL
            // wait for it.
            let mut allocator = allocator(config, &state, &objects)?;
            state.put_record(&record)?;
            observer(Step::RecordMade);
            wiring.with_pools(&mut record, &mut allocator, &objects, &request)
        }
        Some(plugin) => {
            record.delegated = Some(Delegated {
                plugin: plugin.clone(),
                config: serde_json::from_slice(caller.stdin).expect("it was read before"),
                args: caller.environment.raw_args()?.to_owned(),
            });
            wiring.with_plugin(&mut record, plugin, caller)
        }
    };
    let (link, plan) = done.map_err(|error| {
        let call = del::Call::failed_add(caller, &netns, config);
        match del::detach(&state, &record, call, observer) {
            Ok(()) => error,
            Err(left) => error.with_details(format!("not undone, DEL tries again: {left}")),
        }
    })?;
    let mac = record.mac.expect("wiring chose it").to_string();
    let interface = Interface {
        name: ifname,
        mac: &mac,
        mtu: link.mtu,
        sandbox: &path.display().to_string(),
    };
    Ok(render(
        &config.cni_version,
        config.prev_result.as_ref(),
        Some(interface),
        &plan,
    ))
}

/// A MAC that the runtime or the user insists on.
fn wanted_mac(config: &Config, attachment: &Attachment) -> Result<Option<MacAddr>, CniError> {
    let text = [
        &config.runtime_config.mac,
        &config.args.cni.mac,
        &attachment.args.mac,
    ]
    .into_iter()
    .flatten()
    .find(|text| !text.is_empty());
    text.map(|text| {
        text.parse()
            .map_err(|e| CniError::new(Code::InvalidEnvironment, format!("mac: {e}")))
    })
    .transpose()
}

/// The MAC of an interface that is made before its address is known: a hash
/// of the sandbox (FNV-1a), locally administered, and not in the range of the
/// MACs that follow from addresses.
fn sandbox_mac(container_id: &str, ifname: &str) -> MacAddr {
    let hash = container_id
        .bytes()
        .chain([b':'])
        .chain(ifname.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let [_, _, _, a, b, c, d, e] = hash.to_be_bytes();
    MacAddr([0x06, a, b, c, d, e])
}

struct Wiring<'a> {
    config: &'a Config,
    state: &'a State,
    netns: &'a PodNetns,
    host: Handle,
    wanted_mac: Option<MacAddr>,
    observer: Observer<'a>,
}

/// Does everything that the kernel is needed for. The record always says what
/// comes next before it is done.
impl Wiring<'_> {
    /// With an address of Berth's own pools.
    fn with_pools(
        &self,
        record: &mut Record,
        allocator: &mut Allocator<SqliteStore>,
        objects: &Objects,
        request: &Request,
    ) -> Result<(Link, Plan), CniError> {
        let live = |claim: &_| objects.pod_is_live(claim);
        let grants = allocator.allocate(request, &live, Timestamp::now())?;
        (self.observer)(Step::Allocated);
        let parent = parent::find(&self.host, &grants)?;
        let plan = Plan::of_grants(&grants);
        let wanted = match self.wanted_mac {
            Some(mac) => Some(mac),
            None => self.alias_mac(record, objects)?,
        };
        let mac = wanted.unwrap_or_else(|| pod_mac(grants[0].address));
        let mtu = grants.iter().filter_map(|grant| grant.pool.mtu).min();
        remember(record, &plan);
        let link = self.make(record, &parent, mac, mtu)?;
        self.finish(record, &parent, &link, &plan)?;
        Ok((link, plan))
    }

    /// A MAC that another project's annotation asks for.
    fn alias_mac(&self, record: &Record, objects: &Objects) -> Result<Option<MacAddr>, CniError> {
        let of_pod = pod_annotations(self.config, objects);
        let found = aliases(self.config, &record.ifname, &objects.pod.id, &of_pod)?;
        let Some((text, annotation)) = found.mac else {
            return Ok(None);
        };
        let mac = text.parse().map_err(|e| {
            CniError::new(
                Code::Annotation,
                format!("pod {}: annotation {annotation}: {e}", record.pod),
            )
        })?;
        Ok(Some(mac))
    }

    /// With the address of another IPAM plugin, which may need the interface
    /// to find one, as DHCP does.
    fn with_plugin(
        &self,
        record: &mut Record,
        plugin: &str,
        caller: Caller<'_>,
    ) -> Result<(Link, Plan), CniError> {
        let parent = parent::named(&self.host, self.config.master.as_deref())?;
        let mac = self
            .wanted_mac
            .unwrap_or_else(|| sandbox_mac(&record.container_id, &record.ifname));
        let link = self.make(record, &parent, mac, self.config.mtu)?;
        let plan = Plan::of_answer(plugin, &caller.pass_on(plugin)?)?;
        (self.observer)(Step::Allocated);
        remember(record, &plan);
        self.state.put_record(record)?;
        self.finish(record, &parent, &link, &plan)?;
        Ok((link, plan))
    }

    fn make(
        &self,
        record: &mut Record,
        parent: &Parent,
        mac: MacAddr,
        mtu: Option<u32>,
    ) -> Result<Link, CniError> {
        record.mac = Some(mac);
        record.parent.clone_from(&parent.link.name);
        record.shim = parent.node.first().map(|_| shim::name(&parent.link));
        self.state.put_record(record)?;
        (self.observer)(Step::Planned);
        let link = pod::make(
            &self.host,
            self.netns,
            &parent.link,
            &record.ifname,
            mac,
            mtu,
        )?;
        (self.observer)(Step::LinkMade);
        Ok(link)
    }

    fn finish(
        &self,
        record: &mut Record,
        parent: &Parent,
        link: &Link,
        plan: &Plan,
    ) -> Result<(), CniError> {
        let addresses = plan.ips();
        let mac = record.mac.expect("make chose it");
        pod::address_and_up(self.netns, link, plan, &mut || {
            self.clear_away(record, addresses[0]);
        })?;
        (self.observer)(Step::LinkUp);
        announce(self.netns, link, mac, &addresses)?;
        let shim_mac = shim::mac(&self.host, parent);
        pod::route(self.netns, link, plan, &parent.node, shim_mac)?;
        (self.observer)(Step::PodRouted);
        if let Some(shim_mac) = shim_mac {
            let reached = |ip: &&IpAddr| parent.node.iter().any(|n| n.is_ipv4() == ip.is_ipv4());
            record.host_routes = addresses.iter().filter(reached).copied().collect();
            shim::connect(
                &self.host,
                self.state,
                parent,
                &addresses,
                mac,
                shim_mac,
                self.observer,
            )?;
        }
        record.complete = true;
        self.state.put_record(record)?;
        (self.observer)(Step::Done);
        Ok(())
    }

    /// Removes the interface of an older sandbox of this pod, which has the
    /// same address and so the same MAC. Its DEL, if it comes, finds it gone.
    fn clear_away(&self, record: &Record, address: IpAddr) {
        for other in self.state.others_with(record, address) {
            if let (Some(netns), Some(mac)) = (PodNetns::if_alive(&other.netns), other.mac) {
                // If it stays, bringing up the new one says why it cannot.
                let _ = pod::remove(&netns, &other.ifname, &[mac]);
            }
        }
    }
}

fn remember(record: &mut Record, plan: &Plan) {
    record.addresses = plan.ips();
    record.routes = plan.checkable_routes();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandboxs_mac_is_its_own_and_no_addresses() {
        let one = sandbox_mac("c1", "eth0");
        assert_eq!(one, sandbox_mac("c1", "eth0"));
        assert_ne!(one, sandbox_mac("c1", "eth1"));
        assert_ne!(one, sandbox_mac("c2", "eth0"));
        let derived = pod_mac("10.20.0.57".parse().unwrap());
        assert_ne!(one.0[0], derived.0[0]);
        assert_eq!(one.0[0] & 3, 2, "locally administered, unicast");
    }
}
