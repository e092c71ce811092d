//! A record as an `IPAllocation` object, and back. The names are the same on
//! both sides; a moment is a date-time in the object.

use std::net::IpAddr;

use jiff::Timestamp as Moment;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde::de::Error as _;
use serde_json::{Map, Value, json};

use crate::allocation::Allocation;

/// What the API server calls the objects.
pub(super) fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("berth.dev", "v1alpha1", "IPAllocation");
    ApiResource::from_gvk_with_plural(&kind, "ipallocations")
}

/// The object's name: 10.20.0.57 is `10-20-0-57`, fd00:20::7 is `fd00-20--7`.
pub(super) fn name_of(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that an object of this name is of.
pub(super) fn address_of(name: &str) -> Option<IpAddr> {
    let v4 = || name.replace('-', ".").parse().ok();
    v4().or_else(|| name.replace('-', ":").parse().ok())
}

/// The object of a record; `version` is what it replaces.
pub(super) fn to_object(allocation: &Allocation, version: Option<&str>) -> DynamicObject {
    let mut spec = serde_json::to_value(allocation).expect("strings and numbers can be written");
    each_moment(&mut spec, &|field| {
        let millis = i64::try_from(field.as_u64()?).ok()?;
        Some(Moment::from_millisecond(millis).ok()?.to_string().into())
    });
    let mut object = DynamicObject::new(&name_of(allocation.address), &resource());
    object.metadata.resource_version = version.map(str::to_owned);
    object.data = json!({ "spec": spec });
    object
}

/// The record of an object.
///
/// # Errors
/// If the object has none: it was written by hand or by another version, or
/// only says that the address is in quarantine.
pub(super) fn from_object(object: &DynamicObject) -> Result<Allocation, serde_json::Error> {
    let mut spec = object.data["spec"].clone();
    if spec["claim"].is_null() && !spec["quarantine"].is_null() {
        let mac = spec["quarantine"]["mac"].as_str().unwrap_or("unknown");
        return Err(serde_json::Error::custom(format_args!(
            "in quarantine: the machine with MAC {mac} uses it"
        )));
    }
    each_moment(&mut spec, &|field| {
        let moment: Moment = field.as_str()?.parse().ok()?;
        u64::try_from(moment.as_millisecond()).ok().map(Value::from)
    });
    serde_json::from_value(spec)
}

fn each_moment(value: &mut Value, change: &impl Fn(&Value) -> Option<Value>) {
    let Value::Object(fields) = value else { return };
    for (name, field) in fields as &mut Map<_, _> {
        if name == "since" || name == "released" {
            if let Some(changed) = change(field) {
                *field = changed;
            }
        } else {
            each_moment(field, change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_named_by_its_address() {
        for (address, name) in [("10.20.0.57", "10-20-0-57"), ("fd00:20::7", "fd00-20--7")] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(name_of(address), name);
            assert_eq!(address_of(name), Some(address));
        }
        assert_eq!(address_of("payments"), None);
    }

    #[test]
    fn a_record_comes_back_to_the_millisecond() {
        let text = r#"{"address":"10.20.0.57","pool":"a","released":1790000000123,
            "claim":{"owner":{"kind":"PodName","namespace":"shop","name":"since"},"ifname":"eth0",
              "keep":"app","coolDownSeconds":10,"since":5,
              "pod":{"namespace":"shop","name":"since","uid":"u"}}}"#;
        let record: Allocation = serde_json::from_str(text).unwrap();
        let object = to_object(&record, Some("7"));
        assert_eq!(object.data["spec"]["released"], "2026-09-21T14:13:20.123Z");
        assert_eq!(object.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(from_object(&object).unwrap(), record);
    }

    #[test]
    fn an_address_in_quarantine_says_whose_fault_it_is() {
        let mut object = DynamicObject::new("10-20-0-57", &resource());
        object.data = json!({"spec": {"address": "10.20.0.57", "pool": "a",
            "quarantine": {"mac": "02:00:00:00:00:01"}}});
        let told = from_object(&object).unwrap_err().to_string();
        assert!(told.contains("02:00:00:00:00:01"), "{told}");
    }
}
