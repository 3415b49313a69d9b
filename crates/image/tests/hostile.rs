//! Damaged, hostile and unusual files: a typed error or the right picture, with bounded memory, and never a panic.

use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use image::{DynamicImage, ImageFormat};
use phi3_image::{Error, Format, Hd, MAX_PIXELS, Orientation, Picture, decode};

fn oracle(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/oracle/family/images");
    fs::read(folder.join(name)).unwrap()
}

fn read(bytes: &[u8]) -> Result<Picture, Error> {
    decode(bytes, Orientation::Apply)
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// CRC-32 of ISO 3309, bitwise.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// A PNG chunk.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
}

/// A PNG file of a header, an empty IDAT and IEND.
fn png(width: u32, height: u32, depth: u8, colour: u8) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, colour, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), chunk(b"IDAT", &[]), chunk(b"IEND", &[])].concat()
}

/// A JPEG file of a frame (`frame` is the second byte of its marker), `scans` scans without data, and an end marker.
fn jpeg(frame: u8, width: u16, height: u16, scans: usize) -> Vec<u8> {
    let ([w0, w1], [h0, h1]) = (width.to_be_bytes(), height.to_be_bytes());
    let mut bytes = vec![0xff, 0xd8, 0xff, frame, 0, 11, 8, h0, h1, w0, w1, 1, 1, 0x11, 0];
    for _ in 0..scans {
        bytes.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0]);
    }
    bytes.extend([0xff, 0xd9]);
    bytes
}

/// A GIF file with a screen without a palette and a frame of one pixel.
fn gif(width: u16, height: u16) -> Vec<u8> {
    let frame = [0x2c, 0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x4c, 0x01, 0, 0x3b];
    [&b"GIF89a"[..], &width.to_le_bytes(), &height.to_le_bytes(), &[0, 0, 0], &frame].concat()
}

/// A WebP file of chunks.
fn webp(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    for (kind, data) in chunks {
        body.extend(*kind);
        body.extend((data.len() as u32).to_le_bytes());
        body.extend(data);
        body.resize(body.len().next_multiple_of(2), 0);
    }
    [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// The data of VP8X: flags and the canvas.
fn vp8x(flags: u8, width: u32, height: u32) -> Vec<u8> {
    let (width, height) = ((width - 1).to_le_bytes(), (height - 1).to_le_bytes());
    [&[flags, 0, 0, 0], &width[..3], &height[..3]].concat()
}

/// The data of ANMF: a frame of one pixel in column 2 · `x` of a canvas.
fn webp_frame(x: u8, chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut data = vec![0; 16];
    data[0] = x;
    data.extend(&webp(chunks)[12..]);
    data
}

/// The data of VP8L without its pixels.
fn vp8l(width: u32, height: u32) -> Vec<u8> {
    [&[0x2f][..], &((width - 1) | (height - 1) << 14).to_le_bytes()].concat()
}

/// The data of VP8 without its pixels.
fn vp8(width: u16, height: u16) -> Vec<u8> {
    [&[0x10, 0, 0, 0x9d, 0x01, 0x2a][..], &width.to_le_bytes(), &height.to_le_bytes()].concat()
}

#[test]
fn bombs_are_refused_by_their_header() {
    let bombs = [
        png(i32::MAX as u32, i32::MAX as u32, 8, 2),
        png(1 << 21, 1, 8, 0),
        png(9600, 9600, 16, 6),
        png(11586, 11586, 1, 0),
        jpeg(0xc0, 65535, 65535, 1),
        jpeg(0xc2, 13000, 13000, 1),
        gif(65535, 65535),
        gif(10000, 10000),
        webp(&[(b"VP8X", vp8x(0, 1 << 24, 1 << 24)), (b"VP8L", vp8l(1, 1))]),
        webp(&[(b"VP8X", vp8x(2, 11500, 11500)), (b"ANMF", webp_frame(0, &[(b"VP8L", vp8l(1, 1))]))]),
        webp(&[(b"VP8L", vp8l(16384, 16384))]),
        webp(&[(b"VP8 ", vp8(0x3fff, 0x3fff))]),
    ];
    for (at, bomb) in bombs.iter().enumerate() {
        let error = read(bomb).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{at}: {error}");
        assert!(error.to_string().contains("at most "), "{error}");
    }
}

#[test]
fn a_large_header_without_data_is_an_error() {
    // within the size limits, so that the decoder runs
    let files = [
        png(8000, 8000, 8, 0),
        gif(4000, 4000)[..13].to_vec(),
        webp(&[(b"VP8L", vp8l(4000, 4000))]),
        jpeg(0xc0, 4000, 4000, 1),
    ];
    for (at, file) in files.iter().enumerate() {
        assert!(matches!(read(file), Err(Error::Truncated { .. } | Error::Damaged { .. })), "{at}: {:?}", read(file));
    }
}

#[test]
fn sides_of_0() {
    let files = [
        png(0, 4, 8, 2),
        png(4, 0, 8, 2),
        jpeg(0xc0, 0, 4, 1),
        jpeg(0xc0, 4, 0, 1),
        gif(0, 4),
        gif(4, 0),
        webp(&[(b"VP8 ", vp8(0, 4))]),
        webp(&[(b"VP8 ", vp8(4, 0))]),
    ];
    for (at, file) in files.iter().enumerate() {
        let size = if at % 2 == 0 { (0, 4) } else { (4, 0) };
        assert_eq!(read(file), Err(Error::NoPixels { width: size.0, height: size.1 }), "{at}");
    }
}

#[test]
fn files_cut_in_the_middle() {
    for (name, format) in [
        ("rgb.png", Format::Png),
        ("interlaced.png", Format::Png),
        ("no-exif.jpg", Format::Jpeg),
        ("exif-6.jpg", Format::Jpeg),
        ("progressive.jpg", Format::Jpeg),
        ("still.gif", Format::Gif),
        ("animated.gif", Format::Gif),
        ("lossy.webp", Format::WebP),
        ("lossless-alpha.webp", Format::WebP),
        ("animated.webp", Format::WebP),
    ] {
        let whole = oracle(name);
        let middle = if name == "animated.gif" { whole.len() / 4 } else { whole.len() / 2 };
        match read(&whole[..middle]) {
            Err(Error::Truncated { format: found, found: length, .. }) => {
                assert_eq!((found, length), (format, middle), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn every_prefix_is_an_error_or_the_picture() {
    for name in ["rgb.png", "420.jpg", "progressive.jpg", "still.gif", "animated.gif", "lossy.webp", "lossless.webp"] {
        let whole = oracle(name);
        let picture = read(&whole).unwrap();
        for end in 0..whole.len() {
            assert!(
                read(&whole[..end]).is_ok_and(|found| found == picture) || read(&whole[..end]).is_err(),
                "{name} {end}"
            );
        }
    }
}

#[test]
fn webp_chunks_that_lie() {
    let frame = |data: Vec<u8>| [&[0; 16][..], &data].concat();
    let huge = |kind: &[u8; 4]| [&kind[..], &u32::MAX.to_le_bytes()].concat();
    let good = oracle("lossless.webp");
    let inner = (b"VP8L", good[20..].to_vec());
    assert!(read(&webp(std::slice::from_ref(&inner))).is_ok());
    let mut longer = webp(std::slice::from_ref(&inner));
    longer.extend(huge(b"EXIF"));
    assert!(read(&longer).is_ok(), "bytes after the RIFF are ignored");

    let mut overlong = webp(&[(b"VP8X", vp8x(8, 44, 27)), inner.clone()]);
    overlong.extend(huge(b"EXIF"));
    let length = overlong.len() as u32 - 8;
    overlong[4..8].copy_from_slice(&length.to_le_bytes());
    let files = [
        overlong,
        webp(&[(b"VP8X", vp8x(2, 9, 9)), (b"ANIM", vec![0; 6]), (b"ANMF", frame(huge(b"EXIF")))]),
        webp(&[(b"VP8X", vp8x(2, 9, 9)), (b"ANIM", vec![0; 6]), (b"ANMF", vec![0; 15])]),
        webp(&[(b"VP8X", vp8x(0, 9, 9)), (b"VP8 ", vp8(0x3fff, 0x3fff))]),
        webp(&[(b"VP8X", vp8x(0, 9, 9)), inner]),
        webp(&[(b"JUNK", vec![0; 40])]),
        webp(&[(b"VP8L", vec![0x2f])]),
        webp(&[]),
    ];
    for (at, file) in files.iter().enumerate() {
        assert!(matches!(read(file), Err(Error::Damaged { .. } | Error::Truncated { .. })), "{at}: {:?}", read(file));
    }
}

#[test]
fn jpeg_segments_that_lie() {
    let mut short = jpeg(0xc0, 8, 8, 1);
    short[5] = 1;
    let twice = [&jpeg(0xc0, 8, 8, 0)[..15], &jpeg(0xc0, 65535, 65535, 1)[2..]].concat();
    for (at, file) in
        [short, twice, jpeg(0xc2, 8, 8, 101), jpeg(0xc0, 8, 8, 0), vec![0xff, 0xd8, 0xff, 0xd9]].iter().enumerate()
    {
        assert!(matches!(read(file), Err(Error::Damaged { .. })), "{at}: {:?}", read(file));
    }
}

#[test]
fn gif_frames_beyond_their_screen() {
    let frame = |width: u16, height: u16| {
        let place = [&[0x2c, 0, 0, 0, 0][..], &width.to_le_bytes(), &height.to_le_bytes(), &[0x80]].concat();
        // a palette of two, and codes of 2 bits: clear, colour 1, end
        [&gif(2, 2)[..13], &place, &[1, 2, 3, 4, 5, 6, 2, 2, 0x4c, 0x01, 0, 0x3b]].concat()
    };
    for (width, height) in [(65535, 65535), (20000, 20000), (3, 3), (0, 0), (0, 2), (1, 1)] {
        if let Ok(found) = read(&frame(width, height)) {
            assert_eq!((found.width(), found.height()), (2, 2), "{width} x {height}");
        }
    }
    assert!(read(&gif(2, 2)[..13]).is_err());
}

#[test]
fn a_line_of_pixels_is_read_and_refused_by_the_grid() {
    for (width, height) in [(1, 100_000), (100_000, 1)] {
        let file = encoded(&DynamicImage::new_rgb8(width, height), ImageFormat::Png);
        let picture = read(&file).unwrap();
        let error = Hd::default().pixels(&picture).unwrap_err();
        assert_eq!(error, Error::TooThin { width, height, max_crops: 16, ratio: 5376 });
        assert!(error.to_string().contains("at most 5376 to 1 with 16 crops"), "{error}");
    }
    let longest = Picture::new(1 << 20, 128, vec![9; 3 << 27]).unwrap();
    assert_eq!(u64::from(longest.width()) * u64::from(longest.height()), MAX_PIXELS);
    assert!(matches!(Hd::default().pixels(&longest), Err(Error::TooThin { .. })));
}

#[test]
fn sixteen_bits_give_their_high_byte() {
    let values: Vec<u16> = (0..7 * 5 * 4).map(|at| at * 461 + 129).collect();
    let high = |kept: &[usize]| -> Vec<u8> {
        let pixel = |pixel: &[u16]| kept.iter().map(|&at| (pixel[at] >> 8) as u8).collect::<Vec<_>>();
        let channels = if kept[1] == 0 { if kept.len() == 3 { 1 } else { 2 } } else { kept.len().max(3) };
        values[..7 * 5 * channels].chunks(channels).flat_map(pixel).collect()
    };
    let check = |picture: DynamicImage, expected: Vec<u8>| {
        let found = read(&encoded(&picture, ImageFormat::Png)).unwrap();
        assert_eq!(found, Picture::new(7, 5, expected).unwrap());
    };
    let buffer = |channels: usize| values[..7 * 5 * channels].to_vec();
    check(image::ImageBuffer::from_raw(7, 5, buffer(1)).map(DynamicImage::ImageLuma16).unwrap(), high(&[0, 0, 0]));
    check(image::ImageBuffer::from_raw(7, 5, buffer(3)).map(DynamicImage::ImageRgb16).unwrap(), high(&[0, 1, 2]));
    let gray: Vec<u8> = buffer(2).chunks(2).flat_map(|pixel| [(pixel[0] >> 8) as u8; 3]).collect();
    check(image::ImageBuffer::from_raw(7, 5, buffer(2)).map(DynamicImage::ImageLumaA16).unwrap(), gray);
    let rgba: Vec<u8> = buffer(4).chunks(4).flat_map(|p| [p[0], p[1], p[2]].map(|v| (v >> 8) as u8)).collect();
    check(image::ImageBuffer::from_raw(7, 5, buffer(4)).map(DynamicImage::ImageRgba16).unwrap(), rgba);
}

#[test]
fn other_files_are_named() {
    let cases: [(&[u8], &str); 6] = [
        (b"", "an empty file"),
        (b"this is not a picture\n", "a file that begins with \"this is not \""),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIF or a video"),
        (b"BM\x46\0\0\0\0\0\0\0", "a file of the kind Bmp"),
        (b"\x89PNG\r\n\x1a", "a file that begins with \"\\x89PNG\\r\\n\\x1a\""),
    ];
    for (bytes, expected) in cases {
        match read(bytes) {
            Err(Error::Format { found, .. }) => assert_eq!(found, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

/// Random numbers by Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

/// Random changes of bytes: any result is accepted, except a panic.
#[test]
fn changed_bytes_never_panic() {
    let names = [
        "420.jpg",
        "cmyk.jpg",
        "exif-6.jpg",
        "gray.jpg",
        "progressive.jpg",
        "alpha.png",
        "exif-6.png",
        "gray16.png",
        "interlaced.png",
        "palette-transparent.png",
        "animated.gif",
        "interlaced.gif",
        "still.gif",
        "animated.webp",
        "lossless-alpha.webp",
        "lossless.webp",
        "lossy.webp",
    ];
    let rounds = std::env::var("PHI3_IMAGE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(300);
    let mut random = Random(0x5eed_1e55_0ddb_a115);
    for name in names {
        let whole = oracle(name);
        for _ in 0..rounds {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                match random.below(5) {
                    0 => bytes[at] = random.below(256) as u8,
                    1 => bytes[at] ^= 1 << random.below(8),
                    2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                    3 => drop(bytes.drain(at..(at + 1 + random.below(8)).min(bytes.len()))),
                    _ => bytes.insert(at, random.below(256) as u8),
                }
                if bytes.is_empty() {
                    break;
                }
            }
            if name.ends_with("png") {
                repair(&mut bytes);
            }
            let _ = read(&bytes);
        }
    }
}

/// Corrects the checksums of a PNG file's chunks, so that the decoder reads the changed data.
fn repair(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(length) =
        bytes.get(at..at + 4).and_then(|length| length.first_chunk()).map(|b| u32::from_be_bytes(*b))
    {
        let end = at.saturating_add(8).saturating_add(length as usize);
        let Some(sum) = bytes.get(at + 4..end).map(crc) else { break };
        let Some(place) = bytes.get_mut(end..end + 4) else { break };
        place.copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
}
