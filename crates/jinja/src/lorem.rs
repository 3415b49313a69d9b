//! `lipsum`: placeholder text.

use crate::args::Args;
use crate::error::{Result, fail};
use crate::methods;
use crate::value::Value;
use crate::vm::Vm;

const WORDS: &str = concat!(
    "a ac accumsan ad adipiscing aenean aliquam aliquet amet ante aptent arcu at auctor augue bibendum blandit ",
    "class commodo condimentum congue consectetuer consequat conubia convallis cras cubilia cum curabitur curae ",
    "cursus dapibus diam dictum dictumst dignissim dis dolor donec dui duis egestas eget eleifend elementum elit ",
    "enim erat eros est et etiam eu euismod facilisi facilisis fames faucibus felis fermentum feugiat fringilla ",
    "fusce gravida habitant habitasse hac hendrerit hymenaeos iaculis id imperdiet in inceptos integer interdum ",
    "ipsum justo lacinia lacus laoreet lectus leo libero ligula litora lobortis lorem luctus maecenas magna ",
    "magnis malesuada massa mattis mauris metus mi molestie mollis montes morbi mus nam nascetur natoque nec ",
    "neque netus nibh nisi nisl non nonummy nostra nulla nullam nunc odio orci ornare parturient pede ",
    "pellentesque penatibus per pharetra phasellus placerat platea porta porttitor posuere potenti praesent ",
    "pretium primis proin pulvinar purus quam quis quisque rhoncus ridiculus risus rutrum sagittis sapien ",
    "scelerisque sed sem semper senectus sit sociis sociosqu sodales sollicitudin suscipit suspendisse taciti ",
    "tellus tempor tempus tincidunt torquent tortor tristique turpis ullamcorper ultrices ultricies urna ut ",
    "varius vehicula vel velit venenatis vestibulum vitae vivamus viverra volutpat vulputate",
);

pub(crate) fn lipsum(vm: &mut Vm, args: Args) -> Result<Value> {
    let [count, html, min, max] = args.bind("generate_lorem_ipsum", ["n", "html", "min", "max"], 0)?;
    let number = |value: Option<Value>, default: i128| value.map_or(Ok(default), |value| value.index());
    let (count, min, max) = (number(count, 5)?, number(min, 20)?, number(max, 100)?);
    let html = html.map_or(Ok(true), |html| vm.truth(&html))?;
    if count > 0 && min >= max {
        return fail!(Value, "empty range in randrange({min}, {max})");
    }
    let (low, high) = (min.max(0), max.max(1));
    let (Ok(low), Ok(high)) = (usize::try_from(low), usize::try_from(high)) else {
        return fail!(Limit, "the number of words per paragraph of lipsum is too large");
    };
    let mut out = String::new();
    for i in 0..count {
        let length = vm.random.between(low, high);
        let text = paragraph(vm, length)?;
        let text = if html { format!("<p>{text}</p>") } else { text };
        vm.budget.charge(text.len() + 2)?;
        out.push_str(match (i, html) {
            (0, _) => "",
            (_, true) => "\n",
            (_, false) => "\n\n",
        });
        out.push_str(&text);
    }
    Ok(if html { Value::Markup(out.into()) } else { Value::Str(out.into()) })
}

fn paragraph(vm: &mut Vm, length: usize) -> Result<String> {
    let words: Vec<&str> = WORDS.split(' ').collect();
    let mut out = String::new();
    let (mut starts, mut last) = (true, "");
    // positions of the last comma and the last full stop
    let (mut comma, mut stop) = (0, 0);
    for at in 0..length as i64 {
        vm.budget.charge(16)?;
        let word = loop {
            let word = words[vm.random.below(words.len())];
            if word != last {
                break word;
            }
        };
        last = word;
        out.push_str(if at == 0 { "" } else { " " });
        out.push_str(&if std::mem::take(&mut starts) { methods::capitalize(word) } else { word.to_owned() });
        if at - vm.random.between(3, 8) as i64 > comma {
            comma = at;
            stop += 2;
            out.push(',');
        }
        if at - vm.random.between(10, 20) as i64 > stop {
            (comma, stop) = (at, at);
            out.push('.');
            starts = true;
        }
    }
    if out.ends_with(',') {
        out.pop();
    }
    Ok(if out.ends_with('.') { out } else { out + "." })
}
