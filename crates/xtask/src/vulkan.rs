//! The Vulkan driver for the GPU tests on Linux. Metal and Direct3D are part of their systems.

use std::path::{Path, PathBuf};

use crate::{Result, packages};

const PACKAGES: [&str; 2] = ["mesa-vulkan-drivers", "libvulkan1"];

const ADVICE: &str = "no Vulkan driver was found. A software one (lavapipe) is enough:
  Debian, Ubuntu  sudo apt-get install mesa-vulkan-drivers libvulkan1
  Fedora          sudo dnf install mesa-vulkan-drivers vulkan-loader
  Arch            sudo pacman -S vulkan-swrast vulkan-icd-loader
  macOS, Windows  nothing: Metal and Direct3D 12 come with the system";

/// Looks for a driver, and installs one on Debian and Ubuntu if that needs no password.
///
/// # Errors
/// There is no driver; the message explains how to install one.
pub(crate) fn ensure() -> Result {
    if !cfg!(target_os = "linux") || is_installed() {
        return Ok(());
    }
    if packages::install("a software Vulkan driver", &PACKAGES)? && is_installed() {
        return Ok(());
    }
    Err(ADVICE.into())
}

/// Whether a driver's manifest and the loader library are found.
fn is_installed() -> bool {
    let named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].iter().any(|name| std::env::var_os(name).is_some());
    (named || driver_folders().iter().any(|folder| has_driver(folder))) && has_loader()
}

fn driver_folders() -> Vec<PathBuf> {
    let fixed = ["/etc", "/usr/share", "/usr/local/share", "/usr/local/etc"].map(PathBuf::from);
    let listed = std::env::var_os("XDG_DATA_DIRS").unwrap_or_default();
    let own = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    fixed.into_iter().chain(std::env::split_paths(&listed)).chain(own).map(|base| base.join("vulkan/icd.d")).collect()
}

fn has_driver(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
}

fn has_loader() -> bool {
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64"];
    let architecture = format!("{}-linux-gnu", std::env::consts::ARCH);
    folders.iter().map(Path::new).any(|folder| {
        [folder.to_path_buf(), folder.join(&architecture)].iter().any(|folder| folder.join("libvulkan.so.1").exists())
    }) || std::env::var_os("LD_LIBRARY_PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|folder| folder.join("libvulkan.so.1").exists()))
}
