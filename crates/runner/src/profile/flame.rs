//! Flame graph of a profile: nested bars with widths in proportion to their times.

use super::{Part, Phase, Profile};
use std::fmt::Write;

/// Sizes in pixels.
const WIDTH: f64 = 1200.0;
const BAR: f64 = 22.0;
const MARGIN: f64 = 12.0;

/// Bars narrower than this have no text.
const READABLE: f64 = 60.0;

/// A bar and the bars nested under it.
struct Bar {
    name: String,
    seconds: f64,
    under: Vec<Bar>,
}

/// The profile as an SVG: for the whole prompt and for one generated token, the layers and the operations of each. The
/// tooltip of a bar has its time.
pub fn flame(profile: &Profile) -> String {
    let phases = [("prompt", &profile.prompt), ("a token", &profile.decode)];
    let phases: Vec<Bar> = phases
        .into_iter()
        .filter(|(_, phase)| phase.passes > 0)
        .map(|(name, phase)| of_phase(name, phase, if name == "prompt" { 1 } else { phase.passes }))
        .collect();
    let height = MARGIN + phases.iter().map(|phase| (depth(phase) + 1) as f64 * BAR + MARGIN).sum::<f64>() + BAR;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        WIDTH + 2.0 * MARGIN
    );
    let mut y = MARGIN;
    for phase in &phases {
        draw(&mut svg, phase, MARGIN, y, WIDTH / phase.seconds.max(1e-12), 0);
        y += (depth(phase) + 1) as f64 * BAR + MARGIN;
    }
    let about = format!("{}; {}", profile.device, profile.clock);
    let _ = writeln!(svg, "<text x=\"{MARGIN}\" y=\"{}\" fill=\"#555555\">{}</text>", y + 14.0, escaped(&about));
    svg.push_str("</svg>\n");
    svg
}

fn of_phase(name: &str, phase: &Phase, passes: usize) -> Bar {
    let each = |seconds: f64| seconds / passes as f64;
    let of = |part: &Part| Bar { name: part.label.op.clone(), seconds: each(part.seconds), under: Vec::new() };
    let mut under: Vec<Bar> = Vec::new();
    let mut layers: Vec<Bar> = Vec::new();
    let mut place = None;
    for part in &phase.parts {
        let Some(layer) = part.label.layer else {
            under.push(of(part));
            continue;
        };
        place.get_or_insert(under.len());
        let name = format!("layer {layer}");
        if layers.last().is_none_or(|last| last.name != name) {
            layers.push(Bar { name, seconds: 0.0, under: Vec::new() });
        }
        if let Some(last) = layers.last_mut() {
            last.seconds += each(part.seconds);
            last.under.push(of(part));
        }
    }
    if let Some(place) = place {
        let seconds = layers.iter().map(|layer| layer.seconds).sum();
        under.insert(place, Bar { name: format!("{} layers", layers.len()), seconds, under: layers });
    }
    let inside = each(phase.inside());
    let seconds = each(phase.seconds).max(inside);
    under.push(Bar { name: "host and waiting".into(), seconds: seconds - inside, under: Vec::new() });
    Bar { name: format!("{name} ({} tokens)", phase.tokens / passes), seconds, under }
}

fn depth(bar: &Bar) -> usize {
    bar.under.iter().map(|bar| depth(bar) + 1).max().unwrap_or(0)
}

fn draw(svg: &mut String, bar: &Bar, x: f64, y: f64, scale: f64, level: usize) {
    let width = bar.seconds * scale;
    let label = escaped(&format!("{}: {}", bar.name, time(bar.seconds)));
    let _ = write!(
        svg,
        "<g><title>{label}</title><rect x=\"{x:.2}\" y=\"{y:.0}\" width=\"{:.2}\" height=\"{:.0}\" fill=\"{}\" \
         stroke=\"#ffffff\" stroke-width=\"0.5\"/>",
        width.max(0.1),
        BAR - 1.0,
        color(&bar.name, level),
    );
    if width >= READABLE {
        let room = (width / 7.0) as usize;
        let text: String = format!("{} {}", bar.name, time(bar.seconds)).chars().take(room).collect();
        let _ = write!(svg, "<text x=\"{:.2}\" y=\"{:.0}\">{}</text>", x + 4.0, y + 15.0, escaped(&text));
    }
    svg.push_str("</g>\n");
    let mut x = x;
    for bar in &bar.under {
        draw(svg, bar, x, y + BAR, scale, level + 1);
        x += bar.seconds * scale;
    }
}

/// Color of a bar, the same for the same name.
fn color(name: &str, level: usize) -> String {
    let name = if name.starts_with("layer ") { "layer" } else { name };
    let hash = name.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    format!("hsl({}, 65%, {}%)", hash % 360, (62 + 6 * level).min(86))
}

/// A time in a suitable unit.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} µs", s * 1e6),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use phi3_tensor::{Clock, Label, Limits};

    fn part(op: &str, layer: Option<usize>, seconds: f64) -> Part {
        Part { label: Label { op: op.into(), layer, bytes: 10, values: 5 }, calls: 2, seconds, read: 20, flops: 0.0 }
    }

    #[test]
    fn bars_are_as_wide_as_they_take_long() {
        let parts = vec![
            part("embed", None, 1.0),
            part("<a>", Some(0), 2.0),
            part("b", Some(0), 3.0),
            part("<a>", Some(1), 4.0),
            part("lm_head", None, 5.0),
        ];
        let decode = Phase { tokens: 2, passes: 2, seconds: 16.0, parts };
        assert_eq!(decode.by_op().len(), 4);
        assert_eq!((decode.by_op()[1].seconds, decode.by_op()[1].calls), (6.0, 4));
        let limits = Limits { bandwidth: 1.0, access: "read", rate: 1.0, numbers: "f32" };
        let (device, clock) = ("a & b".into(), Clock::Wall);
        let svg = flame(&Profile { device, clock, limits, prompt: Phase::default(), decode });
        assert!(
            svg.contains("<title>2 layers: 4.50 s</title>") && svg.contains("<title>layer 1: 2.00 s</title>"),
            "{svg}"
        );
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;a&gt;: 1.00 s") && !svg.contains("<a>"), "{svg}");
        assert!(svg.contains("host and waiting: 500.00 ms"), "{svg}");
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        assert_eq!((svg.matches("<title>").count(), svg.lines().last()), (10, Some("</svg>")));
    }
}
