//! Pictures of a prompt.

use super::values::positive;
use crate::output;
use clap::Args;
use phi3_runner::{Error, Image, ImageReader, Orientation, Preparation, Result, Source};
use std::path::{Path, PathBuf};

/// Pictures, and how they are read.
#[derive(Args)]
pub(crate) struct ImageArgs {
    /// Picture (JPEG, PNG, WebP or GIF) for a vision model; may be given several times. Tags in the text mark their
    /// places: `<|image_1|>`, `<|image_2|>` … for Phi-3-vision, `<image>` for Phi-4-reasoning-vision; without tags the pictures come
    /// before the text
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
    /// Ignore the orientation in the EXIF data of pictures
    #[arg(long)]
    no_exif: bool,
    /// Largest number of crops of a picture, for a model that crops [default: the model's, mostly 16 or 4]
    #[arg(long, value_name = "N", value_parser = positive)]
    max_crops: Option<usize>,
    /// Write the picture as the model sees it, with the grid of its crops or patches; several pictures get -1, -2 …
    /// added to the name
    #[arg(long, value_name = "OUT.png")]
    explain_image: Option<PathBuf>,
}

impl ImageArgs {
    /// The given pictures, prepared for a model whose weights are not loaded yet.
    pub(crate) fn read(&self, source: &Source, quiet: bool) -> Result<Vec<Image>> {
        if self.images.is_empty() {
            return Ok(Vec::new());
        }
        let reader = self.reader(&source.image_reader(&source.checkpoint()?)?)?;
        let images = self.images.iter().enumerate();
        images.map(|(i, path)| self.read_one(&reader, path, i + 1, quiet)).collect()
    }

    /// `reader` with the given options.
    pub(crate) fn reader(&self, reader: &ImageReader) -> Result<ImageReader> {
        let mut reader = reader.clone();
        if self.no_exif {
            reader.orientation = Orientation::Ignore;
        }
        match (self.max_crops, &mut reader.preparation) {
            (None, _) => {}
            (Some(max_crops), Preparation::Hd(hd)) => hd.max_crops = max_crops,
            (Some(max_crops), Preparation::Naflex(_)) => {
                let expected = "a model that crops pictures".into();
                let found = format!("{max_crops} for a model that takes them whole");
                return Err(Error::Argument { argument: "--max-crops", expected, found });
            }
        }
        Ok(reader)
    }

    /// Reads a picture, numbered from 1; prints its size and number of tokens.
    pub(crate) fn read_one(&self, reader: &ImageReader, path: &Path, number: usize, quiet: bool) -> Result<Image> {
        let picture = reader.picture(path)?;
        let image = reader.prepare(path, &picture)?;
        if !quiet {
            let ((rows, cols), (width, height)) = (image.grid(), (picture.width(), picture.height()));
            let (path, tokens, unit) = (path.display(), image.tokens(), reader.preparation.unit());
            output::note(&format!(
                "image    {path}: {width} x {height} pixels, {rows} x {cols} {unit}, {tokens} tokens"
            ));
        }
        if let Some(out) = &self.explain_image {
            let out = if self.images.len() > 1 || number > 1 { numbered(out, number) } else { out.clone() };
            let png = reader.preparation.explain(&picture);
            let png = png.map_err(|source| Error::Image { path: path.to_owned(), source })?;
            std::fs::write(&out, png).map_err(|error| Error::File {
                action: "write",
                path: out,
                source: error.into(),
                hint: "does the folder exist, and is there room?",
            })?;
        }
        Ok(image)
    }
}

/// `grid.png` to `grid-2.png`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::numbered;
    use std::path::Path;

    #[test]
    fn numbers_stand_in_front_of_the_extension() {
        assert_eq!(numbered(Path::new("a/grid.png"), 2), Path::new("a/grid-2.png"));
        assert_eq!(numbered(Path::new("grid"), 1), Path::new("grid-1"));
    }
}
