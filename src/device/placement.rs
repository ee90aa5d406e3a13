//! The devices that run each model.

use std::collections::BTreeMap;

use super::{DeviceError, DeviceSet};

/// The placement of each model in one group.
#[derive(Debug)]
pub(super) struct Placements {
    all: DeviceSet,
    by_name: BTreeMap<String, DeviceSet>,
}

impl Placements {
    /// Parses `device.placement`, which maps model names to CUDA ordinals. `opened` holds the
    /// ordinal of each device in the group; `None` is the CPU.
    pub(super) fn parse(
        table: &BTreeMap<String, Vec<usize>>,
        opened: &[Option<usize>],
    ) -> Result<Self, DeviceError> {
        let on_cpu = opened.iter().all(Option::is_none);
        if let Some(model) = table.keys().next().filter(|_| on_cpu) {
            return Err(DeviceError::PlacementOnCpu { model: model.clone() });
        }
        let mut by_name = BTreeMap::new();
        for (model, numbers) in table {
            by_name.insert(model.clone(), parse_numbers(model, numbers, opened)?);
        }
        Ok(Self { all: DeviceSet::of(0..opened.len()), by_name })
    }

    /// Returns the devices of the model called `name`, of any version.
    pub(super) fn of_model(&self, name: &str) -> DeviceSet {
        self.by_name.get(name).copied().unwrap_or(self.all)
    }
}

fn parse_numbers(
    model: &str,
    numbers: &[usize],
    opened: &[Option<usize>],
) -> Result<DeviceSet, DeviceError> {
    let is_repeated = |(k, number): (usize, &usize)| numbers[..k].contains(number);
    if numbers.is_empty() || numbers.iter().enumerate().any(is_repeated) {
        return Err(DeviceError::PlacementList { model: model.to_owned() });
    }
    let device_of = |number: &usize| {
        let device = opened.iter().position(|opened| *opened == Some(*number));
        let model = model.to_owned();
        device.ok_or(DeviceError::PlacementNumber { model, number: *number })
    };
    let devices = numbers.iter().map(device_of).collect::<Result<Vec<_>, _>>()?;
    Ok(DeviceSet::of(devices))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(model: &str, numbers: &[usize]) -> BTreeMap<String, Vec<usize>> {
        BTreeMap::from([(model.to_owned(), numbers.to_vec())])
    }

    #[test]
    fn a_model_goes_where_its_list_says_and_to_all_devices_without_one() {
        let opened = [Some(2), Some(0), Some(5)];
        let placements = Placements::parse(&table("sface", &[5, 2]), &opened).unwrap();
        assert_eq!(placements.of_model("sface").iter().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(placements.of_model("yunet").iter().collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn an_impossible_list_is_refused_by_model_and_reason() {
        let message = |numbers: &[usize], opened: &[Option<usize>]| {
            Placements::parse(&table("sface", numbers), opened).unwrap_err().to_string()
        };
        let list = "device.placement.sface must list at least one device, and none twice";
        assert_eq!(message(&[], &[Some(0)]), list);
        assert_eq!(message(&[0, 0], &[Some(0)]), list);
        let absent = "device.placement.sface lists cuda:1, which device.device does not list";
        assert_eq!(message(&[0, 1], &[Some(0)]), absent);
        let cpu = "device.placement.sface lists CUDA devices, but the device is the CPU";
        assert_eq!(message(&[0], &[None]), cpu);
    }
}
