//! Says in time that a map is filling up.

use std::collections::BTreeMap;

use tracing::{info, warn};

use crate::diff::{MapUsage, Usage};

/// How full a map is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// Below 80 %.
    #[default]
    None,
    /// 80 % or more.
    High,
    /// 95 % or more.
    Critical,
}

impl Alarm {
    /// The alarm that this use calls for.
    fn of(map: &MapUsage) -> Self {
        match () {
            () if map.is_filled_to(95) => Self::Critical,
            () if map.is_filled_to(80) => Self::High,
            () => Self::None,
        }
    }
}

/// What was last said about each map.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    told: BTreeMap<&'static str, Alarm>,
}

impl Alarms {
    /// Warns when a map gets into a worse state; says so when all is well
    /// again. Between the two it is silent, so that a map that swings about
    /// a threshold does not fill the log.
    pub(super) fn watch(&mut self, usage: &Usage) {
        for map in usage.maps() {
            let told = self.told.entry(map.name).or_default();
            let alarm = Alarm::of(&map);
            if alarm > *told {
                warn!(
                    "the {} map is {} % full ({} of {}); start the agent with a larger {} before \
                     Services are refused",
                    map.name,
                    u64::from(map.used) * 100 / u64::from(map.capacity.max(1)),
                    map.used,
                    map.capacity,
                    map.flag
                );
                *told = alarm;
            } else if *told > Alarm::None && !map.is_filled_to(70) {
                info!(
                    "the {} map has room again ({} of {})",
                    map.name, map.used, map.capacity
                );
                *told = Alarm::None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::Capacity;

    fn map(used: u32) -> MapUsage {
        MapUsage {
            name: "slots",
            flag: "--max-slots",
            used,
            capacity: 1000,
        }
    }

    #[test]
    fn thresholds_are_80_and_95_percent() {
        for (used, alarm) in [
            (0, Alarm::None),
            (799, Alarm::None),
            (800, Alarm::High),
            (949, Alarm::High),
            (950, Alarm::Critical),
            (1000, Alarm::Critical),
        ] {
            assert_eq!(Alarm::of(&map(used)), alarm, "{used}");
        }
    }

    #[test]
    fn an_alarm_ends_well_below_where_it_began() {
        let mut alarms = Alarms::default();
        let mut told = |slots| {
            alarms.watch(&Usage {
                frontends: 0,
                slots,
                backends: 0,
                capacity: Capacity {
                    frontends: 1000,
                    slots: 1000,
                    backends: 1000,
                },
            });
            alarms.told["slots"]
        };
        assert_eq!(told(790), Alarm::None);
        assert_eq!(told(810), Alarm::High);
        assert_eq!(told(790), Alarm::High);
        assert_eq!(told(960), Alarm::Critical);
        assert_eq!(told(810), Alarm::Critical);
        assert_eq!(told(699), Alarm::None);
    }
}
