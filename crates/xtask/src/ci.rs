//! `cargo xtask ci`.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::dependencies::Metadata;
use crate::process::{cargo, command, output, root, run as run_program, succeeds, target};
use crate::{Result, clients, packages, test, tidy};

/// Size limit of crates.io in bytes.
const LARGEST_CRATE: u64 = 10 << 20;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only these steps
    #[arg(value_name = "STEP", value_parser = clap::builder::PossibleValuesParser::new(STEPS.map(|step| step.0)))]
    steps: Vec<String>,
}

type Step = (&'static str, fn() -> Result);

const STEPS: [Step; 14] = [
    ("fmt", fmt),
    ("tidy", tidy::run),
    ("clippy", clippy),
    ("doc", doc),
    ("floor", floor),
    ("targets", targets),
    ("test", tests),
    ("loom", loom),
    ("miri", miri),
    ("clients", clients::run),
    ("neon", neon),
    ("units", units),
    ("readme", readme),
    ("package", package),
];

pub(crate) fn run(arguments: &Arguments) -> Result {
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (name, step) in STEPS {
        if !arguments.steps.is_empty() && !arguments.steps.iter().any(|chosen| chosen == name) {
            continue;
        }
        println!("== {name}");
        let start = Instant::now();
        step().map_err(|reason| format!("step {name}: {reason}"))?;
        times.push((name, start.elapsed()));
        println!("== {name}: {:.1} s", start.elapsed().as_secs_f64());
    }
    println!("\nAll steps passed:");
    for (name, time) in times {
        println!("  {name:8} {:8.1} s", time.as_secs_f64());
    }
    Ok(())
}

fn fmt() -> Result {
    run_program(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result {
    run_program(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn doc() -> Result {
    run_program(cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Minimal builds: the decoder without GPU code and tokenizers; the library without GPU code, terminal, command line, network
/// and demo model; the program without GPU code and network, as client and as server.
fn floor() -> Result {
    for (package, unwanted) in [
        ("phi3-model", &["wgpu", "naga", "tokenizers"][..]),
        (
            "phi3-runner",
            &["wgpu", "naga", "clap", "ctrlc", "indicatif", "rustyline", "phi3-demo", "ureq", "rustls", "tokio"],
        ),
        ("phi3-cli", &["wgpu", "naga", "phi3-hub", "ureq", "rustls", "phi3-server", "tokio"]),
    ] {
        let package_only = ["-p", package, "--no-default-features"];
        run_program(cargo().arg("check").args(package_only))?;
        let tree = output(cargo().arg("tree").args(package_only).args(["-e", "normal", "--prefix", "none"]))?;
        if let Some(line) = tree.lines().find(|line| unwanted.iter().any(|name| line.starts_with(name))) {
            return Err(format!("{package} without features depends on {line}"));
        }
    }
    Ok(())
}

/// Other systems and architectures: the whole program, GPU backend and network included, compiles for each target without
/// warnings. Step neon compiles the kernels for Linux on AArch64.
fn targets() -> Result {
    const TARGETS: [&str; 2] = ["x86_64-pc-windows-gnu", "aarch64-apple-darwin"];
    let (there, missing): (Vec<&str>, Vec<&str>) = TARGETS.into_iter().partition(|target| has_target(target));
    for target in missing {
        println!("skipped: rustup cannot add {target} here");
    }
    if !there.is_empty() {
        let targets = there.iter().flat_map(|target| ["--target", target]);
        let program = ["-p", "phi3-cli", "--", "-D", "warnings"];
        run_program(cargo().arg("clippy").args(targets).args(program))?;
    }
    web()
}

/// The library compiles for browsers, without and with the GPU backend.
fn web() -> Result {
    const TARGET: &str = "wasm32-unknown-unknown";
    if !has_target(TARGET) {
        println!("skipped: rustup cannot add {TARGET} here");
        return Ok(());
    }
    for features in ["", "gpu"] {
        let clippy =
            ["clippy", "--target", TARGET, "-p", "phi3-runner", "--no-default-features", "--features", features];
        run_program(cargo().args(clippy).args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}

fn tests() -> Result {
    test::run(&test::Arguments { require_gpu: true, rest: Vec::new() })
}

/// The hand-over between threads, in the orders in which loom lets them meet.
fn loom() -> Result {
    let mut test = cargo();
    test.args(["test", "--locked", "--manifest-path"]).arg(root().join("tests/loom/Cargo.toml"));
    run_program(test.arg("--target-dir").arg(root().join("target/loom")))
}

/// The table of pages and the CPU's thread pool in an interpreter that finds undefined behaviour and data races; skipped if it is not
/// available.
fn miri() -> Result {
    const TOOLCHAIN: &str = "nightly";
    let add = ["component", "add", "miri", "rust-src", "--toolchain", TOOLCHAIN];
    if !command("rustup").args(add).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: Miri is not available here");
        return Ok(());
    }
    let mut test = command("rustup");
    test.args(["run", TOOLCHAIN, "cargo", "miri", "test", "--locked", "--no-default-features", "--lib"]);
    test.args(["-p", "phi3-model", "-p", "phi3-tensor"]).arg("--target-dir").arg(target().join("miri"));
    run_program(test.args(["--", "pages::", "pool::"]))
}

/// Tests of the CPU kernels for AArch64 in an emulator; skipped if the tools are not available.
fn neon() -> Result {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    const LINKER: &str = "aarch64-linux-gnu-gcc";
    const EMULATOR: &str = "qemu-aarch64";
    let is_there = || succeeds(LINKER, &["--version"]) && succeeds(EMULATOR, &["--version"]);
    let wanted = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user"];
    if !cfg!(target_os = "linux")
        || !has_target(TARGET)
        || !(is_there() || packages::install("an emulator of AArch64", &wanted).is_ok_and(|_| is_there()))
    {
        println!("skipped: a compiler for {TARGET} and an emulator are not available here");
        return Ok(());
    }
    let tests = ["-p", "phi3-tensor", "--no-default-features", "--features", "reference", "--test", "cpu"];
    let mut test = cargo();
    test.args(["test", "--target", TARGET]).args(tests);
    test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
    let runner = format!("{EMULATOR} -L /usr/aarch64-linux-gnu -cpu max");
    test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    run_program(test.env("PHI3_LEVELS", "neon,neon-dot"))
}

fn has_target(target: &str) -> bool {
    command("rustup").args(["target", "add", target]).output().is_ok_and(|output| output.status.success())
}

/// Tests of the kernels for matrix units on a software Vulkan driver that supports them; skipped if it is not available.
fn units() -> Result {
    let script = root().join(".ci/newer-vulkan");
    if !cfg!(all(target_os = "linux", target_arch = "x86_64"))
        || !command(&script.display().to_string()).arg("setup").status().is_ok_and(|s| s.success())
    {
        println!("skipped: a software Vulkan driver with matrix units is not available here");
        return Ok(());
    }
    let tests = |arguments: &[&str]| {
        let runner = ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", &script);
        // of the whole workspace, whose features are those of step test: what that has compiled serves here
        let test = ["test", "--workspace"].iter().chain(arguments);
        run_program(cargo().args(test).env(runner.0, runner.1).env("PHI3_TIER", "coop").env("PHI3_GPU", "require"))
    };
    tests(&["--test", "gpu", "--", "products_of_a_prompt", "several_tiles", "attention_of_many_rows"])?;
    tests(&["--test", "gpu_rows"])?;
    // lower tiers and what does not depend on the kernels are part of step test
    tests(&["--lib", "selfcheck::tests::wrong_attention"])?;
    tests(&["--test", "root", "--", "golden::prompts"])
}

/// Runs the first command of the README that starts with `cargo run`.
fn readme() -> Result {
    let text = std::fs::read_to_string(root().join("README.md")).map_err(|error| format!("README.md: {error}"))?;
    let line = text
        .lines()
        .map(|line| line.trim().trim_start_matches("$ "))
        .find(|line| line.starts_with("cargo run"))
        .ok_or("README.md has no line that starts with `cargo run`")?;
    println!("{line}");
    // whether the command works does not depend on how much is optimized, which takes most of the time
    run_program(shell(line).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"))
}

fn shell(line: &str) -> Command {
    let (program, option) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let mut shell = command(program);
    shell.args([option, line]);
    shell
}

/// Packs every published crate and checks its size. phi3-shaders and phi3-demo, which embed files and need no other crate of
/// the workspace, are also built from their packages.
pub(crate) fn package() -> Result {
    let metadata = Metadata::load()?;
    let crates = metadata.published_members();
    let mut pack = cargo();
    pack.args(["package", "--allow-dirty", "--no-verify"]);
    for name in &crates {
        pack.args(["-p", name]);
    }
    run_program(&mut pack)?;
    let embedding = crates.iter().filter(|name| ["phi3-shaders", "phi3-demo"].contains(&name.as_str()));
    for name in embedding {
        run_program(cargo().args(["package", "--allow-dirty", "-p", name]))?;
    }
    for name in &crates {
        let file: PathBuf = metadata.packed(name);
        let size = file.metadata().map_err(|error| format!("{}: {error}", file.display()))?.len();
        println!("{name:16} {:8.1} KiB", size as f64 / 1024.0);
        if size > LARGEST_CRATE {
            return Err(format!("{name} has {size} bytes packed; the limit is {LARGEST_CRATE}"));
        }
    }
    Ok(())
}
