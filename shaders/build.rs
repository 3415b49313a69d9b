//! Hash of the shader sources and of the code that composes kernels from them, exported as `PHI3_SHADERS_REVISION`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn add(hasher: &mut DefaultHasher, folder: &Path) -> io::Result<()> {
    for path in sorted(folder)? {
        path.file_name().hash(hasher);
        if path.is_dir() {
            add(hasher, &path)?;
        } else {
            fs::read(&path)?.hash(hasher);
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let root = env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?;
    let mut hasher = DefaultHasher::new();
    for folder in sorted(Path::new(&root))? {
        if folder.is_dir() && !folder.ends_with("tests") && !folder.ends_with("target") {
            println!("cargo::rerun-if-changed={}", folder.display());
            add(&mut hasher, &folder)?;
        }
    }
    println!("cargo::rustc-env=PHI3_SHADERS_REVISION={:016x}", hasher.finish());
    Ok(())
}
