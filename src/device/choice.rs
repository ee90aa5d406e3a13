//! The devices that the operator asks for.

use std::fmt;
use std::str::FromStr;

use super::DeviceError;
use super::device_set::DEVICES_MAX;

/// The devices asked for. [`fmt::Display`] and [`FromStr`] use the same words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChoice {
    /// `cpu`.
    Cpu,
    /// `auto`: the best devices of this build and machine. The description always states the
    /// choice.
    Auto,
    /// `cuda:0,1`: these CUDA devices and no others.
    Cuda(Vec<usize>),
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(given: &str) -> Result<Self, DeviceError> {
        match given {
            "cpu" => Ok(Self::Cpu),
            "auto" => Ok(Self::Auto),
            _ => match given.strip_prefix("cuda") {
                Some(numbers) => parse_numbers(given, numbers).map(Self::Cuda),
                None => Err(DeviceError::UnknownDevice { given: given.to_owned() }),
            },
        }
    }
}

fn parse_numbers(given: &str, numbers: &str) -> Result<Vec<usize>, DeviceError> {
    let refused = || DeviceError::CudaNumbers { given: given.to_owned(), max: DEVICES_MAX };
    let list = numbers.strip_prefix(':').ok_or_else(refused)?;
    let mut parsed = Vec::new();
    for number in list.split(',') {
        let number: usize = number.parse().map_err(|_| refused())?;
        if number >= DEVICES_MAX || parsed.contains(&number) {
            return Err(refused());
        }
        parsed.push(number);
    }
    Ok(parsed)
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Auto => f.write_str("auto"),
            Self::Cuda(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_kinds_of_device_are_read() {
        assert_eq!("cpu".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cpu);
        assert_eq!("auto".parse::<DeviceChoice>().unwrap(), DeviceChoice::Auto);
        let cuda = "cuda:0,12".parse::<DeviceChoice>().unwrap();
        assert_eq!(cuda, DeviceChoice::Cuda(vec![0, 12]));
    }

    #[test]
    fn anything_else_is_refused_by_what_is_wrong_with_it() {
        for given in ["", "gpu", "CPU", "cpu "] {
            let error = given.parse::<DeviceChoice>().unwrap_err();
            assert!(matches!(error, DeviceError::UnknownDevice { .. }), "{given}: {error}");
        }
        for given in ["cuda", "cuda:", "cuda:0,", "cuda:0,0", "cuda:-1", "cuda:64", "cuda0"] {
            let error = given.parse::<DeviceChoice>().unwrap_err();
            assert!(matches!(error, DeviceError::CudaNumbers { .. }), "{given}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_a_choice_that_prints_back_or_an_error(
            given in "(cpu|auto|cuda|gpu)?:?[0-9,]{0,6}|.*",
        ) {
            if let Ok(choice) = given.parse::<DeviceChoice>() {
                prop_assert_eq!(choice.to_string().parse::<DeviceChoice>().unwrap(), choice);
            }
        }
    }
}
