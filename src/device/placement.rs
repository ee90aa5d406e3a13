//! Which devices of a group run a model.

use std::collections::BTreeMap;

use super::DeviceError;

/// Most devices in a group: one bit each in a [`Placement`]. Today's largest machines hold 16.
pub(super) const DEVICES_MAX: usize = 64;

/// A set of devices, each named by its place in the group, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement(u64);

impl Placement {
    /// These devices; places no group has are left out.
    pub fn of(devices: impl IntoIterator<Item = usize>) -> Self {
        Self(devices.into_iter().fold(0, |bits, device| bits | bit(device)))
    }

    /// Whether `device` is one of them.
    pub fn contains(self, device: usize) -> bool {
        self.0 & bit(device) != 0
    }

    /// The devices that are in both.
    pub fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The devices that are in either.
    pub fn either(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These devices but for those of `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is no device.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The devices, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..DEVICES_MAX).filter(move |device| self.contains(*device))
    }
}

fn bit(device: usize) -> u64 {
    u32::try_from(device).ok().and_then(|device| 1_u64.checked_shl(device)).unwrap_or(0)
}

/// Where each model goes in one group.
#[derive(Debug)]
pub(super) struct Placements {
    all: Placement,
    by_name: BTreeMap<String, Placement>,
}

impl Placements {
    /// Reads `device.placement`: CUDA numbers by the name of the model. `opened` has the number of
    /// each device in the group; the CPU has none.
    pub(super) fn of(
        table: &BTreeMap<String, Vec<usize>>,
        opened: &[Option<usize>],
    ) -> Result<Self, DeviceError> {
        let on_cpu = opened.iter().all(Option::is_none);
        if let Some(model) = table.keys().next().filter(|_| on_cpu) {
            return Err(DeviceError::PlacementOnCpu { model: model.clone() });
        }
        let place = |(model, numbers): (&String, &Vec<usize>)| {
            Ok((model.clone(), place(model, numbers, opened)?))
        };
        let by_name = table.iter().map(place).collect::<Result<_, DeviceError>>()?;
        Ok(Self { all: Placement::of(0..opened.len()), by_name })
    }

    /// The devices of the model called `name`, whatever its version.
    pub(super) fn of_model(&self, name: &str) -> Placement {
        self.by_name.get(name).copied().unwrap_or(self.all)
    }
}

fn place(
    model: &str,
    numbers: &[usize],
    opened: &[Option<usize>],
) -> Result<Placement, DeviceError> {
    let is_repeated = |(k, number): (usize, &usize)| numbers[..k].contains(number);
    if numbers.is_empty() || numbers.iter().enumerate().any(is_repeated) {
        return Err(DeviceError::PlacementList { model: model.to_owned() });
    }
    let place = |number: &usize| {
        let place = opened.iter().position(|opened| *opened == Some(*number));
        let model = model.to_owned();
        place.ok_or(DeviceError::PlacementNumber { model, number: *number })
    };
    let places = numbers.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    Ok(Placement::of(places))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::fixture::everywhere;

    fn table(model: &str, numbers: &[usize]) -> BTreeMap<String, Vec<usize>> {
        BTreeMap::from([(model.to_owned(), numbers.to_vec())])
    }

    #[test]
    fn a_model_goes_where_its_list_says_and_to_all_devices_without_one() {
        let opened = [Some(2), Some(0), Some(5)];
        let placements = Placements::of(&table("sface", &[5, 2]), &opened).unwrap();
        assert_eq!(placements.of_model("sface").iter().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(placements.of_model("yunet").iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_list_that_cannot_be_had_is_refused_by_model_and_reason() {
        let message = |numbers: &[usize], opened: &[Option<usize>]| {
            Placements::of(&table("sface", numbers), opened).unwrap_err().to_string()
        };
        let list = "device.placement.sface must list at least one device, and none twice";
        assert_eq!(message(&[], &[Some(0)]), list);
        assert_eq!(message(&[0, 0], &[Some(0)]), list);
        let absent = "device.placement.sface lists cuda:1, which device.device does not";
        assert_eq!(message(&[0, 1], &[Some(0)]), absent);
        let cpu = "device.placement.sface lists CUDA devices, but the device is the CPU";
        assert_eq!(message(&[0], &[None]), cpu);
    }

    #[test]
    fn sets_of_devices_are_joined_cut_and_listed_in_order() {
        let (a, b) = (Placement::of([3, 1]), Placement::of([1, 63]));
        assert_eq!(a.both(b), Placement::of([1]));
        assert_eq!(a.either(b).iter().collect::<Vec<_>>(), [1, 3, 63]);
        assert_eq!(a.without(b), Placement::of([3]));
        assert!(a.both(Placement::of([0])).is_empty());
        assert!(Placement::of([64, usize::MAX]).is_empty());
        assert!(everywhere().contains(63) && !everywhere().contains(64));
    }
}
