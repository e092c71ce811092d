//! ADD: an address, an interface, the ways to it, and the news of it.

use std::net::IpAddr;

use berth_api::mac::{MacAddr, pod_mac};
use berth_ipam::{Grant, Timestamp};
use berth_netlink::Handle;

use super::{allocator, del, request};
use crate::config::Config;
use crate::env::Attachment;
use crate::error::{CniError, Code};
use crate::network::announce::announce;
use crate::network::{PodNetns, parent, pod, shim};
use crate::objects::Objects;
use crate::result::{Interface, render, routes};
use crate::state::{Record, State};
use crate::step::{Observer, Step};

/// Wires the pod, or leaves everything as it was.
pub(super) fn add(
    config: &Config,
    attachment: &Attachment,
    observer: Observer<'_>,
) -> Result<String, CniError> {
    let path = attachment.netns.as_deref().ok_or_else(|| {
        CniError::new(
            Code::InvalidEnvironment,
            "CNI_NETNS is missing; the runtime sets it",
        )
    })?;
    let netns = PodNetns::open(path)?;
    let objects = Objects::read(&config.folder, attachment)?;
    let request = request(config, attachment, &objects)?;
    let wanted_mac = wanted_mac(config, attachment)?;
    let state = State::at(&config.state_dir);

    // What an ADD of this attachment left when it was killed.
    let (container_id, ifname) = (&attachment.container_id, &attachment.ifname);
    if let Some(stale) = state
        .record(container_id, ifname)
        .filter(|record| !record.complete)
    {
        del::detach(&state, &stale, Some(&netns), observer)?;
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

    let mut record = Record {
        container_id: container_id.clone(),
        ifname: ifname.clone(),
        netns: path.to_owned(),
        pod: request.pod.id.to_string(),
        database: config.database.clone(),
        network: config.name.clone(),
        addresses: Vec::new(),
        mac: None,
        routes: Vec::new(),
        parent: String::new(),
        shim: None,
        complete: false,
    };
    // The database comes first: a record without one would have DEL wait for it.
    let mut allocator = allocator(config, &state, &objects)?;
    state.put_record(&record)?;
    observer(Step::RecordMade);
    let mut allocate = || -> Result<String, CniError> {
        let live = |claim: &_| objects.pod_is_live(claim);
        let grants = allocator.allocate(&request, &live, Timestamp::now())?;
        observer(Step::Allocated);
        let wiring = Wiring {
            state: &state,
            netns: &netns,
            grants: &grants,
            observer,
        };
        let mtu = wiring.wire(&mut record, wanted_mac)?;
        let mac = record.mac.expect("wiring chose it").to_string();
        let interface = Interface {
            name: ifname,
            mac: &mac,
            mtu,
            sandbox: &request.netns,
        };
        Ok(render(&config.cni_version, Some(interface), &grants))
    };
    allocate().map_err(
        |error| match del::detach(&state, &record, Some(&netns), observer) {
            Ok(()) => error,
            Err(left) => error.with_details(format!("not undone, DEL tries again: {left}")),
        },
    )
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

struct Wiring<'a> {
    state: &'a State,
    netns: &'a PodNetns,
    grants: &'a [Grant<'a>],
    observer: Observer<'a>,
}

impl Wiring<'_> {
    /// Does everything that the kernel is needed for, and returns the MTU. The
    /// record always says what comes next before it is done.
    fn wire(&self, record: &mut Record, wanted_mac: Option<MacAddr>) -> Result<u32, CniError> {
        let host = Handle::new()?;
        let parent = parent::find(&host, self.grants)?;
        let addresses: Vec<IpAddr> = self.grants.iter().map(|grant| grant.address).collect();
        let mac = wanted_mac.unwrap_or_else(|| pod_mac(addresses[0]));
        let shim_mac = shim::mac(&host, &parent);
        record.addresses.clone_from(&addresses);
        record.mac = Some(mac);
        record.routes = self.grants.iter().flat_map(routes).collect();
        record.parent.clone_from(&parent.link.name);
        record.shim = shim_mac.map(|_| shim::name(&parent.link));
        self.state.put_record(record)?;
        (self.observer)(Step::Planned);

        let mtu = self.grants.iter().filter_map(|grant| grant.pool.mtu).min();
        let link = pod::make(&host, self.netns, &parent.link, &record.ifname, mac, mtu)?;
        (self.observer)(Step::LinkMade);
        pod::address_and_up(self.netns, &link, self.grants, &mut || {
            self.clear_away(record, addresses[0]);
        })?;
        (self.observer)(Step::LinkUp);
        announce(self.netns, &link, mac, &addresses)?;
        pod::route(self.netns, &link, self.grants, &parent.node, shim_mac)?;
        (self.observer)(Step::PodRouted);
        if let Some(shim_mac) = shim_mac {
            shim::connect(
                &host,
                self.state,
                &parent,
                &addresses,
                mac,
                shim_mac,
                self.observer,
            )?;
        }
        record.complete = true;
        self.state.put_record(record)?;
        (self.observer)(Step::Done);
        Ok(link.mtu)
    }

    /// Removes the interface of an older sandbox of this pod, which has the
    /// same address and so the same MAC. Its DEL, if it comes, finds it gone.
    fn clear_away(&self, record: &Record, address: IpAddr) {
        for other in self.state.others_with(record, address) {
            if let (Some(netns), Some(mac)) = (PodNetns::if_alive(&other.netns), other.mac) {
                // If it stays, bringing up the new one says why it cannot.
                let _ = pod::remove(&netns, &other.ifname, mac);
            }
        }
    }
}
