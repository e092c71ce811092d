//! Whatever the changes and their order, the table that grew by them is the
//! one that a full build makes; and serials rise.

mod common;

use berth_dns::dump::dump;
use berth_dns::model::{
    Change, Dirty, Endpoint, Hostname, Key, Model, Pod, Port, Protocol, Service, ServiceKind,
    Slice, Source,
};
use berth_dns::name::Name;
use berth_dns::zone::Zones;
use common::config;
use proptest::prelude::*;

const COMPANY: [&str; 2] = [
    "apps.corp.example={service}-{namespace}",
    "flat.example={service}",
];

fn key() -> impl Strategy<Value = Key> {
    // "a" in "b-c" and "a-b" in "c" have one company name.
    let namespaces = prop::sample::select(vec!["c", "b-c", "d"]);
    let names = prop::sample::select(vec!["a", "a-b", "x"]);
    (namespaces, names).prop_map(|(namespace, name)| Key {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn hostnames() -> impl Strategy<Value = Vec<Hostname>> {
    let names = prop::sample::select(vec!["x.apps.corp.example", "h.a-b-c.apps.corp.example"]);
    prop::option::weighted(0.3, names).prop_map(|name| {
        name.into_iter()
            .map(|name| Hostname {
                name: Name::parse(name).unwrap(),
                own: true,
            })
            .collect()
    })
}

fn created() -> impl Strategy<Value = Option<String>> {
    prop::option::of((0..4).prop_map(|day| format!("2026-01-0{day}T00:00:00Z")))
}

fn service() -> impl Strategy<Value = Service> {
    let kind = prop_oneof![
        (1..6_u8).prop_map(|i| ServiceKind::Cluster(vec![[10, 96, 0, i].into()])),
        Just(ServiceKind::Headless),
        Just(ServiceKind::External(
            Name::parse("legacy.example").unwrap()
        )),
    ];
    (kind, created(), hostnames(), any::<bool>()).prop_map(
        |(kind, created, hostnames, publish_not_ready)| Service {
            created,
            kind,
            hostnames,
            publish_not_ready,
            ports: vec![port()],
        },
    )
}

fn port() -> Port {
    Port {
        name: "http".to_owned(),
        protocol: Protocol::Tcp,
        port: 80,
    }
}

fn slice() -> impl Strategy<Value = Slice> {
    let hostname = prop::option::of(prop::sample::select(vec!["h", "g"]));
    let endpoint = (1..6_u8, any::<bool>(), hostname).prop_map(|(i, ready, hostname)| Endpoint {
        addresses: vec![[10, 20, 0, i].into()],
        ready,
        hostname: hostname.map(str::to_owned),
    });
    let service = prop::sample::select(vec!["a", "a-b", "x"]);
    (service, prop::collection::vec(endpoint, 0..4)).prop_map(|(service, endpoints)| Slice {
        service: service.to_owned(),
        endpoints,
        ports: vec![port()],
    })
}

fn pod() -> impl Strategy<Value = Pod> {
    (created(), 1..6_u8, any::<bool>(), hostnames()).prop_map(|(created, i, ready, hostnames)| {
        Pod {
            created,
            addresses: vec![[10, 20, 0, i].into()],
            ready,
            hostnames,
        }
    })
}

fn change() -> impl Strategy<Value = Change> {
    let namespace = prop::sample::select(vec!["c", "d", "e"]);
    prop_oneof![
        1 => (namespace, any::<bool>()).prop_map(|(n, there)| Change::Namespace(n.to_owned(), there)),
        4 => (key(), prop::option::weighted(0.8, service())).prop_map(|(k, s)| Change::Service(k, s)),
        4 => (key(), prop::option::weighted(0.8, slice())).prop_map(|(k, s)| Change::Slice(k, s)),
        2 => (key(), prop::option::weighted(0.8, pod())).prop_map(|(k, p)| Change::Pod(k, p)),
        1 => (0..4_u8).prop_map(|i| Change::Node("n".to_owned(), if i == 0 { vec![] } else { vec![[10, 20, 0, i].into()] })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn growing_and_building_anew_agree(rounds in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..20)) {
        let mut model = Model::default();
        for source in Source::ALL {
            model.finish_first_list(source);
        }
        let cluster = Name::parse("cluster.local").unwrap();
        let mut grown = Zones::new(config(&COMPANY));
        let mut before = (String::new(), 0);
        for changes in rounds {
            let mut dirty = Dirty::default();
            for change in changes {
                model.apply(change, &mut dirty);
            }
            let (table, _) = grown.update(&model, &dirty, 1);
            let (oracle, _) = Zones::new(config(&COMPANY)).update(&model, &model.all_dirty(), 1);
            let text = dump(&table);
            prop_assert_eq!(&text, &dump(&oracle));
            for i in 0..8 {
                let address = [10, 20, 0, i].into();
                prop_assert_eq!(table.view(address), oracle.view(address));
            }
            let serial = table.serial(&cluster).unwrap().0;
            prop_assert!(serial >= before.1);
            let ours = |text: &str| text.lines().filter(|l| l.contains("cluster.local all")).map(str::to_owned).collect::<Vec<_>>();
            if ours(&text) != ours(&before.0) {
                prop_assert!(serial > before.1, "the zone changed and its serial did not");
            }
            before = (text, serial);
        }
    }
}
