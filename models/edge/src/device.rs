//! Whether a device can run a bundle: what it says of itself against what the manifest asks. Pure. Must not know how a
//! device is asked.

use serde::{Deserialize, Serialize};

use crate::manifest::{Abi, Port};

/// An input or an output as a device's firmware has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevicePort {
    /// The name.
    pub name: String,
    /// Axes as they are stored: channels last.
    pub shape: Vec<usize>,
    /// The type of the codes.
    pub dtype: String,
    /// The value of one code, where the firmware has it built in; firmware that reads it from the model leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// The code of zero, as `scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_point: Option<i32>,
}

/// What a device has.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceAbi {
    /// What goes in.
    pub inputs: Vec<DevicePort>,
    /// What comes out.
    pub outputs: Vec<DevicePort>,
    /// The operators of its resolver.
    pub operators: Vec<String>,
    /// Bytes of its arena.
    pub arena_bytes: u64,
    /// Bytes of flash for a model; none: not bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_bytes_max: Option<u64>,
}

impl From<&Abi> for DeviceAbi {
    /// A device that was made for a bundle, and reads scales from the model.
    fn from(abi: &Abi) -> Self {
        let port = |port: &Port| DevicePort {
            name: port.name.clone(),
            shape: port.shape.clone(),
            dtype: port.dtype.clone(),
            scale: None,
            zero_point: None,
        };
        Self {
            inputs: abi.inputs.iter().map(port).collect(),
            outputs: abi.outputs.iter().map(port).collect(),
            operators: abi.operators.clone(),
            arena_bytes: abi.arena.cortex_m as u64,
            model_bytes_max: None,
        }
    }
}

impl DeviceAbi {
    /// Whether it can run a model of `model_bytes`.
    ///
    /// # Errors
    /// The first thing that does not fit: what, expected and got.
    pub fn fits(&self, abi: &Abi, model_bytes: u64) -> Result<(), String> {
        ports("input", &self.inputs, &abi.inputs)?;
        ports("output", &self.outputs, &abi.outputs)?;
        if let Some(missing) = abi.operators.iter().find(|operator| !self.operators.contains(operator)) {
            return Err(format!("it needs the operator {missing}, which the firmware does not have"));
        }
        let needed = abi.arena.cortex_m as u64;
        if needed > self.arena_bytes {
            return Err(format!("it needs an arena of {needed} bytes, the device has {}", self.arena_bytes));
        }
        match self.model_bytes_max {
            Some(room) if model_bytes > room => {
                Err(format!("it has {model_bytes} bytes, the device has room for {room}"))
            }
            _ => Ok(()),
        }
    }
}

fn ports(what: &str, has: &[DevicePort], wants: &[Port]) -> Result<(), String> {
    if has.len() != wants.len() {
        return Err(format!("it has {} {what}s, the firmware {}", wants.len(), has.len()));
    }
    for (has, wants) in has.iter().zip(wants) {
        let same = has.name == wants.name && has.shape == wants.shape && has.dtype == wants.dtype;
        #[expect(clippy::float_cmp, reason = "a constant of the firmware is the manifest's or another one")]
        let scales = has.scale.is_none_or(|scale| scale == wants.scale)
            && has.zero_point.is_none_or(|zero| zero == wants.zero_point);
        if !same || !scales {
            return Err(format!(
                "its {what} is {} {} {:?} with scale {} and zero {}, the firmware has another",
                wants.name, wants.dtype, wants.shape, wants.scale, wants.zero_point
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ArenaSizes;

    #[test]
    fn a_device_takes_what_it_can_run() {
        let port = |name: &str| Port {
            name: name.into(),
            shape: vec![1, 8, 8, 1],
            dtype: "int8".into(),
            scale: 0.5,
            zero_point: -3,
        };
        let abi = Abi {
            inputs: vec![port("image")],
            outputs: vec![port("class")],
            operators: vec!["CONV_2D".into(), "SOFTMAX".into()],
            arena: ArenaSizes { host64: 3000, cortex_m: 2000 },
        };
        let good = DeviceAbi::from(&abi);
        let check = |change: &dyn Fn(&mut DeviceAbi), expected: &str| {
            let mut device = good.clone();
            change(&mut device);
            let got = device.fits(&abi, 4000).err().unwrap_or_default();
            assert!(if expected.is_empty() { got.is_empty() } else { got.contains(expected) }, "{got}");
        };
        check(&|_| {}, "");
        check(&|device| device.operators.push("PAD".into()), "");
        check(&|device| device.inputs[0].scale = Some(0.5), "");
        check(&|device| device.inputs[0].scale = Some(0.25), "its input is image");
        check(&|device| device.outputs[0].zero_point = Some(0), "its output is class");
        check(&|device| device.inputs[0].shape[1] = 9, "the firmware has another");
        check(&|device| device.outputs.clear(), "it has 1 outputs, the firmware 0");
        check(&|device| drop(device.operators.remove(1)), "the operator SOFTMAX");
        check(&|device| device.arena_bytes = 1999, "an arena of 2000 bytes, the device has 1999");
        check(&|device| device.model_bytes_max = Some(3999), "it has 4000 bytes");
    }
}
