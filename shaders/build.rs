//! A number that changes with every text that kernels are composed of, and with what composes them.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// FNV-1a.
fn add(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn of_folder(hash: u64, folder: &Path) -> io::Result<u64> {
    sorted(folder)?.into_iter().try_fold(hash, |hash, path| {
        if path.is_dir() {
            return of_folder(hash, &path);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(add(add(hash, name.as_bytes()), &fs::read(&path)?))
    })
}

fn main() -> io::Result<()> {
    let root = env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?;
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for folder in sorted(Path::new(&root))? {
        if folder.is_dir() && !folder.ends_with("tests") && !folder.ends_with("target") {
            println!("cargo::rerun-if-changed={}", folder.display());
            hash = of_folder(hash, &folder)?;
        }
    }
    println!("cargo::rustc-env=PHI3_SHADERS_REVISION={hash:016x}");
    Ok(())
}
