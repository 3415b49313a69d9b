//! Options of the command line that help against errors. The library's errors do not name options.

use phi3_model::Error as ModelError;
use phi3_runner::Error;
use phi3_runner::scheduler::SubmitError;
use phi3_runner::system_memory::Smaller;
use phi3_tensor::Error as DeviceError;

/// Options that help against an error, if there are any.
pub(crate) fn advice(error: &Error) -> Option<String> {
    let text = match error {
        Error::Model(ModelError::Device(error) | ModelError::CacheMemory { source: error, .. }) => {
            return of_device(error);
        }
        Error::TooLarge { instead, .. } => {
            let options = instead.as_ref().map_or(String::new(), |smaller| format!("{}; ", options(smaller)));
            return Some(format!("{options}--force loads it anyway, phi3-run plan shows the sizes"));
        }
        // options of the command line begin with dashes, settings of the library do not
        Error::Argument { argument, .. } if argument.starts_with('-') => "phi3-run --help lists the options",
        Error::Argument { argument, .. } => return Some(format!("phi3-run --help describes --{argument}")),
        Error::NoModel => "--model selects one",
        Error::Text(phi3_runner::text::Error::NoTemplate { .. }) => {
            "phi3-run generate --prompt TEXT continues plain text, --chat-template FILE or NAME gives a template"
        }
        Error::Submit(SubmitError::TooLarge { .. }) => "--cache-memory gives the cache more",
        Error::NoTokenizer { .. } => "phi3-run generate --ids takes token ids",
        _ => return None,
    };
    Some(text.to_owned())
}

fn of_device(error: &DeviceError) -> Option<String> {
    let text = match error {
        DeviceError::Unsupported { .. } => "--device cpu has no such limit",
        DeviceError::OutOfMemory { .. } => "--kv f16 or q8_0, --quant q4_k_m, another --device",
        DeviceError::Tier { has, .. } => return Some(format!("--tier {has}, or no --tier")),
        DeviceError::NoAdapter { .. } => "--device takes cpu, gpu, gpu:N or part of a name",
        DeviceError::Device { .. } | DeviceError::Lost { .. } | DeviceError::Timeout { .. } => {
            "--device cpu uses the CPU backend"
        }
        DeviceError::Threads { .. } => "--threads N uses fewer",
        _ => return None,
    };
    Some(text.to_owned())
}

/// Settings as command-line options.
pub(crate) fn options(smaller: &Smaller) -> String {
    let Smaller { pack, quant, kv, context } = smaller;
    let options = [
        pack.map(|pack| format!("--pack {}", pack.name())),
        quant.map(|quant| format!("--quant {quant}")),
        kv.map(|kv| format!("--kv {kv}")),
        context.map(|context| format!("--context {context}")),
    ];
    options.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use phi3_tensor::KvType;
    use phi3_tensor::cpu::Repack;

    #[test]
    fn settings_are_options() {
        let smaller = Smaller {
            pack: Some(Repack::Never),
            quant: Some("q4_k_m".parse().unwrap()),
            kv: Some(KvType::F16),
            context: Some(512),
        };
        assert_eq!(options(&smaller), "--pack never --quant q4_k_m --kv f16 --context 512");
        assert_eq!(options(&Smaller::default()), "");
    }

    #[test]
    fn every_error_of_a_device_that_an_option_helps_against_names_it() {
        let device = || "a card".to_owned();
        for (error, word) in [
            (DeviceError::Unsupported { device: device(), what: "head_dim", found: 300, limit: 256 }, "--device cpu"),
            (DeviceError::OutOfMemory { device: device(), what: "x".into(), bytes: 1, detail: "".into() }, "--kv f16"),
            (DeviceError::Tier { device: device(), tier: "coop", missing: "x", has: "base" }, "--tier base"),
            (DeviceError::NoAdapter { wanted: "at all".into(), hint: "x".into() }, "--device takes cpu"),
            (DeviceError::Device { device: device(), message: "x".into() }, "--device cpu"),
            (DeviceError::Lost { device: device(), message: "x".into() }, "--device cpu"),
            (DeviceError::Timeout { device: device(), seconds: 60 }, "--device cpu"),
            (DeviceError::Threads { threads: 9, source: std::io::Error::other("x") }, "--threads"),
        ] {
            assert!(!error.to_string().contains("--"), "{error}");
            let advice = advice(&error.into()).unwrap();
            assert!(advice.contains(word), "{advice}");
        }
    }
}
