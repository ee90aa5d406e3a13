//! A set of devices of one group.

/// Maximum number of devices in a group: each takes one bit of a [`DeviceSet`]. The largest
/// machines today hold 16.
pub(super) const DEVICES_MAX: usize = 64;

/// A set of devices. A device is named by its index in the group, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSet(u64);

impl DeviceSet {
    /// Returns the set of these devices. An index of 64 or above is ignored.
    pub fn of(devices: impl IntoIterator<Item = usize>) -> Self {
        Self(devices.into_iter().fold(0, |bits, device| bits | bit(device)))
    }

    /// Returns whether the set contains `device`.
    pub fn contains(self, device: usize) -> bool {
        self.0 & bit(device) != 0
    }

    /// Returns the devices that are in both sets.
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the devices that are in at least one of the sets.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the devices of this set that are not in `other`.
    pub fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the devices in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..DEVICES_MAX).filter(move |device| self.contains(*device))
    }
}

fn bit(device: usize) -> u64 {
    u32::try_from(device).ok().and_then(|device| 1_u64.checked_shl(device)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::fixture::all_devices;

    #[test]
    fn sets_of_devices_are_joined_cut_and_listed_in_order() {
        let (a, b) = (DeviceSet::of([3, 1]), DeviceSet::of([1, 63]));
        assert_eq!(a.intersection(b), DeviceSet::of([1]));
        assert_eq!(a.union(b).iter().collect::<Vec<_>>(), [1, 3, 63]);
        assert_eq!(a.difference(b), DeviceSet::of([3]));
        assert!(a.intersection(DeviceSet::of([0])).is_empty());
        assert!(DeviceSet::of([64, usize::MAX]).is_empty());
        assert!(all_devices().contains(63) && !all_devices().contains(64));
    }
}
